//! `cachewfs restore`: a complete clone on local disk, made from a published snapshot.
//!
//! 1. The daemon names the newest snapshot.
//! 2. `git init` makes a repository in a staging directory beside the target. HEAD, refs and
//!    configuration are written into it.
//! 3. The objects, the index and the work tree are fetched and written.
//! 4. git fetches what is newer at upstream.
//! 5. The repository is renamed to the target.
//!
//! If the command ends before, the staging directory keeps what was fetched, and the next one goes
//! on from there.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use cachewfs_format::api::EnsureRefsRequest;
use cachewfs_format::{ObjectId, RepoName, is_ref_name};
use cachewfs_fuse::control::protocol::TrafficReport;
use cachewfs_fuse::{Restore, RestoreError, RestoreOptions, RestorePlace};
use serde::Serialize;

use crate::clone_files::RESTORED_SETTINGS;
use crate::clone_staging::refuse_used_directory;
use crate::error::CliError;
use crate::interrupt::interrupted;
use crate::mounting::daemon_urls;
use crate::new_clone::{HeadState, NewClone, branch_of};
use crate::progress::Bar;
use crate::restore_staging::RestoreStaging;
use crate::{git, output, remote};

/// Make a complete clone on local disk from a published snapshot, without a mount
///
///   cachewfs restore --daemon http://cachew.example.com:8080 https://github.com/git/git
///   cachewfs restore http://cachew.example.com:8080/git/github.com/git/git src/git
///   CACHEWFS_DAEMON=http://a:8080,http://b:8080 cachewfs restore github.com/git/git --no-fetch
///
///   cachewfs restore github.com/git/git --commit $CI_COMMIT_SHA     waits until it is there
///
/// For machines without FUSE, such as those of CI. The result is an ordinary clone of upstream,
/// with the whole history and the files of HEAD, and needs no daemon later. The snapshot is
/// fetched over several connections, and each byte is verified. At the end, git fetches what is
/// newer at upstream.
///
/// If the command is interrupted or fails, nothing is at DIR. Run it again: it goes on where it
/// stopped, and fetches nothing twice.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// The repository, as https://github.com/org/repo or github.com/org/repo; or its URL at the
    /// daemon, http://DAEMON/git/github.com/org/repo.
    #[arg(value_name = "URL")]
    url: String,

    /// The directory of the clone. The default is the last part of the repository's name.
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,

    /// The daemon's URL, or several with commas between them: if one fails, the next is asked.
    #[arg(long, value_name = "URL[,URL…]", env = "CACHEWFS_DAEMON")]
    daemon: Option<String>,

    /// The file with the daemon's token.
    #[arg(long, value_name = "FILE", env = "CACHEWFS_TOKEN_FILE")]
    token_file: Option<PathBuf>,

    /// Keep what was fetched in this directory, for later restores.
    ///
    /// They then fetch only what changed. It may be the cache of a mount. At most 50 GiB are kept.
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,

    /// Make a bare mirror without files.
    #[arg(long)]
    bare: bool,

    /// Wait until the daemon has this commit. May be given several times.
    #[arg(long, value_name = "ID", value_parser = parse_commit)]
    commit: Vec<ObjectId>,

    /// Wait until this ref is at this commit, such as main=ID, or until it is there.
    ///
    /// A name that doesn't begin with refs/ is a branch. May be given several times.
    #[arg(long = "ref", value_name = "NAME[=ID]", value_parser = parse_ref)]
    refs: Vec<(String, String)>,

    /// Don't run `git fetch` at the end: the clone is as old as the snapshot.
    #[arg(long)]
    no_fetch: bool,

    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// The result, for programs.
#[derive(Debug, Serialize)]
struct RestoreReport {
    repo: RepoName,
    directory: PathBuf,
    /// The id of the snapshot.
    snapshot: String,
    is_bare: bool,
    seconds: f64,
    traffic: TrafficReport,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let started = Instant::now();
    let (daemons, url) = source(args)?;
    let repo = remote::repo_name(&url)?;
    let target = match &args.directory {
        Some(directory) => directory.clone(),
        None if args.bare => PathBuf::from(format!("{}.git", remote::directory_name(&repo))),
        None => PathBuf::from(remote::directory_name(&repo)),
    };
    let target = std::path::absolute(target)?;
    refuse_used_directory(&target)?;
    let kind = if args.bare { "mirror" } else { "checkout" };
    let staging = RestoreStaging::open(&target, &format!("{kind} of {repo}\n"))?;
    let job = Job {
        args,
        options: RestoreOptions {
            repo,
            daemons,
            token_file: args.token_file.clone(),
            cache_dir: args.cache.clone().unwrap_or_else(|| staging.cache()),
            is_cache_shared: args.cache.is_some(),
            is_bare: args.bare,
            wanted: EnsureRefsRequest {
                refs: args.refs.iter().cloned().collect(),
                commits: args.commit.iter().map(ToString::to_string).collect(),
            },
        },
        url,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = job.restore(&staging) => outcome,
            // Dropping `restore` kills git. Files that are just being written are in the staging
            // directory.
            _ = interrupted() => Err(CliError::RestoreInterrupted {
                staging: staging.path().display().to_string(),
            }
            .into()),
        }
    });
    // Threads may still write files, or wait for a dead network.
    runtime.shutdown_background();
    let restored = match outcome {
        Ok(restored) => restored,
        Err(error) => {
            if is_final(&error) || staging.is_empty() {
                staging.discard();
            }
            return Err(error);
        }
    };
    staging.finish(&target)?;
    if let Some(notice) = &restored.notice {
        output::error(&format!("cachewfs: {notice}"));
    }
    let report = RestoreReport {
        repo: job.options.repo,
        directory: target,
        snapshot: restored.snapshot,
        is_bare: args.bare,
        seconds: started.elapsed().as_secs_f64(),
        traffic: restored.traffic,
    };
    if args.json {
        output::json(&report)?;
    } else {
        output::line(&format!(
            "Restored {} into {} ({}, {:.1} s)",
            report.repo,
            report.directory.display(),
            output::fetched(report.traffic.fetched_bytes),
            report.seconds,
        ))?;
    }
    restored.up_to_date.map_err(|error| {
        let directory = report.directory.display().to_string();
        let details = format!("{error:#}");
        CliError::NotUpToDate { directory, details }.into()
    })
}

fn parse_commit(id: &str) -> Result<ObjectId, String> {
    let parsed = ObjectId::parse(id);
    parsed.map_err(|_| "write the whole id, 40 or 64 lower-case hexadecimal digits".to_owned())
}

/// Returns the full name of a ref, and the id that it should have, or nothing for any id.
pub(crate) fn parse_ref(text: &str) -> Result<(String, String), String> {
    let (name, id) = match text.split_once('=') {
        Some((name, id)) => (name, parse_commit(id)?.to_string()),
        None => (text, String::new()),
    };
    let name = if name.starts_with("refs/") {
        name.to_owned()
    } else {
        format!("refs/heads/{name}")
    };
    if is_ref_name(name.as_bytes()) {
        Ok((name, id))
    } else {
        Err("git doesn't allow this name of a ref".to_owned())
    }
}

/// Returns the daemons, and the repository as a URL or name of upstream.
fn source(args: &Args) -> Result<(Vec<String>, String)> {
    let split = |scheme: &str| {
        let (daemon, repo) = args.url.strip_prefix(scheme)?.split_once("/git/")?;
        // A URL of upstream has no such part right after its host, but may have one later.
        let is_daemon = !daemon.contains('/') && repo.contains('/');
        is_daemon.then(|| (format!("{scheme}{daemon}"), repo.to_owned()))
    };
    let at_daemon = split("http://").or_else(|| split("https://"));
    match (&args.daemon, at_daemon) {
        (Some(daemons), _) => Ok((daemon_urls(daemons)?, args.url.clone())),
        (None, Some((daemon, repo))) => Ok((daemon_urls(&daemon)?, repo)),
        (None, None) => Err(CliError::NoDaemon.into()),
    }
}

/// Returns whether a later try would not go on from what this one left.
fn is_final(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(RestoreError::NoRepository { .. } | RestoreError::Unauthenticated { .. })
    )
}

/// A restore that is under way.
struct Job<'a> {
    args: &'a Args,
    options: RestoreOptions,
    url: String,
}

/// A repository that is complete in the staging directory.
struct Restored {
    snapshot: String,
    traffic: TrafficReport,
    notice: Option<String>,
    /// Whether git fetched from upstream, if it was asked to.
    up_to_date: Result<()>,
}

impl Job<'_> {
    async fn restore(&self, staging: &RestoreStaging) -> Result<Restored> {
        let bar = Bar::new();
        bar.step("asking for the snapshot");
        let restore = Restore::open(&self.options, |message| {
            bar.step(&format!("waiting for the daemon: {message}"));
        })
        .await?;
        let repo = &self.options.repo;
        let tree = staging.tree();
        let refs = restore.packed_refs();
        let clone = NewClone {
            repo,
            upstream_url: &remote::origin_url(&self.url, repo, restore.upstream_url()),
            upstream_head: restore.head()?,
            refs: &refs,
            chosen: None,
            settings: RESTORED_SETTINGS,
        };
        let mut head = HeadState::Commit;
        let place = if self.args.bare {
            clone.create_bare(&tree).await?;
            RestorePlace {
                work_tree: None,
                git_dir: tree.clone(),
            }
        } else {
            head = clone.create(&tree).await?;
            RestorePlace {
                work_tree: Some(tree.clone()).filter(|_| restore.has_work_tree()),
                git_dir: tree.join(".git"),
            }
        };
        let snapshot = restore.snapshot().to_string();
        let notice = restore.notice().map(str::to_owned);
        let traffic = restore.write(&place, |progress| bar.show(progress)).await?;
        let up_to_date = if self.args.no_fetch {
            Ok(())
        } else {
            bar.step("fetching from upstream");
            let branch = branch_of(&clone.upstream_head);
            let branch = branch.filter(|_| !self.args.bare && head == HeadState::Commit);
            fetch(&tree, branch).await
        };
        bar.finish();
        Ok(Restored {
            snapshot,
            traffic,
            notice,
            up_to_date,
        })
    }
}

/// Fetches from upstream, and moves HEAD's branch and the files to its state there.
async fn fetch(tree: &Path, branch: Option<&[u8]>) -> Result<()> {
    git::run(tree, &[], "fetch", &["--quiet", "origin"]).await?;
    let Some(branch) = branch.and_then(|branch| std::str::from_utf8(branch).ok()) else {
        return Ok(());
    };
    let upstream = format!("refs/remotes/origin/{branch}");
    let arguments = ["--quiet", "--hard", "--no-recurse-submodules", &upstream];
    // Nobody has worked here yet, so nothing can get lost.
    git::run(tree, &[], "reset", &arguments)
        .await
        .with_context(|| format!("can't move {branch} to its state at upstream"))
}
