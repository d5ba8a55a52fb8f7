//! `cachewfs clone`: a clone that borrows the objects of a mount.
//!
//! 1. The mount resolves the repository, and returns the directory with its objects and refs.
//! 2. `git init` makes a repository in a staging directory beside the target.
//! 3. The clone's own HEAD, refs, configuration and `alternates` are written into it.
//! 4. git checks out the files, or those of some directories.
//! 5. The staging directory is renamed to the target, and the mount is told about the clone.
//!
//! If a signal interrupts steps 1 to 4, the staging directory is removed. So the target never has a
//! part of a clone.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cachewfs_format::api::EnsureRefsRequest;
use cachewfs_format::{GitHead, RepoName};
use cachewfs_fuse::control::protocol::{ControlAnswer, ControlRequest, PathReader};
use serde::Serialize;

use crate::chosen_repo::{ChosenRepo, NamedRepo};
use crate::clone_files::BORROWING_SETTINGS;
use crate::clone_staging::CloneStaging;
use crate::commands::restore::parse_ref;
use crate::error::CliError;
use crate::interrupt::interrupted;
use crate::json_choice::JsonChoice;
use crate::mounts::{MountChoice, block_on};
use crate::new_clone::{HeadState, NewClone, append};
use crate::progress::Bar;
use crate::speech::Speech;
use crate::submodules::{ClonedSubmodule, clone_submodules};
use crate::{clone_staging, git, output, remote};

/// Make a clone that borrows its objects from the mount
///
///   cachewfs clone https://github.com/org/repo
///   cachewfs clone -b v2 git@github.com:org/repo.git project
///   cachewfs clone /cachewfs/github.com/org/repo
///   cachewfs clone github.com/org/repo --sparse docs --sparse src/web
///   cachewfs clone github.com/org/repo --ref main=$COMMIT     waits until it is there
///
/// The clone has the whole history and all branches, but only the checked-out files take local disk
/// space. You commit, fetch and push as in every clone of upstream. The clone works only while the
/// mount is mounted.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// The repository, as https://github.com/org/repo or github.com/org/repo, or as a path in a
    /// mount or in a clone.
    #[arg(value_name = "URL")]
    url: String,

    /// The directory of the clone. The default is the last part of the repository's name.
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,

    /// Check out this branch instead of the default branch, or the commit of this tag.
    #[arg(short, long, value_name = "NAME")]
    branch: Option<String>,

    /// Don't check out any files.
    #[arg(short, long)]
    no_checkout: bool,

    /// Check out only this directory, and the files directly in the directories above it.
    ///
    /// May be given several times. It begins a sparse checkout of git, in cone mode: `git
    /// sparse-checkout add DIR` adds more later, and `git sparse-checkout disable` all.
    #[arg(long, value_name = "DIR")]
    sparse: Vec<String>,

    /// Clone the submodules too, and theirs.
    ///
    /// A submodule borrows its objects if the mount has its repository. Otherwise git clones it
    /// from its URL, and the command says so.
    #[arg(long)]
    recurse_submodules: bool,

    /// Wait until this ref is at this commit, such as main=ID, or until it is there.
    ///
    /// A name that doesn't begin with refs/ is a branch. May be given several times. The command
    /// waits for up to 10 minutes.
    #[arg(long = "ref", value_name = "NAME[=ID]", value_parser = parse_ref)]
    refs: Vec<(String, String)>,

    #[command(flatten)]
    json: JsonChoice,

    #[command(flatten)]
    choice: MountChoice,
}

/// The result, for programs.
#[derive(Debug, Serialize)]
struct CloneReport {
    repo: RepoName,
    directory: PathBuf,
    /// The id of the snapshot that the mount showed.
    snapshot: String,
    /// The branch that HEAD names, or `None` if HEAD is detached.
    branch: Option<String>,
    /// The commit of HEAD, or `None` if HEAD names a branch that doesn't exist.
    commit: Option<String>,
    /// The directories of a sparse checkout.
    sparse: Vec<String>,
    submodules: Vec<ClonedSubmodule>,
    /// The bytes that the mount fetched of the repository meanwhile, for whatever program.
    fetched_bytes: u64,
}

/// The git setting that makes a checkout use one process for each CPU.
const CHECKOUT_WORKERS: &str = "checkout.workers=0";

/// The answer of the mount about the repository to clone.
#[derive(Debug)]
struct CloneSource {
    repo: RepoName,
    /// The directory of the mount with HEAD, refs and objects.
    objects_directory: PathBuf,
    snapshot: String,
    upstream_url: String,
    /// A sentence that names the files which the snapshot's work tree doesn't have.
    notice: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let named = NamedRepo::find(&args.url)?;
    let target = match &args.directory {
        Some(directory) => directory.clone(),
        None => PathBuf::from(remote::directory_name(&named.name)),
    };
    let target = std::path::absolute(target)?;
    clone_staging::refuse_used_directory(&target)?;
    let chosen = named.choose(&args.choice, Some(&target))?;
    let report = block_on(async {
        tokio::select! {
            outcome = clone(args, &named.url, &chosen, &target) => outcome,
            // Dropping `clone` kills git and removes the staging directory.
            _ = interrupted() => Err(CliError::Interrupted.into()),
        }
    })?;
    let line = format!("Cloned {} into {}", chosen.name, target.display());
    args.json.print(&report, &line)
}

async fn clone(args: &Args, url: &str, chosen: &ChosenRepo, target: &Path) -> Result<CloneReport> {
    let fetched_before = fetched_bytes(chosen).await?;
    let source = resolve(args, url, chosen).await?;
    let parent = target.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(parent)?;
    let staging = CloneStaging::create(parent)?;
    let head = set_up(&staging, &source, args.branch.as_deref()).await?;
    if !args.sparse.is_empty() {
        make_sparse(&staging, &args.sparse).await?;
        if !args.no_checkout {
            spare_other_files(args, &source, staging.path()).await;
        }
    }
    let checked_out = match head {
        _ if args.no_checkout => Ok(()),
        HeadState::Commit => check_out(&staging).await,
        HeadState::Unborn => {
            output::error(
                "cachewfs: no files are checked out: HEAD names a branch that does not exist",
            );
            Ok(())
        }
    };
    staging.rename(target)?;
    let directory = target.to_owned();
    let request = ControlRequest::RegisterClone {
        repo: chosen.name.clone(),
        directory,
    };
    chosen.mount.ask(&request).await?;
    // The clone stays even if its checkout failed: the history is complete, and the user can check
    // out single files.
    checked_out.map_err(|error| {
        let directory = target.display().to_string();
        let notice = source.notice.map(|notice| format!("{notice}. "));
        let details = format!("{}{error:#}", notice.unwrap_or_default());
        CliError::CheckoutFailed { directory, details }
    })?;
    let submodules = if args.recurse_submodules && !args.no_checkout {
        clone_submodules(&chosen.mount, target).await?
    } else {
        Vec::new()
    };
    let fetched_after = fetched_bytes(chosen).await?;
    Ok(CloneReport {
        repo: chosen.name.clone(),
        directory: target.to_owned(),
        snapshot: source.snapshot,
        branch: git::line(target, &["symbolic-ref", "--quiet", "--short", "HEAD"]),
        commit: git::line(target, &["rev-parse", "--quiet", "--verify", "HEAD"]),
        sparse: args.sparse.clone(),
        submodules,
        fetched_bytes: fetched_after.saturating_sub(fetched_before),
    })
}

/// Returns how many bytes of the repository the mount has fetched since it started. Asks only if
/// the result is printed.
async fn fetched_bytes(chosen: &ChosenRepo) -> Result<u64> {
    if Speech::chosen().is_json {
        chosen.fetched_bytes().await
    } else {
        Ok(0)
    }
}

async fn resolve(args: &Args, url: &str, chosen: &ChosenRepo) -> Result<CloneSource> {
    let repo = &chosen.name;
    let request = if args.refs.is_empty() {
        ControlRequest::Resolve { repo: repo.clone() }
    } else {
        let wanted = EnsureRefsRequest {
            refs: args.refs.iter().cloned().collect(),
            commits: Vec::new(),
        };
        let repo = repo.clone();
        ControlRequest::Await { repo, wanted }
    };
    let ControlAnswer::Resolved {
        snapshot,
        upstream_url,
        objects_directory,
        notice,
        ..
    } = chosen.mount.ask(&request).await?
    else {
        anyhow::bail!("the mount's answer is not of the requested kind");
    };
    let upstream_url = remote::origin_url(url, repo, upstream_url.as_deref());
    Ok(CloneSource {
        repo: repo.clone(),
        objects_directory,
        snapshot: snapshot.to_string(),
        upstream_url,
        notice,
    })
}

async fn set_up(
    staging: &CloneStaging,
    source: &CloneSource,
    chosen: Option<&str>,
) -> Result<HeadState> {
    let read = |name: &str| {
        let path = source.objects_directory.join(name);
        std::fs::read(&path).with_context(|| format!("can't read {}", path.display()))
    };
    let refs = read("packed-refs")?;
    let clone = NewClone {
        repo: &source.repo,
        upstream_url: &source.upstream_url,
        upstream_head: GitHead::parse(&read("HEAD")?)?,
        refs: &refs,
        chosen,
        settings: BORROWING_SETTINGS,
    };
    let head = clone.create(staging.path()).await?;
    let alternates = source.objects_directory.join("objects");
    let alternates = [alternates.as_os_str().as_encoded_bytes(), b"\n"].concat();
    let git_dir = staging.path().join(".git");
    append(&git_dir, "objects/info/alternates", &alternates)?;
    Ok(head)
}

/// Begins a sparse checkout of `directories`. Says which of them HEAD doesn't have: git takes such
/// a name, because another commit may have the directory.
async fn make_sparse(staging: &CloneStaging, directories: &[String]) -> Result<()> {
    let paths = directories.iter().map(String::as_str);
    let arguments: Vec<_> = ["set", "--cone", "--"].into_iter().chain(paths).collect();
    git::run(staging.path(), &[], "sparse-checkout", &arguments).await?;
    for directory in directories {
        let tree = format!("HEAD:{}", directory.trim_matches('/'));
        let kind = git::line(staging.path(), &["cat-file", "-t", &tree]);
        if kind.as_deref() != Some("tree") {
            output::error(&format!("cachewfs: HEAD has no directory {directory:?}"));
        }
    }
    Ok(())
}

/// Makes a sparse checkout fetch little else than its files, if HEAD is the commit that the mount
/// shows.
///
/// Otherwise git would read all trees of HEAD, which lie between all of its blobs, and the mount
/// would take that for a checkout of everything.
async fn spare_other_files(args: &Args, source: &CloneSource, clone: &Path) {
    let index = clone.join(".git/index");
    // With this index, git knows all paths without the trees. If it has no cache tree, or is that
    // of another commit, because the mount has just moved or HEAD is another branch, git begins
    // without an index, as in any new clone.
    let is_of_head = copy_index(&source.objects_directory, &index).is_ok() && {
        let tree = git::line(clone, &["rev-parse", "--quiet", "--verify", "HEAD^{tree}"]);
        tree.is_some() && tree == git::line(clone, &["write-tree"])
    };
    if !is_of_head {
        std::fs::remove_file(&index).ok();
        return;
    }
    let request = ControlRequest::PrefetchPaths {
        repo: source.repo.clone(),
        paths: args.sparse.clone(),
        reader: PathReader::Checkout,
    };
    // If it fails, the checkout fetches the files, and reports the reason if it fails, too.
    args.choice.ask(&request).await.ok();
}

fn copy_index(objects_directory: &Path, index: &Path) -> std::io::Result<()> {
    let git_dir = objects_directory.parent().unwrap_or(Path::new("/"));
    let mut mounted = std::fs::File::open(git_dir.join("index"))?;
    // Not a copy with its mode: the mounted file is read-only.
    std::io::copy(&mut mounted, &mut std::fs::File::create_new(index)?)?;
    Ok(())
}

async fn check_out(staging: &CloneStaging) -> Result<()> {
    let progress = if std::io::stderr().is_terminal() {
        "--progress"
    } else {
        "--no-progress"
    };
    let bar = Bar::new();
    bar.step("checking out the files");
    // No submodule is cloned yet. The option overrides the user's `submodule.recurse`, with which
    // git would try to check them out.
    let submodules = "--no-recurse-submodules";
    // Without an argument, git checks out HEAD. The argument `HEAD` could mean a branch of that
    // name.
    let arguments = ["--quiet", progress, submodules, "--force"];
    let outcome = git::run(staging.path(), &[CHECKOUT_WORKERS], "checkout", &arguments).await;
    bar.finish();
    outcome
}
