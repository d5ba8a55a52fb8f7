//! The kernel's side of a mount: mounting, serving, unmounting.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use fuser::{Config, MountOption, Notifier, Session, SessionACL};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::adapter::Adapter;
use crate::options::MountOptions;

/// The type in the mount table.
const FILE_SYSTEM_TYPE: &str = "fuse.cachewfs";
/// Threads that take requests from the kernel; none of them waits for the network.
const THREADS: usize = 4;

/// A session whose requests are served by threads of its own.
#[derive(Debug)]
pub(crate) struct ServedSession {
    mount_point: PathBuf,
    /// Reached when the mount is gone.
    pub(crate) ended: tokio::sync::oneshot::Receiver<io::Result<()>>,
    pub(crate) notifier: Notifier,
}

/// Mounts, and starts to serve.
pub(crate) fn start(adapter: Adapter, options: &MountOptions) -> io::Result<ServedSession> {
    let mut config = Config::default();
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    let acl = if options.allow_other {
        SessionACL::All
    } else {
        SessionACL::Owner
    };
    let source = options.daemons.join(",");
    let session = if rustix::process::geteuid().is_root() {
        // fuser's own unmounting can hit a later mount at the same place (its issue fixed after
        // 0.18): as root we mount and unmount ourselves.
        let device = mount_as_root(&options.mount_point, &source, options.allow_other)?;
        let session = Session::from_fd(adapter, device, acl, config);
        if session.is_err() {
            unmount(&options.mount_point).ok();
        }
        session?
    } else {
        config.acl = acl;
        config.mount_options = vec![
            MountOption::CUSTOM("subtype=cachewfs".to_owned()),
            MountOption::FSName(source.replace(',', " ")),
            MountOption::NoSuid,
            MountOption::NoDev,
        ];
        Session::new(adapter, &options.mount_point, &config)?
    };
    let notifier = session.notifier();
    let (sender, ended) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("cachewfs-fuse".to_owned())
        .spawn(move || {
            // Nobody listens any more if the program is ending.
            sender.send(session.run()).ok();
        })?;
    Ok(ServedSession {
        mount_point: options.mount_point.clone(),
        ended,
        notifier,
    })
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
    /// Unmounts. Where files are still open, the mount leaves the tree at once and what is open
    /// fails when this process ends.
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
            Err(io::Error::other("fusermount3 failed"))
        };
    }
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
