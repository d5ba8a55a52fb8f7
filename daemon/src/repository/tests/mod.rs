//! Tests of the tasks of repositories with a scripted git: no server, no git, no objects.
//!
//! Unless a test says otherwise, upstream has no refs. So a run updates the mirror, and its publish
//! then finds nothing to publish.

mod damage;
mod end;
mod retry;
mod turns;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cachewfs_format::RepoName;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{Context, LfsRuns, Registry, Repository, RepositoryError};
use crate::config::{Config, LiveConfig};
use crate::mirror::{MirrorError, ScriptedGit, mirror_path};
use crate::publish::Publisher;
use crate::store::{DiskTier, Store};

/// Answers about an empty repository.
const ANSWERS: &[(&str, &str)] = &[
    ("ls-remote", "case $* in *--get-url*) echo \"${4}\" ;; esac"),
    ("show-ref", "exit 1"),
    (
        "rev-parse",
        "case $* in *--is-bare*) echo true ;; *--show-object-format*) echo sha1 ;; *) exit 1 ;; esac",
    ),
    (
        "clone",
        "for target; do :; done; cp -r \"$here/mirror\" \"$target\"",
    ),
];

/// The repositories of a daemon whose git is scripted.
struct World {
    root: TempDir,
    git: ScriptedGit,
    context: Arc<Context>,
    registry: Registry,
    /// Cancelled when the daemon stops.
    stop: CancellationToken,
    /// Cancelled when git is killed.
    kill: CancellationToken,
}

impl World {
    /// Returns a daemon with the upstreams `a.org` and `b.org`, which does nothing periodically.
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let root = tempfile::tempdir().unwrap();
        let base = format!("file://{}", root.path().join("upstream").display());
        let mut config = Config {
            data_dir: root.path().join("data").into(),
            fetch_interval: Duration::from_hours(1),
            upstreams: ["a.org", "b.org"]
                .map(|host| (host.to_owned(), base.clone().into()))
                .into(),
            ..Config::default()
        };
        config.publish.delay = Duration::ZERO;
        change(&mut config);
        for directory in [config.data_dir.mirrors(), config.data_dir.tmp()] {
            fs::create_dir_all(directory).unwrap();
        }
        let git = ScriptedGit::new();
        for (subcommand, script) in ANSWERS {
            git.answers(subcommand, script);
        }
        write_mirror(&git.directory().join("mirror"));
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let store = (&config.data_dir.store(), &config.data_dir.tmp());
        let store = Store::new(DiskTier::create(store.0, store.1).unwrap());
        let live = Arc::new(LiveConfig::new(config));
        let run = git.git(kill.clone());
        let publisher = Publisher::new(run.clone(), store, Arc::clone(&live));
        let rest = (std::collections::BTreeMap::new(), stop.clone());
        let context = Context::new(live, run, publisher, rest).unwrap();
        let lfs = LfsRuns::new(Arc::clone(&context));
        Self {
            root,
            git,
            registry: Registry::new(Arc::clone(&context), lfs),
            context,
            stop,
            kill,
        }
    }

    /// Makes upstream have `repo`.
    fn add_upstream(&self, repo: &str) {
        let (_, path) = repo.split_once('/').unwrap();
        let path = self.root.path().join("upstream").join(path);
        put(&path.join("HEAD"), "ref: refs/heads/main\n");
    }

    /// Makes upstream have `repo`, and the daemon a sound mirror of it. Returns its path.
    fn add_mirror(&self, repo: &str) -> PathBuf {
        self.add_upstream(repo);
        let mirror = self.mirror(repo);
        write_mirror(&mirror);
        mirror
    }

    fn mirror(&self, repo: &str) -> PathBuf {
        mirror_path(&self.context.config.now().data_dir.mirrors(), &name(repo))
    }

    /// Starts the task of `repo`, whose first run begins now.
    fn open(&self, repo: &str) -> Arc<Repository> {
        self.registry.open(&name(repo)).unwrap()
    }

    /// Waits until all tasks have ended.
    async fn join(&self) {
        self.context.join().await;
    }

    /// Returns whether a job has left files in `tmp`.
    fn has_leftovers(&self) -> bool {
        let tmp = self.context.config.now().data_dir.tmp();
        fs::read_dir(tmp).unwrap().next().is_some()
    }
}

fn name(repo: &str) -> RepoName {
    RepoName::parse(repo).unwrap()
}

/// Writes a mirror without refs. It has an object, so it isn't that of an empty upstream.
fn write_mirror(mirror: &Path) {
    put(&mirror.join("HEAD"), "ref: refs/heads/main\n");
    put(&mirror.join("config"), "[core]\n\tbare = true\n");
    put(&mirror.join("objects/12/34"), "");
    fs::create_dir_all(mirror.join("objects/pack")).unwrap();
    fs::create_dir_all(mirror.join("refs/heads")).unwrap();
}

fn put(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = File::create(path).unwrap();
    file.write_all(content.as_bytes()).unwrap();
}

/// Returns whether a fetch failed although upstream answers.
fn is_failed_fetch(error: &RepositoryError) -> bool {
    matches!(error, RepositoryError::Mirror(error) if matches!(
        **error,
        MirrorError::Upstream { is_answering: true, .. }
    ))
}
