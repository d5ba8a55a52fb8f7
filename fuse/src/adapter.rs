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
//!                                            ├─ killed ────► reply with an error; the task goes on
//!                                            └─ unmount ───► reply with an error
//! ```

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    AccessFlags, BackingId, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, ReplyAttr,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyOpen,
    ReplyStatfs, ReplyXattr, Request,
};
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tracing::{debug, error, warn};

use crate::awake;
use crate::error::FsError;
use crate::fs::{Attr, DirectoryEntry, FileKind, Fs, Listing};
use crate::killed::killed;
use crate::options::{MountOptions, Owner};
use crate::passthrough::{Backing, IoMode};
use crate::recovery::OpenSegment;
use crate::session::{Effect, Gate, Negotiated};

/// How long the kernel may cache names and attributes that stay the same until it is told
/// otherwise.
const LASTING_TTL: Duration = Duration::from_hours(365 * 24);
/// How long the kernel may cache a directory of repository names. Such a name may become a
/// repository, and nothing tells the kernel then.
const CHANGEABLE_TTL: Duration = Duration::from_secs(1);
/// At most this many bytes are read ahead by the kernel, and around a fault in a mapped file.
///
/// git maps the files that it reads, so a larger value fetches bytes that nobody needs. Without the
/// first look, a cold `git log -1` on git's own repository fetches 1.6 MiB with 32 KiB, and 3.0 MiB
/// with the kernel's default of 128 KiB. Sequential reads don't suffer: `segment/window.rs` widens
/// their requests.
pub(crate) const READ_AHEAD: u32 = 32 << 10;
/// At most this many background requests of the kernel are in flight, mostly read-ahead.
///
/// Requests that a slow daemon stalls must not keep others away. A request that waits is a small
/// task here, so the largest number costs nothing.
const MAX_BACKGROUND: u16 = u16::MAX;
/// How much later than `read_timeout` a read is answered if it isn't by itself. A segment ends its
/// reads at `read_timeout` and remembers the failure, so that the kernel, which asks again at once,
/// gets the same answer at once.
const READ_GRACE: Duration = Duration::from_secs(1);

/// The implementation of fuser's interface over [`Fs`].
#[derive(Debug)]
pub(crate) struct Adapter {
    fs: Arc<Fs>,
    runtime: Handle,
    read_timeout: Duration,
    lookup_timeout: Duration,
    uses_passthrough: bool,
    /// Whether the kernel has refused passthrough for a file.
    passthrough_refused: AtomicBool,
    owner: Owner,
    /// Where the threads of the session wait while the mount is being handed over.
    pub(crate) gate: Arc<Gate>,
    /// The version and flags that the kernel agreed to, from its first request on.
    pub(crate) negotiated: Arc<OnceLock<Negotiated>>,
    /// Ids of backing files that must be closed at the next `open`, because only its reply can.
    unclosed: Mutex<Vec<u32>>,
}

/// The thread that waits for an answer of the mount.
#[derive(Clone, Copy, Debug)]
struct Waiter {
    thread: u32,
    /// How long it waits.
    timeout: Duration,
}

impl Adapter {
    pub(crate) fn new(fs: Arc<Fs>, runtime: Handle, options: &MountOptions) -> Self {
        Self {
            fs,
            runtime,
            read_timeout: options.read_timeout,
            lookup_timeout: options.lookup_timeout,
            uses_passthrough: options.passthrough,
            passthrough_refused: AtomicBool::new(false),
            owner: options.owner,
            gate: Arc::default(),
            negotiated: Arc::default(),
            unclosed: Mutex::default(),
        }
    }

    /// Logs that the kernel refuses passthrough, as a warning the first time: it mostly refuses it
    /// always, for example if the cache is on a filesystem that is stacked itself.
    fn note_refused_passthrough(&self, error: &io::Error) {
        if self.passthrough_refused.swap(true, Ordering::Relaxed) {
            debug!(%error, "Can't use passthrough for a cache file");
        } else {
            warn!(
                %error,
                "Can't use passthrough, so this process answers reads of complete files too: {error}"
            );
        }
    }

    fn looker(&self, request: &Request) -> Waiter {
        Waiter {
            thread: request.pid(),
            timeout: self.lookup_timeout,
        }
    }

    fn reader(&self, request: &Request) -> Waiter {
        Waiter {
            thread: request.pid(),
            timeout: self.read_timeout + READ_GRACE,
        }
    }

    /// Runs `call`, which reads the file or directory `ino`, and passes its outcome to `answer`: in
    /// this thread if `call` is ready at once, otherwise from a task, after at most the waiter's
    /// timeout, or soon after its thread was killed. `effect` is the change that `answer` makes.
    fn respond<T: Send + 'static>(
        &self,
        (ino, effect): (INodeNo, Effect),
        Waiter { thread, timeout }: Waiter,
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
            self.fs.note_outcome(ino.0, outcome.as_ref().err());
            return answer(outcome);
        }
        let backend = self.fs.repositories().segments.backend();
        let (tasks, ending) = (backend.tasks.clone(), backend.ending.clone());
        // The caller gets an error after `timeout`, but its work goes on. A caller that retries a
        // lookup then finds the repository loaded.
        let longest = self.read_timeout.max(timeout);
        let unanswered = self.gate.unanswered(effect);
        let work = awake::timeout(longest, call);
        let until_end = ending.clone();
        // The end of the mount waits for its tasks.
        let work = async move { until_end.run_until_cancelled(work).await };
        let work = tasks.spawn_on(work, &self.runtime);
        let fs = Arc::clone(&self.fs);
        tasks.spawn_on(
            async move {
                let outcome = tokio::select! {
                    outcome = awake::timeout(timeout, work) => match outcome {
                        Ok(Ok(Some(Ok(outcome)))) => outcome,
                        Ok(Ok(None)) => Err(crate::fetch::FetchError::Ending.into()),
                        // The deadline passed, the work took too long, or the runtime stopped it.
                        Ok(Ok(Some(Err(_))) | Err(_)) | Err(_) => Err(FsError::TimedOut),
                    },
                    // A caller that waits for a reply keeps the mount busy. An unmount must not
                    // wait for the network.
                    () = ending.cancelled() => Err(crate::fetch::FetchError::Ending.into()),
                    () = killed(thread) => Err(FsError::Killed),
                };
                fs.note_outcome(ino.0, outcome.as_ref().err());
                answer(outcome);
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

fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Directory => FileType::Directory,
        FileKind::File => FileType::RegularFile,
        FileKind::Symlink => FileType::Symlink,
    }
}

fn file_attr(attr: &Attr, owner: Owner) -> FileAttr {
    // git's index says that all files belong to root, so their attributes must, too.
    let Owner { uid, gid } = if attr.is_top_of_repository {
        owner
    } else {
        Owner::ROOT
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
fn ttl(attr: &Attr) -> Duration {
    if attr.is_lasting {
        LASTING_TTL
    } else {
        CHANGEABLE_TTL
    }
}

/// Returns the entries after the first `offset` ones, each with the offset at which the kernel
/// continues after it.
fn numbered_from(listing: &Listing, offset: u64) -> impl Iterator<Item = (u64, &DirectoryEntry)> {
    (1..)
        .zip(&listing.entries)
        .skip_while(move |&(next, _)| next <= offset)
}

/// The calls that a read-only mount gets. The kernel itself fails all calls that write with EROFS.
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
            // So that a request isn't lost if this process is killed.
            InitFlags::FUSE_HAS_RESEND,
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
        let owner = self.owner;
        let call = async move { fs.lookup(parent.0, &name).await };
        // A directory of repository names has no invalidation: an absent name may become a
        // repository at any time, so its absence must not be cached.
        let keeps_absence = !matches!(self.fs.getattr(parent.0), Ok(attr) if !attr.is_lasting);
        self.respond(
            (parent, Effect::Knowledge),
            self.looker(request),
            call,
            move |outcome| match outcome {
                Ok(attr) => {
                    reply.entry(&ttl(&attr), &file_attr(&attr, owner), Generation(0));
                }
                // A reply with inode 0 makes the kernel cache the absence of the name.
                Err(FsError::NoEntry) if keeps_absence => {
                    let nothing = Attr {
                        ino: 0,
                        kind: FileKind::File,
                        size: 0,
                        mode: 0,
                        mtime: 0,
                        is_top_of_repository: false,
                        is_lasting: true,
                    };
                    reply.entry(&LASTING_TTL, &file_attr(&nothing, owner), Generation(0));
                }
                Err(error) => reply.error(error.errno()),
            },
        );
    }

    fn forget(&self, _request: &Request, ino: INodeNo, count: u64) {
        // Without a turn: a batch of these calls is one request, and its thread must not wait at
        // the gate between two of them.
        self.fs.forget(ino.0, count);
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let _turn = self.gate.turn();
        match self.fs.getattr(ino.0) {
            Ok(attr) => {
                reply.attr(&ttl(&attr), &file_attr(&attr, self.owner));
            }
            Err(error) => reply.error(error.errno()),
        }
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        let _turn = self.gate.turn();
        let fs = Arc::clone(&self.fs);
        let call = async move { fs.readlink(ino.0).await };
        self.respond(
            (ino, Effect::Nothing),
            self.looker(request),
            call,
            move |outcome| match outcome {
                Ok(target) => reply.data(&target),
                Err(error) => reply.error(error.errno()),
            },
        );
    }

    fn open(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let _turn = self.gate.turn();
        if !self.uses_passthrough {
            // After ENOSYS the kernel sends no `open` or `release` any more, for any file. Reads
            // need no handle here, because the bytes of an inode never change. A warm `git grep`
            // over git's work tree took 147 ms with `open`, and 50 ms without.
            return reply.error(Errno::ENOSYS);
        }
        let unclosed = std::mem::take(&mut *self.unclosed.lock());
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
        let mut opens = segment.opens.lock();
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
                .inspect_err(|error| self.note_refused_passthrough(error))
                .ok(),
        };
        opens.count += 1;
        let handle = FileHandle(self.fs.open(file));
        let id = backing.map(BackingId::into_raw);
        if let Some(journal) = &self.fs.journal {
            journal.note(&OpenSegment {
                handle: handle.0,
                segment: segment.record().id,
                backing: id,
            });
        }
        let backing = id.map(|id| attach(&reply, id));
        match &backing {
            // The kernel refuses FOPEN_KEEP_CACHE together with passthrough.
            Some(backing) => reply.opened_passthrough(handle, FopenFlags::empty(), backing),
            None => reply.opened(handle, cached),
        }
        opens.backing = backing.map(Backing::Attached);
    }

    fn read(
        &self,
        request: &Request,
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
                fs.read((ino.0, fh.0), range).await
            } else {
                fs.read_inode(ino.0, range).await
            }
        };
        self.respond(
            (ino, Effect::Nothing),
            self.reader(request),
            call,
            move |outcome| match outcome {
                Ok(bytes) => reply.data(&bytes),
                // EAGAIN suits a lookup that may be retried. Programs don't expect it from a read
                // of a regular file.
                Err(FsError::TimedOut) => reply.error(Errno::EIO),
                Err(error) => reply.error(error.errno()),
            },
        );
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
            let mut opens = segment.opens.lock();
            // First the journal: no later process may use an id that is closed.
            if let Some(journal) = &self.fs.journal {
                journal.forget(fh.0);
            }
            self.unclosed.lock().extend(opens.release());
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
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let _turn = self.gate.turn();
        let fs = Arc::clone(&self.fs);
        let call = async move { fs.listing((ino.0, fh.0), offset).await };
        let subject = (ino, Effect::Knowledge);
        self.respond(subject, self.looker(request), call, move |outcome| {
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
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let _turn = self.gate.turn();
        let (fs, fs_for_lookups) = (Arc::clone(&self.fs), Arc::clone(&self.fs));
        let owner = self.owner;
        let call = async move { fs.listing((ino.0, fh.0), offset).await };
        let subject = (ino, Effect::Knowledge);
        self.respond(subject, self.looker(request), call, move |outcome| {
            let listing = match outcome {
                Ok(listing) => listing,
                Err(error) => return reply.error(error.errno()),
            };
            let is_current = listing.is_current();
            for (next, entry) in numbered_from(&listing, offset) {
                // A switch of generations may have invalidated names while this listing was being
                // read. The kernel must not cache names that come from the old generation.
                let ttl = if is_current {
                    ttl(&entry.attr)
                } else {
                    Duration::ZERO
                };
                let attr = file_attr(&entry.attr, owner);
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
        // A mount is no place for data, so it has no blocks. `df` then leaves it out, and
        // monitoring doesn't report it as full. `cachewfs status` shows the size of the cache.
        reply.statfs(0, 0, 0, 0, 0, 4096, 255, 4096);
    }

    fn access(&self, _request: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let _turn = self.gate.turn();
        match self.fs.getattr(ino.0) {
            Ok(attr) => {
                let is_program = attr.kind != FileKind::File || attr.mode & 0o111 != 0;
                if mask.contains(AccessFlags::X_OK) && !is_program {
                    return reply.error(Errno::EACCES);
                }
                // Everything is readable by all, and the kernel refuses all writes.
                reply.ok();
            }
            Err(error) => reply.error(error.errno()),
        }
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

    fn listxattr(&self, _request: &Request, _ino: INodeNo, size: u32, reply: ReplyXattr) {
        let _turn = self.gate.turn();
        // After ENOSYS, the kernel would answer EOPNOTSUPP, and `tar --xattrs` warns of each file.
        if size == 0 {
            reply.size(0);
        } else {
            reply.data(&[]);
        }
    }

    fn ioctl(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        let _turn = self.gate.turn();
        // Python, for example, asks of each file that it opens whether it is a terminal.
        reply.error(Errno::ENOTTY);
    }
}
