//! The FUSE session of a mount: mounting, serving requests on threads, unmounting.

mod gate;
mod resume;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use fuser::{Config, MountOption, Notifier, Session, SessionACL};
use rustix::mount::{MountFlags, UnmountFlags};

pub(crate) use self::gate::{Effect, Gate};
pub(crate) use self::resume::Negotiated;

use crate::adapter::Adapter;
use crate::options::MountOptions;

/// The file-system type in the mount table.
const FILE_SYSTEM_TYPE: &str = "fuse.cachewfs";
/// The number of threads that receive requests of the kernel. Few are enough, because none of them
/// waits for the network.
pub(crate) const THREADS: usize = 4;

/// A mounted session, served by threads of its own.
#[derive(Debug)]
pub(crate) struct ServedSession {
    mount_point: PathBuf,
    /// The outcome of the session, sent when the mount is gone.
    pub(crate) ended: tokio::sync::oneshot::Receiver<io::Result<()>>,
    pub(crate) notifier: Notifier,
    /// The connection to the kernel.
    pub(crate) device: OwnedFd,
    pub(crate) gate: Arc<Gate>,
    pub(crate) negotiated: Option<Negotiated>,
}

/// A session that has not read a request yet.
#[derive(Debug)]
pub(crate) struct PreparedSession {
    session: Session<Adapter>,
    mount_point: PathBuf,
    gate: Arc<Gate>,
    negotiated: Arc<OnceLock<Negotiated>>,
}

/// Mounts, and starts the threads that serve requests. Blocks until the kernel has sent its first
/// request.
pub(crate) fn start(adapter: Adapter, options: &MountOptions) -> io::Result<ServedSession> {
    let source = options.daemons.join(",");
    prepare(adapter, options, |adapter, acl, mut config| {
        if rustix::process::geteuid().is_root() {
            // Up to version 0.18, fuser's own unmounting can hit a later mount at the same place.
            // As root, this module therefore mounts and unmounts by system calls.
            let device = mount_as_root(&options.mount_point, &source, options.allow_other)?;
            let session = Session::from_fd(adapter, device, acl, config);
            if session.is_err() {
                unmount(&options.mount_point).ok();
            }
            return session;
        }
        config.acl = acl;
        config.mount_options = vec![
            MountOption::CUSTOM("subtype=cachewfs".to_owned()),
            MountOption::FSName(source.replace(',', " ")),
            MountOption::NoSuid,
            MountOption::NoDev,
        ];
        Session::new(adapter, &options.mount_point, &config)
    })?
    .serve()
}

/// Prepares to serve the connection `device`, which another process has served. Reads no request.
pub(crate) fn resume(
    adapter: Adapter,
    options: &MountOptions,
    (device, negotiated): (&OwnedFd, Negotiated),
) -> io::Result<PreparedSession> {
    prepare(adapter, options, |adapter, acl, config| {
        resume::resume(device, negotiated, |socket| {
            Session::from_fd(adapter, socket, acl, config)
        })
    })
}

fn prepare(
    adapter: Adapter,
    options: &MountOptions,
    new_session: impl FnOnce(Adapter, SessionACL, Config) -> io::Result<Session<Adapter>>,
) -> io::Result<PreparedSession> {
    let mut config = Config::default();
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    let acl = if options.allow_other {
        SessionACL::All
    } else {
        SessionACL::Owner
    };
    let (gate, negotiated) = (Arc::clone(&adapter.gate), Arc::clone(&adapter.negotiated));
    Ok(PreparedSession {
        session: new_session(adapter, acl, config)?,
        mount_point: options.mount_point.clone(),
        gate,
        negotiated,
    })
}

impl PreparedSession {
    /// Starts the threads that serve requests.
    pub(crate) fn serve(self) -> io::Result<ServedSession> {
        let session = self.session;
        let (notifier, device) = (session.notifier(), session.as_fd().try_clone_to_owned()?);
        let (sender, ended) = tokio::sync::oneshot::channel();
        std::thread::Builder::new()
            .name("cachewfs-fuse".to_owned())
            .spawn(move || {
                // Sending fails if the program is ending and has dropped the receiver.
                sender.send(session.run()).ok();
            })?;
        Ok(ServedSession {
            mount_point: self.mount_point,
            ended,
            notifier,
            device,
            gate: self.gate,
            negotiated: self.negotiated.get().copied(),
        })
    }
}

fn mount_as_root(mount_point: &Path, source: &str, allow_other: bool) -> io::Result<OwnedFd> {
    let device = File::options().read(true).write(true).open("/dev/fuse")?;
    let mut data = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0",
        device.as_raw_fd()
    );
    if allow_other {
        data.push_str(",allow_other");
    }
    let data = std::ffi::CString::new(data).map_err(io::Error::other)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    rustix::mount::mount(source, mount_point, FILE_SYSTEM_TYPE, flags, &*data)?;
    Ok(device.into())
}

impl ServedSession {
    /// Unmounts. If files are still open, detaches the mount at once. Reads of those files fail
    /// when this process ends.
    pub(crate) fn unmount(&self) -> io::Result<()> {
        unmount(&self.mount_point)
    }
}

fn unmount(mount_point: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        let status = std::process::Command::new("fusermount3")
            .args(["-u", "-z", "--"])
            .arg(mount_point)
            .status()?;
        return if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!("fusermount3 failed: {status}")))
        };
    }
    // Detaching is only the second choice: after a plain unmount no process uses the mount.
    match rustix::mount::unmount(mount_point, UnmountFlags::NOFOLLOW) {
        Err(rustix::io::Errno::BUSY) => Ok(rustix::mount::unmount(
            mount_point,
            UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
        )?),
        outcome => Ok(outcome?),
    }
}

#[cfg(test)]
mod tests;
