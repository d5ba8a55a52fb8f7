//! Finds what the checks look at: the mounts of this machine, or a daemon that a person named.

use std::path::{Path, PathBuf};

use anyhow::Result;
use cachewfs_fuse::control::protocol::{ControlAnswer, ControlRequest, StatusReport};
use cachewfs_fuse::{MountOptions, is_dead, mount_table};

use crate::mount_table::{absolute, mounts_with_owners};
use crate::mounting::daemon_urls;
use crate::mounts::{MountChoice, block_on};

/// The argument of `doctor`.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// All mounts of this machine.
    Everything,
    /// The daemons at these URLs, and no mount.
    Daemons(Vec<String>),
    /// One mount.
    Mount(PathBuf),
}

impl Target {
    /// Parses a mount point or the URL of a daemon.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self> {
        Ok(match text {
            None => Self::Everything,
            Some(url) if url.contains("://") => Self::Daemons(daemon_urls(url)?),
            Some(path) => Self::Mount(absolute(Path::new(path))),
        })
    }
}

/// The mounts and daemons that the checks look at.
#[derive(Debug)]
pub(crate) struct Subject {
    /// The mounts.
    pub(crate) mounts: Vec<MountState>,
    /// Daemons that a person named.
    pub(super) daemons: Vec<String>,
    /// The file with the token for `daemons`.
    pub(super) token_file: Option<PathBuf>,
}

/// The state of a mount, as far as it can be found out.
#[derive(Debug)]
pub(crate) struct MountState {
    pub(crate) mount_point: PathBuf,
    /// The user who mounted it, if the mount table says so.
    pub(super) uid: Option<u32>,
    /// The URLs of its daemons, separated by commas, as `cachewfs mount` takes them.
    pub(super) source: String,
    /// Whether its process is gone.
    pub(super) is_dead: bool,
    /// The answer of its process.
    pub(crate) status: Result<Box<StatusReport>>,
    /// Its options, unless its process is of another user, or is too old.
    pub(crate) options: Option<MountOptions>,
}

impl Subject {
    /// Looks for the mounts, and asks their processes.
    pub(crate) fn find(target: &Target, token_file: Option<&Path>) -> Result<Self> {
        let table = mounts_with_owners()?;
        let (points, daemons) = match target {
            Target::Everything => (table, Vec::new()),
            Target::Daemons(urls) => (Vec::new(), urls.clone()),
            Target::Mount(point) => {
                let mut found: Vec<_> = table.into_iter().filter(|(at, _)| at == point).collect();
                if found.is_empty() {
                    found.push((point.clone(), None));
                }
                (found, Vec::new())
            }
        };
        let mut mounts: Vec<MountState> = Vec::new();
        // The last of several mounts at one mount point hides the others.
        for (mount_point, uid) in points.into_iter().rev() {
            if mounts.iter().all(|known| known.mount_point != mount_point) {
                mounts.insert(0, MountState::of(mount_point, uid));
            }
        }
        Ok(Self {
            mounts,
            daemons,
            token_file: token_file.map(absolute),
        })
    }
}

impl MountState {
    fn of(mount_point: PathBuf, uid: Option<u32>) -> Self {
        let entries = mount_table().unwrap_or_default();
        let entry = entries
            .iter()
            .rfind(|entry| entry.mount_point == mount_point);
        let source = entry.map_or(String::new(), |entry| entry.source.replace(' ', ","));
        let choice = MountChoice {
            mount: Some(mount_point.clone()),
        };
        let is_dead = is_dead(&mount_point);
        let status = block_on(async {
            match choice.ask(&ControlRequest::Status).await? {
                ControlAnswer::Status(status) => Ok(status),
                _ => anyhow::bail!("the mount's answer is not of the requested kind"),
            }
        });
        let options = status.is_ok().then(|| {
            let asked = block_on(async { Ok(choice.connect().await?.options().await?) });
            asked.ok()
        });
        Self {
            mount_point,
            uid,
            source,
            is_dead,
            status,
            options: options.flatten(),
        }
    }

    /// Returns whether this user may use its control socket.
    pub(super) fn is_foreign(&self) -> bool {
        let me = rustix::process::geteuid();
        self.uid.is_some_and(|uid| uid != 0 && uid != me.as_raw())
    }
}
