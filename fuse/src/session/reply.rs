//! The answers of [`Fs`](crate::fs::Fs) as fuser sends them.

use std::fs::File;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{BackingId, FileAttr, FileHandle, FileType, FopenFlags, INodeNo, ReplyOpen};

use crate::fs::{Attr, DirectoryEntry, FileKind, Listing, OpenReply};
use crate::options::Owner;

/// How long the kernel may cache names and attributes that stay the same until it is told
/// otherwise.
pub(super) const LASTING_TTL: Duration = Duration::from_hours(365 * 24);
/// How long the kernel may cache a directory of repository names. Such a name may become a
/// repository, and nothing tells the kernel then.
const CHANGEABLE_TTL: Duration = Duration::from_secs(1);

/// The reply to an `open` of the kernel.
pub(super) struct KernelReply(pub(super) ReplyOpen);

impl OpenReply for KernelReply {
    fn register(&self, file: &File) -> io::Result<BackingId> {
        self.0.open_backing(file)
    }

    fn attach(&self, id: u32) -> BackingId {
        attach(&self.0, id)
    }

    fn opened(self, handle: u64, backing: Option<&BackingId>) {
        let handle = FileHandle(handle);
        match backing {
            // The kernel refuses FOPEN_KEEP_CACHE together with passthrough.
            Some(backing) => self
                .0
                .opened_passthrough(handle, FopenFlags::empty(), backing),
            // The bytes of an inode never change, so pages cached by an earlier open stay valid.
            None => self.0.opened(handle, FopenFlags::FOPEN_KEEP_CACHE),
        }
    }
}

/// Attaches the id of a backing file that another process opened on this connection.
pub(super) fn attach(reply: &ReplyOpen, id: u32) -> BackingId {
    #[expect(
        unsafe_code,
        reason = "an id without a value that closes it comes from another process, or from `into_raw`"
    )]
    // SAFETY: the id is open on this connection. The process that opened it gave it away, or is no
    // more, and each id is attached once: the caller has taken it out of its place.
    unsafe {
        reply.wrap_backing(id)
    }
}

fn time(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Directory => FileType::Directory,
        FileKind::File => FileType::RegularFile,
        FileKind::Symlink => FileType::Symlink,
    }
}

pub(super) fn file_attr(attr: &Attr, owner: Owner) -> FileAttr {
    // git's index says that all files belong to root, so their attributes must, too.
    let Owner { uid, gid } = if attr.is_top_of_repository {
        owner
    } else {
        Owner::ROOT
    };
    let mtime = time(attr.mtime);
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.size.div_ceil(512),
        atime: mtime,
        mtime,
        ctime: mtime,
        crtime: mtime,
        kind: file_type(attr.kind),
        perm: attr.mode,
        // Of a directory, 1 means that it doesn't count its subdirectories. Any other number tells
        // programs such as perl's `File::Find` how many there are.
        nlink: 1,
        uid,
        gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// Returns how long the kernel may cache the name and the attributes.
pub(super) fn ttl(attr: &Attr) -> Duration {
    if attr.is_lasting {
        LASTING_TTL
    } else {
        CHANGEABLE_TTL
    }
}

/// Returns the entries after the first `offset` ones, each with the offset at which the kernel
/// continues after it.
pub(super) fn numbered_from(
    listing: &Listing,
    offset: u64,
) -> impl Iterator<Item = (u64, &DirectoryEntry)> {
    (1..)
        .zip(&listing.entries)
        .skip_while(move |&(next, _)| next <= offset)
}
