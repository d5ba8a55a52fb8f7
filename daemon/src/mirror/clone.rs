//! The first clone of a mirror. The mirror appears whole or not at all.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cachewfs_format::RepoName;

use super::ask::ask_upstream;
use super::{Git, MirrorError, Upstream};

/// The git configuration of a mirror.
///
/// Only the daemon may repack or prune a mirror, so git's own maintenance is off. Fetched objects
/// stay in packs. `fetch.writeCommitGraph` is off because publishing writes the chain of
/// commit-graphs.
const MIRROR_CONFIG: &[&str] = &[
    "gc.auto=0",
    "maintenance.auto=false",
    "fetch.writeCommitGraph=false",
    "fetch.fsckObjects=false",
    "transfer.fsckObjects=false",
    "fetch.unpackLimit=1",
    "transfer.unpackLimit=1",
    "core.logAllRefUpdates=false",
];

/// Returns the path of the mirror of `repo` below `mirrors`.
pub(crate) fn mirror_path(mirrors: &Path, repo: &RepoName) -> PathBuf {
    mirrors.join(format!("{repo}.git"))
}

/// Returns whether `path` looks like a mirror that [`clone_mirror`] made.
///
/// A repository that uses reftable is not a mirror: a daemon with git 3.0 once made such ones, and
/// could not publish them.
pub(crate) fn is_mirror(path: &Path) -> bool {
    path.join("HEAD").is_file() && path.join("objects").is_dir() && !path.join("reftable").exists()
}

/// Returns whether a mirror has no objects: upstream was empty when it was cloned.
///
/// For an empty upstream, git 2.39 ignores upstream's object format and uses its own default. So an
/// empty mirror that can't be updated is cloned again.
pub(crate) fn is_empty_mirror(path: &Path) -> bool {
    let count_entries = || -> std::io::Result<usize> {
        let mut count = 0;
        for directory in fs::read_dir(path.join("objects"))? {
            count += fs::read_dir(directory?.path())?.count();
        }
        Ok(count)
    };
    matches!(count_entries(), Ok(0))
}

/// Clones `upstream` into a directory below `tmp` and moves it to `mirror`.
pub(crate) fn clone_mirror(
    git: &Git,
    upstream: &Upstream,
    (tmp, mirror): (&Path, &Path),
    time_limit: Duration,
) -> Result<(), MirrorError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| MirrorError::Io { path, source }
    };
    let staging = tempfile::Builder::new()
        .prefix("clone-")
        .tempdir_in(tmp)
        .map_err(io(tmp))?;
    let clone = staging.path().join("mirror.git");
    // --no-local: if upstream is on this machine, git would hard-link its files into the mirror.
    ask_upstream(git, upstream, |secrets, url| {
        git.command("clone")
            .args(["--bare", "--no-local", "--quiet", "--template="])
            .args(MIRROR_CONFIG.iter().flat_map(|setting| ["-c", *setting]))
            .args(["--", url])
            .args([&clone])
            .secrets(secrets)
            .time_limit(time_limit)
            .effect()
    })?;
    move_into_place(&clone, mirror)
}

/// Creates an empty mirror at `path`, for objects of the format `object_format`.
pub(crate) fn create_mirror(
    git: &Git,
    (upstream, object_format): (&Upstream, &str),
    path: &Path,
) -> Result<(), MirrorError> {
    git.command("init")
        .args(["--bare", "--quiet", "--template="])
        .args([format!("--object-format={object_format}")])
        .args(["--"])
        .args([path])
        .effect()?;
    let url = format!("remote.origin.url={}", upstream.url());
    for setting in MIRROR_CONFIG.iter().copied().chain([&*url]) {
        let (key, value) = setting.split_once('=').unwrap_or((setting, "true"));
        git.in_repository(path, "config")
            .args([key, value])
            .effect()?;
    }
    Ok(())
}

/// Moves a finished mirror to `mirror`, durably.
///
/// The order makes this crash-safe: first the content is synced, then the directory is renamed,
/// then the rename is synced. A mirror that is in its place after a crash is therefore complete.
pub(crate) fn move_into_place(clone: &Path, mirror: &Path) -> Result<(), MirrorError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| MirrorError::Io { path, source }
    };
    sync_tree(clone).map_err(io(clone))?;
    let parent = mirror.parent().unwrap_or(mirror);
    fs::create_dir_all(parent).map_err(io(parent))?;
    fs::rename(clone, mirror).map_err(io(mirror))?;
    File::open(parent)
        .and_then(|parent| parent.sync_all())
        .map_err(io(parent))
}

/// Makes everything below `directory` durable, and all other unwritten data of its filesystem.
fn sync_tree(directory: &Path) -> std::io::Result<()> {
    // One call for the filesystem: a clone has too many files to sync each.
    Ok(rustix::fs::syncfs(File::open(directory)?)?)
}
