//! `cachewfs clone`: a clone that borrows the objects of a mount.
//!
//! 1. The mount resolves the repository, and returns the directory with its objects and refs.
//! 2. `git init` makes a repository in a staging directory beside the target.
//! 3. The clone's own HEAD, refs, configuration and `alternates` are written into it.
//! 4. git checks out the files.
//! 5. The staging directory is renamed to the target, and the mount is told about the clone.
//!
//! If a signal interrupts steps 1 to 4, the staging directory is removed. So the target never has a
//! part of a clone.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cachewfs_format::{GitHead, RepoName};
use cachewfs_fuse::control::protocol::{ControlAnswer, ControlRequest};

use crate::chosen_repo::{ChosenRepo, NamedRepo};
use crate::clone_files::BORROWING_SETTINGS;
use crate::clone_staging::CloneStaging;
use crate::error::CliError;
use crate::interrupt::interrupted;
use crate::mounts::{MountChoice, block_on};
use crate::new_clone::{HeadState, NewClone, append};
use crate::progress::Bar;
use crate::{clone_staging, git, output, remote};

/// Make a clone that borrows its objects from the mount
///
///   cachewfs clone https://github.com/org/repo
///   cachewfs clone -b v2 git@github.com:org/repo.git project
///   cachewfs clone /cachewfs/github.com/org/repo
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

    #[command(flatten)]
    choice: MountChoice,
}

/// The git setting that makes a checkout use one process for each CPU.
const CHECKOUT_WORKERS: &str = "checkout.workers=0";

/// The answer of the mount about the repository to clone.
#[derive(Debug)]
struct CloneSource {
    repo: RepoName,
    /// The directory of the mount with HEAD, refs and objects.
    objects_directory: PathBuf,
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
    let repo = &chosen.name;
    block_on(async {
        tokio::select! {
            outcome = clone(args, &named.url, &chosen, &target) => outcome,
            // Dropping `clone` kills git and removes the staging directory.
            _ = interrupted() => Err(CliError::Interrupted.into()),
        }
    })?;
    output::line(&format!("Cloned {repo} into {}", target.display()))
}

async fn clone(args: &Args, url: &str, chosen: &ChosenRepo, target: &Path) -> Result<()> {
    let source = resolve(url, chosen).await?;
    let parent = target.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(parent)?;
    let staging = CloneStaging::create(parent)?;
    let head = set_up(&staging, &source, args.branch.as_deref()).await?;
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
        CliError::CheckoutFailed { directory, details }.into()
    })
}

async fn resolve(url: &str, chosen: &ChosenRepo) -> Result<CloneSource> {
    let repo = &chosen.name;
    let request = ControlRequest::Resolve { repo: repo.clone() };
    let answer = chosen.mount.ask(&request).await?;
    let ControlAnswer::Resolved {
        upstream_url,
        objects_directory,
        notice,
        ..
    } = answer
    else {
        anyhow::bail!("the mount's answer is not of the requested kind");
    };
    let upstream_url = remote::origin_url(url, repo, upstream_url.as_deref());
    Ok(CloneSource {
        repo: repo.clone(),
        objects_directory,
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
