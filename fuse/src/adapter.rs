//! Translates requests of the kernel to calls of [`Fs`], and their results to replies.
//!
//! The thread that receives a request polls the call once. A cache hit completes in that poll, and
//! the thread replies. A call that waits for the network becomes a task with a deadline, and the
//! thread takes the next request:
//!
//! ```text
//! FUSE thread   request ─ poll ─┬─ ready ──► reply
//!                               └─ pending ─► next request
//! runtime                          └─► task ─┬─ done ──────► reply
//!                                            ├─ deadline ──► reply with an error; the task goes on
//!                                            └─ unmount ───► reply with an error
//! ```

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    AccessFlags, BackingId, BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use futures_util::FutureExt as _;
use tokio::runtime::Handle;
use tracing::{debug, error, warn};

use crate::error::FsError;
use crate::fs::{Attr, DirectoryEntry, FileKind, Fs, Listing};
use crate::options::MountOptions;
use crate::passthrough::{Backing, IoMode};
use crate::session::{Effect, Gate, Negotiated};

/// How long the kernel may cache names and attributes that stay the same until it is told
/// otherwise.
const LASTING_TTL: Duration = Duration::from_hours(365 * 24);
/// How long the kernel may cache a directory of repository names. Such a name may become a
/// repository, and nothing tells the kernel then.
const CHANGEABLE_TTL: Duration = Duration::from_secs(1);
/// At most this many bytes are read ahead by the kernel, and around a fault in a mapped file.
///
/// git maps the files that it reads, so a larger value fetches bytes that nobody needs. A cold
/// `git log -1` on git's own repository fetches 1.6 MiB with 32 KiB, and 3.0 MiB with the kernel's
/// default of 128 KiB. Sequential reads don't suffer: `segment/window.rs` widens their requests.
pub(crate) const READ_AHEAD: u32 = 32 << 10;
/// At most this many background requests of the kernel are in flight, mostly read-ahead.
const MAX_BACKGROUND: u16 = 64;

/// The implementation of fuser's interface over [`Fs`].
#[derive(Debug)]
pub(crate) struct Adapter {
    fs: Arc<Fs>,
    runtime: Handle,
    read_timeout: Duration,
    lookup_timeout: Duration,
    uses_passthrough: bool,
    /// Where the threads of the session wait while the mount is being handed over.
    pub(crate) gate: Arc<Gate>,
    /// What the kernel agreed to, from the first request on.
    pub(crate) negotiated: Arc<OnceLock<Negotiated>>,
    /// Ids of backing files that must be closed at the next `open`, because only its reply can.
    unclosed: Mutex<Vec<u32>>,
}

impl Adapter {
    pub(crate) fn new(fs: Arc<Fs>, runtime: Handle, options: &MountOptions) -> Self {
        Self {
            fs,
            runtime,
            read_timeout: options.read_timeout,
            lookup_timeout: options.lookup_timeout,
            uses_passthrough: options.passthrough,
            gate: Arc::default(),
            negotiated: Arc::default(),
            unclosed: Mutex::default(),
        }
    }

    fn unclosed(&self) -> MutexGuard<'_, Vec<u32>> {
        self.unclosed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `call` and passes its outcome to `answer`: in this thread if `call` is ready at once,
    /// otherwise from a task, after at most `timeout`.
    fn respond<T: Send + 'static>(
        &self,
        (timeout, effect): (Duration, Effect),
        call: impl Future<Output = Result<T, FsError>> + Send + 'static,
        answer: impl FnOnce(Result<T, FsError>) + Send + 'static,
    ) {
        // A panic would end the thread that serves the kernel. It fails this call instead, and
        // the mount goes on.
        let call = AssertUnwindSafe(call).catch_unwind().map(|outcome| {
            outcome.unwrap_or_else(|_| {
                error!("A file-system call panicked: its caller gets EIO");
                Err(FsError::Panicked)
            })
        });
        let mut call: Pin<Box<dyn Future<Output = Result<T, FsError>> + Send>> = Box::pin(call);
        // This thread is not one of the runtime's, and the call may start timers and tasks.
        let entered = self.runtime.enter();
        // The waker does nothing. If the call is pending, the task below polls it again, and
        // that poll registers the task's waker.
        if let Poll::Ready(outcome) = call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            drop(entered);
            return answer(log(outcome));
        }
        let backend = self.fs.repositories().segments.backend();
        let (tasks, ending) = (backend.tasks.clone(), backend.ending.clone());
        let unanswered = self.gate.unanswered(effect);
        // The caller gets an error after `timeout`, but its work goes on. A caller that retries a
        // lookup then finds the repository loaded.
        let longest = self.read_timeout.max(timeout);
        let work = tasks.spawn_on(tokio::time::timeout(longest, call), &self.runtime);
        tasks.spawn_on(
            async move {
                let outcome = tokio::select! {
                    outcome = tokio::time::timeout(timeout, work) => match outcome {
                        Ok(Ok(Ok(outcome))) => outcome,
                        // The deadline passed, the work took too long, or the runtime stopped it.
                        Ok(Ok(Err(_)) | Err(_)) | Err(_) => Err(FsError::TimedOut),
                    },
                    // A caller that waits for a reply keeps the mount busy. An unmount must not
                    // wait for the network.
                    () = ending.cancelled() => Err(crate::fetch::FetchError::Ending.into()),
                };
                answer(log(outcome));
                drop(unanswered);
            },
            &self.runtime,
        );
    }
}

/// Attaches the id of a backing file that another process opened on this connection.
fn attach(reply: &ReplyOpen, id: u32) -> BackingId {
    #[expect(
        unsafe_code,
        reason = "an id without a value that closes it comes only from another process"
    )]
    // SAFETY: the id is open on this connection. The process that opened it gave it away and closes
    // it no more, and each id is attached once: the caller has taken it out of its place.
    unsafe {
        reply.wrap_backing(id)
    }
}

/// Logs an unexpected error, and returns `outcome`.
fn log<T>(outcome: Result<T, FsError>) -> Result<T, FsError> {
    if let Err(error) = &outcome
        && !error.is_expected()
    {
        let errno = error.errno();
        warn!(
            ?errno,
            error = error as &dyn std::error::Error,
            "A file-system call failed"
        );
    }
    outcome
}

fn time(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Directory => FileType::Directory,
        FileKind::File => FileType::RegularFile,
        FileKind::Symlink => FileType::Symlink,
    }
}

fn file_attr(attr: &Attr, uid: u32, gid: u32) -> FileAttr {
    let (uid, gid) = if attr.is_owned_by_caller {
        (uid, gid)
    } else {
        (0, 0)
    };
    let mtime = time(attr.mtime);
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.size.div_ceil(512),
        atime: mtime,
        mtime,
        ctime: mtime,
        crtime: mtime,
        kind: file_type(attr.kind),
        perm: attr.mode,
        nlink: if attr.kind == FileKind::Directory {
            2
        } else {
            1
        },
        uid,
        gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// Returns how long the kernel may cache the attributes, and how long the name.
fn ttls(attr: &Attr) -> (Duration, Duration) {
    let name = if attr.is_lasting {
        LASTING_TTL
    } else {
        CHANGEABLE_TTL
    };
    (
        // The owner in the reply is the caller. Cached attributes would show it to other users.
        if attr.is_owned_by_caller {
            Duration::ZERO
        } else {
            name
        },
        name,
    )
}

/// Returns the entries after the first `offset` ones, each with the offset at which the kernel
/// continues after it.
fn numbered_from(listing: &Listing, offset: u64) -> impl Iterator<Item = (u64, &DirectoryEntry)> {
    (1..)
        .zip(&listing.entries)
        .skip_while(move |&(next, _)| next <= offset)
}

fn wants_to_write(flags: OpenFlags) -> bool {
    flags.acc_mode() != OpenAccMode::O_RDONLY
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let useful = [
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_CACHE_SYMLINKS,
            // The bytes of an inode never change, so the kernel need not drop cached pages itself.
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
        ];
        let mut agreed = InitFlags::empty();
        for capability in useful {
            // An older kernel may lack it. The mount is then slower, but correct.
            if config.add_capabilities(capability).is_ok() {
                agreed |= capability;
            }
        }
        if self.uses_passthrough {
            // With a stack depth of 0, the default, the kernel allows no passthrough.
            let offered = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
                && config.set_max_stack_depth(1).is_ok();
            self.uses_passthrough = offered;
            if offered {
                agreed |= InitFlags::FUSE_PASSTHROUGH;
            }
        }
        self.negotiated.set(Negotiated::new(config, agreed)).ok();
        config.set_max_background(MAX_BACKGROUND).ok();
        config.set_max_readahead(READ_AHEAD).ok();
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _turn = self.gate.turn();
        let (fs, name) = (Arc::clone(&self.fs), name.as_bytes().to_vec());
        let (uid, gid) = (request.uid(), request.gid());
        let call = async move { fs.lookup(parent.0, &name).await };
        // A directory of repository names has no invalidation: an absent name may become a
        // repository at any time, so its absence must not be cached.
        let keeps_absence = !matches!(self.fs.getattr(parent.0), Ok(attr) if !attr.is_lasting);
        let limits = (self.lookup_timeout, Effect::Knowledge);
        self.respond(limits, call, move |outcome| match outcome {
            Ok(attr) => {
                let (attr_ttl, name_ttl) = ttls(&attr);
                let attr = file_attr(&attr, uid, gid);
                reply.entry_with_ttls(&name_ttl, &attr_ttl, &attr, Generation(0));
            }
            // A reply with inode 0 makes the kernel cache the absence of the name.
            Err(FsError::NoEntry) if keeps_absence => {
                let nothing = Attr {
                    ino: 0,
                    kind: FileKind::File,
                    size: 0,
                    mode: 0,
                    mtime: 0,
                    is_owned_by_caller: false,
                    is_lasting: true,
                };
                reply.entry(&LASTING_TTL, &file_attr(&nothing, 0, 0), Generation(0));
            }
            Err(error) => reply.error(error.errno()),
        });
    }

    fn forget(&self, _request: &Request, ino: INodeNo, count: u64) {
        let _turn = self.gate.turn();
        self.fs.forget(ino.0, count);
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let _turn = self.gate.turn();
        match self.fs.getattr(ino.0) {
            Ok(attr) => {
                reply.attr(
                    &ttls(&attr).0,
                    &file_attr(&attr, request.uid(), request.gid()),
                );
            }
            Err(error) => reply.error(error.errno()),
        }
    }

    /// Accepts new times and ignores them; refuses all other changes.
    ///
    /// git refreshes the times of a pack that already has an object it was about to write. If that
    /// failed, git would write the object again.
    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let _turn = self.gate.turn();
        if mode.is_some() || uid.is_some() || gid.is_some() || size.is_some() {
            return reply.error(Errno::EROFS);
        }
        self.getattr(request, ino, fh, reply);
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        let _turn = self.gate.turn();
        let fs = Arc::clone(&self.fs);
        let call = async move { fs.readlink(ino.0).await };
        let limits = (self.lookup_timeout, Effect::Nothing);
        self.respond(limits, call, move |outcome| match outcome {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(error.errno()),
        });
    }

    fn open(&self, _request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let _turn = self.gate.turn();
        if wants_to_write(flags) {
            return reply.error(Errno::EROFS);
        }
        if !self.uses_passthrough {
            // After ENOSYS the kernel sends no `open` or `release` any more, for any file. Reads
            // need no handle here, because the bytes of an inode never change. A warm `git grep`
            // over git's work tree took 147 ms with `open`, and 50 ms without.
            return reply.error(Errno::ENOSYS);
        }
        let unclosed = std::mem::take(&mut *self.unclosed());
        for id in unclosed {
            drop(attach(&reply, id));
        }
        let file = match self.fs.file(ino.0) {
            Ok(file) => file,
            Err(error) => return reply.error(error.errno()),
        };
        // The bytes of an inode never change, so pages cached by an earlier open stay valid.
        let cached = FopenFlags::FOPEN_KEEP_CACHE;
        let Some(segment) = file.segment().cloned() else {
            return reply.opened(FileHandle(self.fs.open(file)), cached);
        };
        // The kernel reads an inode in one mode at a time, and fails an `open` in the other mode
        // with EIO. The lock is held from the choice of the mode until the open is counted, so
        // that concurrent opens of a segment agree.
        let mut opens = segment.opens.lock().unwrap_or_else(PoisonError::into_inner);
        // The kernel would read holes of an incomplete file as zeros: passthrough needs all chunks.
        let free_choice = if segment.is_complete_on_disk() {
            IoMode::Passthrough
        } else {
            IoMode::Cached
        };
        let mode = opens.required_mode().unwrap_or(free_choice);
        let backing = match (mode, opens.backing.take()) {
            (IoMode::Cached, _) => None,
            (IoMode::Passthrough, Some(Backing::Attached(backing))) => Some(backing),
            (IoMode::Passthrough, Some(Backing::Detached(id))) => Some(attach(&reply, id)),
            (IoMode::Passthrough, None) => segment
                .opened_file()
                .ok_or_else(|| io::Error::other("the cache files are not open"))
                .and_then(|file| reply.open_backing(file.data()))
                // The mode falls back to cached, also for all opens until the last one ends.
                .inspect_err(|error| debug!(%error, "Can't use passthrough for a cache file"))
                .ok(),
        };
        opens.count += 1;
        let handle = FileHandle(self.fs.open(file));
        match &backing {
            // The kernel refuses FOPEN_KEEP_CACHE together with passthrough.
            Some(backing) => reply.opened_passthrough(handle, FopenFlags::empty(), backing),
            None => reply.opened(handle, cached),
        }
        opens.backing = backing.map(Backing::Attached);
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let _turn = self.gate.turn();
        let fs = Arc::clone(&self.fs);
        let range = offset..offset.saturating_add(u64::from(size));
        let has_handles = self.uses_passthrough;
        let call = async move {
            if has_handles {
                fs.read(fh.0, range).await
            } else {
                fs.read_inode(ino.0, range).await
            }
        };
        let limits = (self.read_timeout, Effect::Nothing);
        self.respond(limits, call, move |outcome| match outcome {
            Ok(bytes) => reply.data(&bytes),
            // EAGAIN suits a lookup that may be retried. Programs don't expect it from a read of
            // a regular file.
            Err(FsError::TimedOut) => reply.error(Errno::EIO),
            Err(error) => reply.error(error.errno()),
        });
    }

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let _turn = self.gate.turn();
        if let Some(file) = self.fs.release(fh.0)
            && let Some(segment) = file.segment()
        {
            let mut opens = segment.opens.lock().unwrap_or_else(PoisonError::into_inner);
            self.unclosed().extend(opens.release());
        }
        reply.ok();
    }

    fn flush(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let _turn = self.gate.turn();
        // Nothing is ever written. After ENOSYS the kernel sends no `flush` any more.
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let _turn = self.gate.turn();
        let is_lasting = matches!(self.fs.getattr(ino.0), Ok(attr) if attr.is_lasting);
        // A listing may be cached only if an invalidation tells the kernel when it changes.
        let flags = if is_lasting {
            FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE
        } else {
            FopenFlags::empty()
        };
        match self.fs.opendir(ino.0) {
            Ok(handle) => reply.opened(FileHandle(handle), flags),
            Err(error) => reply.error(error.errno()),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let _turn = self.gate.turn();
        let fs = Arc::clone(&self.fs);
        let call = async move { fs.listing(fh.0, offset).await };
        let limits = (self.lookup_timeout, Effect::Knowledge);
        self.respond(limits, call, move |outcome| {
            let listing = match outcome {
                Ok(listing) => listing,
                Err(error) => return reply.error(error.errno()),
            };
            for (next, entry) in numbered_from(&listing, offset) {
                let kind = file_type(entry.attr.kind);
                let name = OsStr::from_bytes(&entry.name);
                if reply.add(INodeNo(entry.attr.ino), next, kind, name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn readdirplus(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let _turn = self.gate.turn();
        let (fs, fs_for_lookups) = (Arc::clone(&self.fs), Arc::clone(&self.fs));
        let (uid, gid) = (request.uid(), request.gid());
        let call = async move { fs.listing(fh.0, offset).await };
        let limits = (self.lookup_timeout, Effect::Knowledge);
        self.respond(limits, call, move |outcome| {
            let listing = match outcome {
                Ok(listing) => listing,
                Err(error) => return reply.error(error.errno()),
            };
            let is_current = listing.is_current();
            for (next, entry) in numbered_from(&listing, offset) {
                // A switch of generations may have invalidated names while this listing was being
                // read. The kernel must not cache names that come from the old generation.
                let ttl = if is_current {
                    ttls(&entry.attr).0
                } else {
                    Duration::ZERO
                };
                let attr = file_attr(&entry.attr, uid, gid);
                let name = OsStr::from_bytes(&entry.name);
                let ino = INodeNo(entry.attr.ino);
                if reply.add(ino, next, name, &ttl, &attr, Generation(0)) {
                    break;
                }
                // The kernel counts a lookup of each entry, except of these two. Counting them
                // would keep their inodes forever.
                if entry.name != b"." && entry.name != b".." {
                    fs_for_lookups.remember(entry);
                }
            }
            reply.ok();
        });
    }

    fn releasedir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let _turn = self.gate.turn();
        self.fs.releasedir(fh.0);
        reply.ok();
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let _turn = self.gate.turn();
        let cache = &self.fs.repositories().segments.backend().cache;
        let (used, max) = (cache.used_bytes() / 4096, cache.max_bytes() / 4096);
        reply.statfs(max, max.saturating_sub(used), 0, 0, 0, 4096, 255, 4096);
    }

    fn access(&self, _request: &Request, _ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let _turn = self.gate.turn();
        if mask.contains(AccessFlags::W_OK) {
            return reply.error(Errno::EROFS);
        }
        reply.ok();
    }

    fn getxattr(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _name: &OsStr,
        _size: u32,
        reply: ReplyXattr,
    ) {
        let _turn = self.gate.turn();
        // There are no extended attributes. After ENOSYS the kernel asks for none any more.
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _request: &Request, _ino: INodeNo, _size: u32, reply: ReplyXattr) {
        let _turn = self.gate.turn();
        reply.error(Errno::ENOSYS);
    }

    fn create(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let _turn = self.gate.turn();
        reply.error(Errno::EROFS);
    }

    fn mknod(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        let _turn = self.gate.turn();
        reply.error(Errno::EROFS);
    }

    fn mkdir(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let _turn = self.gate.turn();
        reply.error(Errno::EROFS);
    }

    fn symlink(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _target: &std::path::Path,
        reply: ReplyEntry,
    ) {
        let _turn = self.gate.turn();
        reply.error(Errno::EROFS);
    }

    fn link(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _parent: INodeNo,
        _name: &OsStr,
        reply: ReplyEntry,
    ) {
        let _turn = self.gate.turn();
        reply.error(Errno::EROFS);
    }

    fn unlink(&self, _request: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        let _turn = self.gate.turn();
        reply.error(Errno::EROFS);
    }

    fn rmdir(&self, _request: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        let _turn = self.gate.turn();
        reply.error(Errno::EROFS);
    }

    fn rename(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _new_parent: INodeNo,
        _new_name: &OsStr,
        _flags: fuser::RenameFlags,
        reply: ReplyEmpty,
    ) {
        let _turn = self.gate.turn();
        reply.error(Errno::EROFS);
    }

    fn write(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        _data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let _turn = self.gate.turn();
        reply.error(Errno::EROFS);
    }

    fn setxattr(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let _turn = self.gate.turn();
        reply.error(Errno::EROFS);
    }
}
