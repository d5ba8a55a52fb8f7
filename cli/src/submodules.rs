//! Clones the submodules of a new clone. Each borrows from the mount if its repository is there.
//!
//! git itself registers and clones them: so it decides which names, URLs and settings of
//! `.gitmodules` are safe, and where a relative URL leads. This file only names the directory of
//! objects to borrow from.

use std::path::{Path, PathBuf};

use anyhow::Result;
use cachewfs_format::RepoName;
use cachewfs_fuse::control::protocol::{ControlAnswer, ControlRequest};
use serde::Serialize;

use crate::clone_files::BORROWING_SETTINGS;
use crate::mounts::MountChoice;
use crate::new_clone::append;
use crate::progress::Bar;
use crate::{git, output, remote};

/// A submodule that was cloned.
#[derive(Debug, Serialize)]
pub(crate) struct ClonedSubmodule {
    /// The path from the top of the outermost clone.
    path: PathBuf,
    /// The repository that it borrows from, or `None` if it is an ordinary clone.
    repo: Option<RepoName>,
}

/// A mounted repository to borrow from.
struct Lender {
    repo: RepoName,
    objects_directory: PathBuf,
}

/// Clones the submodules of the clone at `top`, and those of the submodules.
pub(crate) async fn clone_submodules(
    choice: &MountChoice,
    top: &Path,
) -> Result<Vec<ClonedSubmodule>> {
    let mut cloned = Vec::new();
    let mut directories = vec![top.to_owned()];
    while let Some(directory) = directories.pop() {
        if !directory.join(".gitmodules").exists() {
            continue;
        }
        git::run(&directory, &[], "submodule", &["--quiet", "init"]).await?;
        for (name, path) in paths(&directory) {
            let key = format!("submodule.{name}.url");
            let Some(url) = git::line(&directory, &["config", "--local", "--get", &key]) else {
                // Not active, or no submodule of this commit.
                continue;
            };
            let place = directory.join(&path);
            let shown = place.strip_prefix(top).unwrap_or(&place).to_owned();
            let lender = match lender(choice, &url).await {
                Ok(lender) => Some(lender),
                Err(error) => {
                    let path = shown.display();
                    output::error(&format!(
                        "cachewfs: the submodule {path} borrows nothing from the mount: {error:#}"
                    ));
                    None
                }
            };
            clone_one(&directory, &path, lender.as_ref()).await?;
            if let Some(lender) = &lender {
                borrow(choice, &place, lender).await?;
            }
            cloned.push(ClonedSubmodule {
                path: shown,
                repo: lender.map(|lender| lender.repo),
            });
            directories.push(place);
        }
    }
    Ok(cloned)
}

/// Returns the names and paths in `.gitmodules`.
fn paths(directory: &Path) -> Vec<(String, String)> {
    let arguments = [
        "config",
        "--file",
        ".gitmodules",
        "-z",
        "--get-regexp",
        r"^submodule\..*\.path$",
    ];
    let said = git::ask(Some(directory), &arguments).unwrap_or_default();
    let text = String::from_utf8_lossy(&said);
    let entries = text.split('\0').filter_map(|entry| {
        let (key, path) = entry.split_once('\n')?;
        let name = key.strip_prefix("submodule.")?.strip_suffix(".path")?;
        Some((name.to_owned(), path.to_owned()))
    });
    entries.collect()
}

/// Returns the mounted repository of `url`. The error is the reason why there is none.
async fn lender(choice: &MountChoice, url: &str) -> Result<Lender> {
    let repo = remote::repo_name(url)?;
    let request = ControlRequest::Resolve { repo: repo.clone() };
    match choice.ask(&request).await? {
        ControlAnswer::Resolved {
            objects_directory, ..
        } => Ok(Lender {
            repo,
            objects_directory,
        }),
        _ => anyhow::bail!("the mount's answer is not of the requested kind"),
    }
}

async fn clone_one(directory: &Path, path: &str, lender: Option<&Lender>) -> Result<()> {
    let reference = lender.map(|lender| lender.objects_directory.display().to_string());
    let mut arguments = vec!["--quiet", "update"];
    if let Some(reference) = &reference {
        arguments.extend(["--reference", reference]);
    }
    let path = format!(":(top,literal){path}");
    arguments.extend(["--", &path]);
    let bar = Bar::new();
    bar.step("cloning a submodule");
    let outcome = git::run(directory, &[], "submodule", &arguments).await;
    bar.finish();
    outcome
}

/// Gives a submodule the settings of a clone that borrows, and tells the mount about it.
async fn borrow(choice: &MountChoice, place: &Path, lender: &Lender) -> Result<()> {
    if let Some(git_dir) = git::line(place, &["rev-parse", "--absolute-git-dir"]) {
        append(Path::new(&git_dir), "config", BORROWING_SETTINGS.as_bytes())?;
    }
    let request = ControlRequest::RegisterClone {
        repo: lender.repo.clone(),
        directory: place.to_owned(),
    };
    choice.ask(&request).await?;
    Ok(())
}
