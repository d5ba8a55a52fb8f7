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

use crate::clone_files::{chosen_head, config, packed_refs};
use crate::clone_staging::CloneStaging;
use crate::error::CliError;
use crate::interrupt::interrupted;
use crate::mounts::{MountChoice, block_on};
use crate::progress::Bar;
use crate::{git, output, remote};

/// Make a clone that borrows its objects from the mount
///
///   cachewfs clone https://github.com/org/repo
///   cachewfs clone -b v2 git@github.com:org/repo.git project
///
/// The clone has the whole history and all branches, but only the checked-out files take local disk
/// space. You commit, fetch and push as in every clone of upstream. The clone works only while the
/// mount is mounted.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// The repository, as https://github.com/org/repo or github.com/org/repo.
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

/// The state of HEAD in a clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeadState {
    /// HEAD has a commit.
    Commit,
    /// HEAD names a branch that doesn't exist.
    Unborn,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let repo = remote::repo_name(&args.url)?;
    let target = match &args.directory {
        Some(directory) => directory.clone(),
        None => PathBuf::from(remote::directory_name(&repo)),
    };
    let target = std::path::absolute(target)?;
    refuse_used_directory(&target)?;
    block_on(async {
        tokio::select! {
            outcome = clone(args, &repo, &target) => outcome,
            // Dropping `clone` kills git and removes the staging directory.
            _ = interrupted() => Err(CliError::Interrupted.into()),
        }
    })?;
    output::line(&format!("Cloned {repo} into {}", target.display()))
}

fn refuse_used_directory(target: &Path) -> Result<()> {
    match std::fs::read_dir(target).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Ok(false) => Err(CliError::NotEmpty {
            directory: target.display().to_string(),
        }
        .into()),
        Err(error) => Err(error).with_context(|| format!("can't clone into {}", target.display())),
    }
}

async fn clone(args: &Args, repo: &RepoName, target: &Path) -> Result<()> {
    let source = resolve(args, repo).await?;
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
        repo: repo.clone(),
        directory,
    };
    args.choice.ask(&request).await?;
    // The clone stays even if its checkout failed: the history is complete, and the user can check
    // out single files.
    checked_out.map_err(|error| {
        let directory = target.display().to_string();
        let notice = source.notice.map(|notice| format!("{notice}. "));
        let details = format!("{}{error:#}", notice.unwrap_or_default());
        CliError::CheckoutFailed { directory, details }.into()
    })
}

async fn resolve(args: &Args, repo: &RepoName) -> Result<CloneSource> {
    let answer = args
        .choice
        .ask(&ControlRequest::Resolve { repo: repo.clone() })
        .await?;
    let ControlAnswer::Resolved {
        upstream_url,
        objects_directory,
        notice,
        ..
    } = answer
    else {
        anyhow::bail!("the mount's answer is not of the requested kind");
    };
    let is_full_url = args.url.contains("://") || args.url.contains('@');
    // The user may have chosen another protocol or another user than the daemon on purpose, so the
    // argument becomes the URL of the remote. A name such as `github.com/org/repo` is no URL for
    // git.
    let upstream_url = match upstream_url {
        _ if is_full_url => args.url.clone(),
        Some(url) => url,
        None => format!("https://{repo}"),
    };
    Ok(CloneSource {
        repo: repo.clone(),
        objects_directory,
        upstream_url,
        notice,
    })
}

/// Creates the repository like `git clone --no-checkout`, but without copying any objects. HEAD is
/// the branch or tag `chosen`, or else the HEAD of upstream.
async fn set_up(
    staging: &CloneStaging,
    source: &CloneSource,
    chosen: Option<&str>,
) -> Result<HeadState> {
    let read = |name: &str| {
        let path = source.objects_directory.join(name);
        std::fs::read(&path).with_context(|| format!("can't read {}", path.display()))
    };
    let (upstream_head, refs) = (GitHead::parse(&read("HEAD")?)?, read("packed-refs")?);
    let head = match chosen {
        None => upstream_head.clone(),
        Some(name) => chosen_head(&refs, name).ok_or_else(|| CliError::NoBranch {
            repo: source.repo.to_string(),
            name: name.to_owned(),
        })?,
    };
    // An object id, up to the first space of a line, has 64 digits only with SHA-256.
    let is_sha256 = refs
        .split(|&byte| byte == b'\n')
        .any(|line| line.iter().position(|&byte| byte == b' ') == Some(64));
    let format = if is_sha256 {
        "--object-format=sha256"
    } else {
        "--object-format=sha1"
    };
    // `git init` refuses some names that a branch at upstream can have. So it gets a fixed name,
    // and HEAD is written below.
    let arguments = ["--quiet", format, "--initial-branch=main"];
    git::run(staging.path(), &[], "init", &arguments).await?;

    let branch = branch_of(&head);
    let alternates = source.objects_directory.join("objects");
    let alternates = [alternates.as_os_str().as_encoded_bytes(), b"\n"].concat();
    let own_refs = packed_refs(&refs, branch);
    let git_dir = staging.path().join(".git");
    // Files are appended to, because the settings follow those that `git init` wrote into `config`.
    let write = |name: &str, bytes: &[u8]| -> Result<()> {
        let path = git_dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(&git_dir))?;
        let mut file = std::fs::File::options()
            .append(true)
            .create(true)
            .open(path)?;
        Ok(std::io::Write::write_all(&mut file, bytes)?)
    };
    std::fs::remove_file(git_dir.join("HEAD"))?;
    write("HEAD", &head.to_file())?;
    write("objects/info/alternates", &alternates)?;
    write("packed-refs", &own_refs)?;
    write("config", &config(&source.upstream_url, branch))?;
    let has_ref = |place: &str, branch: &[u8]| {
        let name = [b" ", place.as_bytes(), branch].concat();
        let mut lines = own_refs.split(|&byte| byte == b'\n');
        lines.any(|line| line.ends_with(&name))
    };
    if let Some(default) = branch_of(&upstream_head)
        && has_ref("refs/remotes/origin/", default)
    {
        let origin_head = [b"ref: refs/remotes/origin/", default, b"\n"].concat();
        write("refs/remotes/origin/HEAD", &origin_head)?;
    }
    match branch {
        Some(branch) if !has_ref("refs/heads/", branch) => Ok(HeadState::Unborn),
        _ => Ok(HeadState::Commit),
    }
}

fn branch_of(head: &GitHead) -> Option<&[u8]> {
    match head {
        GitHead::Branch(branch) => Some(branch),
        GitHead::Detached(_) => None,
    }
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
