//! The removal of mounts whose process is gone.

use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, StatxFlags};

use crate::mount_table::mount_at;
use crate::{control, session};

/// How long the kernel may take to fail a request to a dead mount. It does so at once.
const DEAD_TIMEOUT: Duration = Duration::from_secs(1);

/// Returns whether the mount at `mount_point` has no connection to a process.
pub fn is_dead(mount_point: &Path) -> bool {
    let (sender, answer) = mpsc::channel();
    let path = mount_point.to_owned();
    let asking = move || {
        // The kernel keeps a dead mount in the mount table, and fails every request to its process.
        // It may still have the attributes of the root, so it is told to send a request.
        let flags = AtFlags::STATX_FORCE_SYNC;
        let asked = rustix::fs::statx(CWD, &path, flags, StatxFlags::BASIC_STATS);
        let is_dead = asked.is_err_and(|error| error == rustix::io::Errno::NOTCONN);
        sender.send(is_dead).ok();
    };
    // On a thread of its own: a process that is stopped or frozen answers nothing, and isn't dead.
    std::thread::spawn(asking);
    answer.recv_timeout(DEAD_TIMEOUT).unwrap_or(false)
}

/// Unmounts a dead mount, and removes its control socket. A mount is dead if its process was
/// killed, or if its connection to the kernel was aborted. Returns whether there was one.
///
/// `mount_point` is an absolute path without symbolic links.
pub fn clear_dead_mount(mount_point: &Path) -> io::Result<bool> {
    if !is_dead(mount_point) {
        return Ok(false);
    }
    let Some(entry) = mount_at(mount_point)? else {
        return Ok(false);
    };
    // Before the unmount: after it, the kernel may give the number to a new mount.
    control::remove_socket(&entry.device);
    session::detach(mount_point)?;
    Ok(true)
}
