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
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fuser::{
    AccessFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyOpen, ReplyStatfs, ReplyXattr,
    Request,
};
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tracing::error;

use super::gate::{Effect, Gate};
use super::reply::{KernelReply, LASTING_TTL, attach, file_attr, file_type, numbered_from, ttl};
use crate::fetch::FetchError;
use crate::fs::{Attr, FileKind, Fs, FsError};
use crate::ino::Ino;
use crate::killed::killed;
use crate::negotiated::{Negotiated, READ_AHEAD};
use crate::options::{MountOptions, Owner};
use crate::{awake, caller};

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
            owner: options.owner,
            gate: Arc::default(),
            negotiated: Arc::default(),
            unclosed: Mutex::default(),
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
        (ino, effect): (Ino, Effect),
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
        let call = caller::for_thread(thread, call);
        let mut call: Pin<Box<dyn Future<Output = Result<T, FsError>> + Send>> = Box::pin(call);
        // This thread is not one of the runtime's, and the call may start timers and tasks.
        let _entered = self.runtime.enter();
        // The waker does nothing. If the call is pending, the task below polls it again, and
        // that poll registers the task's waker.
        if let Poll::Ready(outcome) = call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            self.fs.note_outcome(ino, outcome.as_ref().err());
            return answer(outcome);
        }
        let tasks = self.fs.repositories().tasks();
        // The caller gets an error after `timeout`, but its work goes on. A caller that retries a
        // lookup then finds the repository loaded.
        let longest = self.read_timeout.max(timeout);
        let unanswered = self.gate.unanswered(effect);
        let work = tasks.spawn_until_end(awake::timeout(longest, call));
        let fs = Arc::clone(&self.fs);
        let end = tasks.clone();
        let callers = Arc::clone(&self.fs.repositories().callers);
        let waiting = callers.waiting.wait();
        tasks.spawn(async move {
            let outcome = tokio::select! {
                outcome = awake::timeout(timeout, work) => match outcome {
                    Ok(Ok(Some(Ok(outcome)))) => outcome,
                    Ok(Ok(None)) => Err(FetchError::Ending.into()),
                    // The deadline passed, the work took too long, or the runtime stopped it.
                    Ok(Ok(Some(Err(_))) | Err(_)) | Err(_) => Err(FsError::TimedOut),
                },
                // A caller that waits for a reply keeps the mount busy. An unmount must not wait
                // for the network.
                () = end.ending() => Err(FetchError::Ending.into()),
                () = killed(thread) => Err(FsError::Killed),
                () = callers.released() => Err(FsError::Released),
            };
            fs.note_outcome(ino, outcome.as_ref().err());
            answer(outcome);
            drop((unanswered, waiting));
        });
    }
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
        let passthrough = &self.fs.repositories().passthrough;
        passthrough.note_offer(self.uses_passthrough);
        self.negotiated.set(Negotiated::new(config, agreed)).ok();
        config.set_max_background(MAX_BACKGROUND).ok();
        config.set_max_readahead(READ_AHEAD).ok();
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _turn = self.gate.turn();
        let (fs, name) = (Arc::clone(&self.fs), name.as_bytes().to_vec());
        let owner = self.owner;
        let call = async move { fs.lookup(Ino(parent.0), &name).await };
        // A directory of repository names has no invalidation: an absent name may become a
        // repository at any time, so its absence must not be cached.
        let keeps_absence = !matches!(self.fs.getattr(Ino(parent.0)), Ok(attr) if !attr.is_lasting);
        self.respond(
            (Ino(parent.0), Effect::Knowledge),
            self.looker(request),
            call,
            move |outcome| match outcome {
                Ok(attr) => {
                    reply.entry(&ttl(&attr), &file_attr(&attr, owner), Generation(0));
                }
                // A reply with inode 0 makes the kernel cache the absence of the name.
                Err(FsError::NoEntry) if keeps_absence => {
                    let nothing = Attr {
                        ino: Ino(0),
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
        self.fs.forget(Ino(ino.0), count);
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let _turn = self.gate.turn();
        match self.fs.getattr(Ino(ino.0)) {
            Ok(attr) => {
                reply.attr(&ttl(&attr), &file_attr(&attr, self.owner));
            }
            Err(error) => reply.error(error.errno()),
        }
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        let _turn = self.gate.turn();
        let fs = Arc::clone(&self.fs);
        let call = async move { fs.readlink(Ino(ino.0)).await };
        self.respond(
            (Ino(ino.0), Effect::Nothing),
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
        match self.fs.file(Ino(ino.0)) {
            Ok(file) => self.fs.open_for_kernel(file, KernelReply(reply)),
            Err(error) => reply.error(error.errno()),
        }
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
                fs.read((Ino(ino.0), fh.0), range).await
            } else {
                fs.read_inode(Ino(ino.0), range).await
            }
        };
        self.respond(
            (Ino(ino.0), Effect::Nothing),
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
        self.unclosed
            .lock()
            .extend(self.fs.release_for_kernel(fh.0));
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
        let is_lasting = matches!(self.fs.getattr(Ino(ino.0)), Ok(attr) if attr.is_lasting);
        // A listing may be cached only if an invalidation tells the kernel when it changes.
        let flags = if is_lasting {
            FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE
        } else {
            FopenFlags::empty()
        };
        match self.fs.opendir(Ino(ino.0)) {
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
        let call = async move { fs.listing((Ino(ino.0), fh.0), offset).await };
        let subject = (Ino(ino.0), Effect::Knowledge);
        self.respond(subject, self.looker(request), call, move |outcome| {
            let listing = match outcome {
                Ok(listing) => listing,
                Err(error) => return reply.error(error.errno()),
            };
            for (next, entry) in numbered_from(&listing, offset) {
                let kind = file_type(entry.attr.kind);
                let name = OsStr::from_bytes(&entry.name);
                if reply.add(INodeNo(entry.attr.ino.0), next, kind, name) {
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
        let call = async move { fs.listing((Ino(ino.0), fh.0), offset).await };
        let subject = (Ino(ino.0), Effect::Knowledge);
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
                let ino = INodeNo(entry.attr.ino.0);
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
        match self.fs.getattr(Ino(ino.0)) {
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
