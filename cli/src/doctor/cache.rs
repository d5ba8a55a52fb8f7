//! Checks the directories of caches: whether they can be written, have room, and allow passthrough.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use cachewfs_base::Volume;
use cachewfs_fuse::{MountOptions, PassthroughObstacle};

use super::check::quoted;
use super::subject::MountState;
use super::{Check, Subject};
use crate::output;

/// With less free space than this, the filesystem counts as full: a window of chunks takes as much.
const LEAST_FREE: u64 = 16 << 20;
/// As many bytes are written to find out whether the filesystem has room.
const TRIAL_LEN: usize = 4096;

const WRITABLE: &str = "cache";
const SPACE: &str = "cache space";
const PASSTHROUGH: &str = "passthrough";

/// A cache, and what its mount says about it.
#[derive(Debug)]
struct Cache<'a> {
    directory: PathBuf,
    max_bytes: u64,
    /// The bytes that it has, which it may replace.
    used_bytes: u64,
    uses_passthrough: bool,
    mount: Option<&'a MountState>,
}

pub(super) fn check(subject: &Subject) -> Vec<Check> {
    let mut caches: Vec<_> = subject.mounts.iter().filter_map(Cache::of).collect();
    if caches.is_empty() {
        let default = MountOptions::default();
        caches.push(Cache {
            directory: default.cache_dir,
            max_bytes: default.cache_max_bytes,
            used_bytes: 0,
            uses_passthrough: default.passthrough,
            mount: None,
        });
    }
    let mut checked = Vec::new();
    let mut checks = Vec::new();
    for cache in &caches {
        if !checked.contains(&&cache.directory) {
            checked.push(&cache.directory);
            checks.extend(cache.check());
        }
    }
    checks
}

impl<'a> Cache<'a> {
    fn of(mount: &'a MountState) -> Option<Self> {
        let status = mount.status.as_ref().ok()?;
        Some(Self {
            directory: status.cache_dir.clone(),
            max_bytes: status.cache_max_bytes,
            used_bytes: status.cache_bytes,
            uses_passthrough: mount
                .options
                .as_ref()
                .is_none_or(|options| options.passthrough),
            mount: Some(mount),
        })
    }

    fn check(&self) -> Vec<Check> {
        let Some(existing) = self.directory.ancestors().find(|above| above.is_dir()) else {
            return Vec::new();
        };
        let checks = [
            Some(self.check_writable(existing)),
            self.check_space(existing),
            Some(self.check_passthrough(existing)),
        ];
        let subject = self.directory.display().to_string();
        let checks = checks.into_iter().flatten();
        checks.map(|check| check.of(subject.clone())).collect()
    }

    fn check_writable(&self, existing: &Path) -> Check {
        const ELSEWHERE: &str = "mend that, or mount with another directory: -o cache_dir=DIR";
        let failure = self.mount.and_then(|mount| mount.status.as_ref().ok());
        if let Some(failure) = failure.and_then(|status| status.cache_failure.as_ref()) {
            let reason = format!("the mount can't use it: {}", failure.reason);
            return Check::wrong(WRITABLE, reason).remedy(ELSEWHERE);
        }
        match try_write(existing) {
            Ok(()) if existing == self.directory => Check::ok(WRITABLE, "it can be written"),
            Ok(()) => Check::ok(WRITABLE, "it can be created"),
            // `check_space` says so.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                Check::skipped(WRITABLE, "the filesystem is full")
            }
            // The mount's process is root's, and writes all the same.
            Err(error)
                if error.kind() == io::ErrorKind::PermissionDenied && self.mount.is_some() =>
            {
                Check::skipped(WRITABLE, "it belongs to the user who mounted")
            }
            Err(error) => {
                let reason = format!("{} can't be written: {error}", existing.display());
                Check::wrong(WRITABLE, reason).remedy(ELSEWHERE)
            }
        }
    }

    /// Returns `None` if the filesystem doesn't tell its size.
    fn check_space(&self, existing: &Path) -> Option<Check> {
        let volume = Volume::of(existing)?;
        let free = output::bytes(volume.free);
        if volume.free < LEAST_FREE {
            let reason = format!("the filesystem is full: {free} are free");
            let largest = quoted(&existing.display().to_string());
            return Some(
                Check::wrong(SPACE, reason)
                    .remedy("make room, or mount with another directory: -o cache_dir=DIR")
                    .command(format!("df -h {largest}")),
            );
        }
        let room = volume.free.saturating_add(self.used_bytes);
        if room < self.max_bytes {
            let (room, limit) = (output::bytes(room), output::bytes(self.max_bytes));
            let reason = format!(
                "the cache may grow to {limit}, and the filesystem has room for {room}: a mount \
                 may fill it"
            );
            return Some(
                Check::warning(SPACE, reason)
                    .remedy("mount with a lower limit: -o cache_size=SIZE"),
            );
        }
        Some(Check::ok(SPACE, format!("{free} are free")))
    }

    fn check_passthrough(&self, existing: &Path) -> Check {
        let uid = rustix::process::geteuid().as_raw();
        let uid = self
            .mount
            .map_or(uid, |mount| mount.uid.unwrap_or_default());
        let obstacle = PassthroughObstacle::find(self.uses_passthrough, uid, existing);
        let status = self.mount.and_then(|mount| mount.status.as_ref().ok());
        let reported = status.and_then(|status| status.passthrough.as_ref());
        let told = reported.and_then(|report| report.reason.clone());
        match (obstacle, told) {
            (Some(obstacle @ PassthroughObstacle::Stacked(_)), _) => {
                let reason = format!(
                    "{obstacle}: the mount's process answers each read that is not in the page \
                     cache"
                );
                Check::warning(PASSTHROUGH, reason).remedy(
                    "put the cache on an ordinary filesystem: -o cache_dir=DIR; in a container, \
                     on a volume",
                )
            }
            (Some(obstacle), _) => Check::skipped(PASSTHROUGH, obstacle.to_string()),
            (None, Some(told)) => Check::warning(PASSTHROUGH, told),
            (None, None) => Check::ok(PASSTHROUGH, "the kernel may read complete files itself"),
        }
    }
}

/// Writes a file without a name into `directory`. It is gone at once.
fn try_write(directory: &Path) -> io::Result<()> {
    let mut file = tempfile::tempfile_in(directory)?;
    file.write_all(&[0; TRIAL_LEN])
}
