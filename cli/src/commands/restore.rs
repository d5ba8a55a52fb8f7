//! `cachewfs restore`: a complete clone on local disk, made from a published snapshot.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result};
use cachewfs_format::api::EnsureRefsRequest;
use cachewfs_format::{ObjectId, RepoName, is_ref_name};
use cachewfs_fuse::control::protocol::TrafficReport;
use cachewfs_fuse::{RestoreError, RestoreOptions};
use serde::Serialize;

use crate::chosen_repo::NamedRepo;
use crate::clone_staging::refuse_used_directory;
use crate::daemonise::{leave_session, withhold_inherited_files};
use crate::error::CliError;
use crate::interrupt::interrupted;
use crate::mounting::daemon_urls;
use crate::restore_job::{Goal, RestoreJob, Restored};
use crate::restore_staging::{OtherProcess, RestoreStaging};
use crate::restored::{RestoreRecord, shallow};
use crate::{output, remote};

/// The environment variable that is set for a process that fetches the history behind.
const BEHIND: &str = "CACHEWFS_RESTORE_BEHIND";

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
/// The files of HEAD come first. From then on DIR is a shallow repository in which git works; it is
/// an ordinary one when the history is there.
///
/// If the command is interrupted or fails before, nothing is at DIR. Run it again: it goes on where
/// it stopped, and fetches nothing twice.
///
/// If DIR is a clone that an earlier restore made, it is brought to the newest state. Only the
/// change is fetched. The command fails if it would overwrite changes or lose commits of yours.
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

    /// Restore this archive instead of the newest snapshot: a file, or a URL of any web server.
    ///
    /// It is a `snapshot.tar.zst` of a daemon, of the repository URL.
    #[arg(long, value_name = "FILE|URL", conflicts_with_all = ["commit", "refs"])]
    from: Option<String>,

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

    /// Overwrite changed and untracked files in a clone that an earlier restore made, and leave
    /// commits that upstream doesn't have.
    #[arg(long)]
    force: bool,

    /// Don't run `git fetch` at the end: the clone is as old as the snapshot.
    #[arg(long)]
    no_fetch: bool,

    /// Return when the history is there too, or when the files are and git works.
    ///
    /// After `ready`, the clone is shallow, and a process in the background fetches the history. To
    /// wait for it, run the command again.
    #[arg(long, value_enum, value_name = "STATE", default_value = "complete")]
    wait: WaitFor,

    /// Leave the history out: the clone is shallow, and stays so.
    ///
    /// To fetch the history later, run the command without this option.
    #[arg(long, conflicts_with_all = ["wait", "bare"])]
    shallow: bool,

    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// The state of a clone for which the command waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum WaitFor {
    Ready,
    Complete,
}

/// The result, for programs.
#[derive(Debug, Serialize)]
struct RestoreReport {
    repo: RepoName,
    directory: PathBuf,
    /// The id of the snapshot.
    snapshot: String,
    is_bare: bool,
    /// Whether the directory had an older restore.
    is_update: bool,
    /// Whether the clone lacks the history.
    is_shallow: bool,
    /// The process that fetches the history, if there is one.
    background_process: Option<u32>,
    /// After how many seconds and fetched bytes the files were there and git worked.
    ready_seconds: Option<f64>,
    ready_bytes: Option<u64>,
    seconds: f64,
    traffic: TrafficReport,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let started = Instant::now();
    let (daemons, url) = source(args)?;
    let repo = NamedRepo::find(&url)?.name;
    let target = match &args.directory {
        Some(directory) => directory.clone(),
        None if args.bare => PathBuf::from(format!("{}.git", remote::directory_name(&repo))),
        None => PathBuf::from(remote::directory_name(&repo)),
    };
    let mut target = std::path::absolute(target)?;
    if RestoreRecord::find(&target).is_some() {
        // Packs are renamed from beside it, and a symbolic link may lead to another filesystem.
        target = target.canonicalize()?;
    }
    let kind = if args.bare { "mirror" } else { "checkout" };
    let what = format!("{kind} of {repo}");
    let older = RestoreRecord::find(&target);
    let other = if let Some(record) = &older {
        refuse_other_restore(&target, record, &what)?;
        OtherProcess::Join
    } else {
        refuse_used_directory(&target)?;
        OtherProcess::Refuse
    };
    let is_behind = std::env::var_os(BEHIND).is_some();
    if is_behind {
        leave_session();
    }
    let staging = RestoreStaging::open(&target, &format!("{what}\n"), other)?;
    let job = RestoreJob {
        options: RestoreOptions {
            repo,
            daemons,
            from: args.from.clone(),
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
        goal: match args.wait {
            _ if is_behind => Goal::History,
            _ if args.shallow => Goal::Shallow,
            WaitFor::Ready => Goal::Ready,
            WaitFor::Complete => Goal::Complete,
        },
        is_verbose: !args.json,
        started,
        is_fetching: !args.no_fetch,
        is_forced: args.force,
        what,
        target: &target,
        older,
    };
    let restored = match run_job(&job, &staging) {
        Ok(restored) => restored,
        Err(error) => {
            if is_final(&error) || staging.is_empty() {
                staging.discard();
            }
            return Err(error);
        }
    };
    staging.discard();
    report(args, &job, restored)
}

/// Prints the result. Starts the process that fetches the history, if the command doesn't wait.
fn report(args: &Args, job: &RestoreJob<'_>, restored: Restored) -> Result<()> {
    let record = RestoreRecord::find(job.target);
    let git_dir = record.as_ref().map(|record| &record.git_dir);
    let is_shallow = git_dir.is_some_and(|git_dir| shallow::is_shallow(git_dir));
    let background_process = match record {
        Some(record) if is_shallow && job.goal == Goal::Ready => Some(start_behind(&record)?),
        _ => None,
    };
    if let Some(notice) = &restored.notice {
        output::error(&format!("cachewfs: {notice}"));
    }
    let report = RestoreReport {
        repo: job.options.repo.clone(),
        directory: job.target.to_owned(),
        snapshot: restored.snapshot,
        is_bare: args.bare,
        is_update: job.older.is_some(),
        is_shallow,
        background_process,
        ready_seconds: restored.ready.map(|ready| ready.after.as_secs_f64()),
        ready_bytes: restored.ready.map(|ready| ready.fetched_bytes),
        seconds: job.started.elapsed().as_secs_f64(),
        traffic: restored.traffic,
    };
    if args.json {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    restored.up_to_date.map_err(|error| {
        // It names paths, and has a hint of its own.
        if error.is::<CliError>() && is_final(&error) {
            return error;
        }
        let directory = report.directory.display().to_string();
        let details = format!("{error:#}");
        CliError::NotUpToDate { directory, details }.into()
    })
}

/// Runs a restore until it ends or a signal interrupts it.
fn run_job(job: &RestoreJob<'_>, staging: &RestoreStaging) -> Result<Restored> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = job.restore(staging) => outcome,
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
    outcome
}

/// Starts this program again with its arguments, to fetch the history. Returns the process id.
fn start_behind(record: &RestoreRecord) -> Result<u32> {
    let start = || {
        let log = File::create(record.log_path())?;
        withhold_inherited_files();
        let child = std::process::Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .env(BEHIND, "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok::<_, std::io::Error>(child.id())
    };
    start().context("can't start a process that fetches the history")
}

fn print(report: &RestoreReport) -> Result<()> {
    let (done, place) = if report.is_update {
        ("Updated", "in")
    } else {
        ("Restored", "into")
    };
    output::line(&format!(
        "{done} {} {place} {} ({}, {:.1} s)",
        report.repo,
        report.directory.display(),
        output::fetched(report.traffic.fetched_bytes),
        report.seconds,
    ))?;
    match report.background_process {
        Some(process) => output::line(&format!(
            "The files are there. Process {process} fetches the history; to wait for it, run \
             `cachewfs restore` again.\nIts messages: {}",
            RestoreRecord::new(report.directory.join(".git"))
                .log_path()
                .display(),
        )),
        None if report.is_shallow => output::line(
            "The clone is shallow. To fetch the history, restore it again without --shallow.",
        ),
        None => Ok(()),
    }
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
    if args.from.is_some() {
        return Ok((Vec::new(), args.url.clone()));
    }
    match (&args.daemon, at_daemon) {
        (Some(daemons), _) => Ok((daemon_urls(daemons)?, args.url.clone())),
        (None, Some((daemon, repo))) => Ok((daemon_urls(&daemon)?, repo)),
        (None, None) => Err(CliError::NoDaemon.into()),
    }
}

/// Fails if a restore of something else made the clone at `target`.
fn refuse_other_restore(target: &Path, record: &RestoreRecord, wanted: &str) -> Result<()> {
    let found = record.read()?.what;
    if found == wanted {
        return Ok(());
    }
    Err(CliError::OtherRestore {
        directory: target.display().to_string(),
        found,
        wanted: wanted.to_owned(),
    }
    .into())
}

/// Returns whether a later try would not go on from what this one left.
fn is_final(error: &anyhow::Error) -> bool {
    let is_refused = matches!(
        error.downcast_ref(),
        Some(RestoreError::NoRepository { .. } | RestoreError::Unauthenticated { .. })
    );
    // The clone has the fetched objects already.
    let is_in_place = matches!(
        error.downcast_ref(),
        Some(
            CliError::ChangesInTheWay { .. }
                | CliError::CommitNotReached { .. }
                | CliError::OwnCommits { .. }
                | CliError::OtherBranch { .. }
        )
    );
    is_refused || is_in_place
}
