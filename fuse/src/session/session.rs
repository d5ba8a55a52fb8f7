//! A FUSE session: mounting, serving requests on threads, unmounting.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use fuser::{Config, MountOption, Notifier, Session, SessionACL};
use rustix::mount::{MountFlags, UnmountFlags};

use super::adapter::Adapter;
use super::gate::Gate;
use crate::mount_table::{DeviceNumber, FILE_SYSTEM_TYPE, mount_at};
use crate::negotiated::Negotiated;
use crate::options::MountOptions;

/// The number of threads that receive requests of the kernel. Few are enough, because none of them
/// waits for the network.
pub(crate) const THREADS: usize = 4;

/// A mounted session, served by threads of its own.
#[derive(Debug)]
pub(crate) struct ServedSession {
    mount_point: PathBuf,
    /// The device number of the mounted filesystem.
    pub(crate) device: DeviceNumber,
    /// The outcome of the session, sent when the mount is gone.
    pub(crate) ended: tokio::sync::oneshot::Receiver<io::Result<()>>,
    pub(crate) notifier: Notifier,
    /// The connection to the kernel.
    pub(crate) connection: OwnedFd,
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
    let prepared = prepare(adapter, options, |adapter, acl, mut config| {
        if rustix::process::geteuid().is_root() {
            // Up to version 0.18, fuser's own unmounting can hit a later mount at the same place.
            // As root, this module therefore mounts and unmounts by system calls.
            let device = mount_as_root(options, &source)?;
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
            MountOption::RO,
            MountOption::NoSuid,
            MountOption::NoDev,
        ];
        if options.noexec {
            config.mount_options.push(MountOption::NoExec);
        }
        Session::new(adapter, &options.mount_point, &config)
    })?;
    let entry = mount_at(&options.mount_point).and_then(|entry| {
        entry.ok_or_else(|| io::Error::other("the mount is not in the mount table"))
    });
    let entry = entry.inspect_err(|_| {
        unmount(&options.mount_point).ok();
    })?;
    prepared.serve(entry.device)
}

/// Prepares to serve a connection that another process has served. Reads no request.
pub(crate) fn resume(
    adapter: Adapter,
    options: &MountOptions,
    (connection, negotiated): (&OwnedFd, Negotiated),
) -> io::Result<PreparedSession> {
    prepare(adapter, options, |adapter, acl, config| {
        super::resume::resume(connection, negotiated, |socket| {
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
    // All threads read from one descriptor, which the holder has too: a request that a thread has
    // read then outlives this process.
    config.clone_fd = false;
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
    /// Starts the threads that serve requests of the filesystem with the number `device`.
    pub(crate) fn serve(self, device: DeviceNumber) -> io::Result<ServedSession> {
        let session = self.session;
        let (notifier, connection) = (session.notifier(), session.as_fd().try_clone_to_owned()?);
        let (sender, ended) = tokio::sync::oneshot::channel();
        std::thread::Builder::new()
            .name("cachewfs-fuse".to_owned())
            .spawn(move || {
                // Sending fails if the program is ending and has dropped the receiver.
                sender.send(session.run()).ok();
            })?;
        Ok(ServedSession {
            mount_point: self.mount_point,
            device,
            ended,
            notifier,
            connection,
            gate: self.gate,
            negotiated: self.negotiated.get().copied(),
        })
    }
}

fn mount_as_root(options: &MountOptions, source: &str) -> io::Result<OwnedFd> {
    let device = File::options().read(true).write(true).open("/dev/fuse")?;
    let mut data = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0",
        device.as_raw_fd()
    );
    if options.allow_other {
        data.push_str(",allow_other");
    }
    let data = std::ffi::CString::new(data).map_err(io::Error::other)?;
    let mut flags =
        MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    flags.set(MountFlags::NOEXEC, options.noexec);
    let mount_point = &options.mount_point;
    rustix::mount::mount(source, mount_point, FILE_SYSTEM_TYPE, flags, &*data)?;
    Ok(device.into())
}

impl ServedSession {
    /// Returns whether the mount is still in the mount table, and no other mount hides it.
    pub(crate) fn is_mounted(&self) -> io::Result<bool> {
        let entry = mount_at(&self.mount_point)?;
        Ok(entry.is_some_and(|entry| entry.device == self.device))
    }

    /// Unmounts. If files are still open, detaches the mount at once. Reads of those files fail
    /// when this process ends.
    pub(crate) fn unmount(&self) -> io::Result<()> {
        unmount(&self.mount_point)
    }
}

fn unmount(mount_point: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return detach(mount_point);
    }
    // Detaching is only the second choice: after a plain unmount no process uses the mount.
    match rustix::mount::unmount(mount_point, UnmountFlags::NOFOLLOW) {
        Err(rustix::io::Errno::BUSY) => detach(mount_point),
        outcome => Ok(outcome?),
    }
}

/// Removes a mount from the mount table, even if processes use it.
pub(crate) fn detach(mount_point: &Path) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        let flags = UnmountFlags::NOFOLLOW | UnmountFlags::DETACH;
        return Ok(rustix::mount::unmount(mount_point, flags)?);
    }
    let run = |program| {
        let mut command = std::process::Command::new(program);
        command.args(["-u", "-z", "--"]).arg(mount_point).status()
    };
    // The directory may be missing in `PATH`, as for cron. fuser looks there too when it mounts.
    let status = run("fusermount3").or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => run("/bin/fusermount3"),
        _ => Err(error),
    })?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("fusermount3 failed: {status}")))
    }
}
