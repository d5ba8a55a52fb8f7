//! Creates the git directory of a clone: HEAD, refs and configuration, without objects.

use std::path::Path;

use anyhow::Result;
use cachewfs_format::{GitHead, RepoName};

use crate::clone_files::{chosen_head, config, mirror_config, packed_refs};
use crate::error::CliError;
use crate::git;
use crate::similar_names::names_instead;

/// A clone that is about to be created.
#[derive(Debug)]
pub(crate) struct NewClone<'a> {
    pub(crate) repo: &'a RepoName,
    pub(crate) upstream_url: &'a str,
    pub(crate) upstream_head: GitHead,
    /// The `packed-refs` of the mirror.
    pub(crate) refs: &'a [u8],
    /// The branch or tag for HEAD. If `None`, HEAD is that of upstream.
    pub(crate) chosen: Option<&'a str>,
    /// More lines for `config`.
    pub(crate) settings: &'a str,
}

/// The state of HEAD in a clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadState {
    /// HEAD has a commit.
    Commit,
    /// HEAD names a branch that doesn't exist.
    Unborn,
}

impl NewClone<'_> {
    /// Creates the repository in `directory`, like `git clone --no-checkout`, but without any
    /// objects.
    pub(crate) async fn create(&self, directory: &Path) -> Result<HeadState> {
        let refs = self.refs;
        let head = match self.chosen {
            None => self.upstream_head.clone(),
            Some(name) => chosen_head(refs, name).ok_or_else(|| CliError::NoBranch {
                repo: self.repo.to_string(),
                name: name.to_owned(),
                instead: names_instead(refs, name),
            })?,
        };
        // `git init` refuses some names that a branch at upstream can have. So it gets a fixed
        // name, and HEAD is written below.
        let arguments = [
            "--quiet",
            object_format(refs, &head),
            "--initial-branch=main",
        ];
        git::run(directory, &[], "init", &arguments).await?;

        let branch = branch_of(&head);
        let own_refs = packed_refs(refs, branch);
        let git_dir = directory.join(".git");
        // Files are appended to, because the settings follow those that `git init` wrote into
        // `config`.
        let write = |name: &str, bytes: &[u8]| append(&git_dir, name, bytes);
        std::fs::remove_file(git_dir.join("HEAD"))?;
        write("HEAD", &head.to_file())?;
        write("packed-refs", &own_refs)?;
        let config = config(self.upstream_url, branch, self.settings);
        write("config", &config)?;
        let has_ref = |place: &str, branch: &[u8]| {
            let name = [b" ", place.as_bytes(), branch].concat();
            let mut lines = own_refs.split(|&byte| byte == b'\n');
            lines.any(|line| line.ends_with(&name))
        };
        if let Some(default) = branch_of(&self.upstream_head)
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

    /// Creates a bare mirror in `directory`, like `git clone --mirror`, but without any objects.
    pub(crate) async fn create_bare(&self, directory: &Path) -> Result<()> {
        let arguments = [
            "--quiet",
            "--bare",
            object_format(self.refs, &self.upstream_head),
            "--initial-branch=main",
        ];
        git::run(directory, &[], "init", &arguments).await?;
        std::fs::remove_file(directory.join("HEAD"))?;
        append(directory, "HEAD", &self.upstream_head.to_file())?;
        append(directory, "packed-refs", self.refs)?;
        append(directory, "config", &mirror_config(self.upstream_url))
    }
}

/// Returns the option of `git init` for the hash that names objects. `refs` is a `packed-refs`.
fn object_format(refs: &[u8], head: &GitHead) -> &'static str {
    // An object id, up to the first space of a line, has 64 digits only with SHA-256.
    let is_sha256 = match head {
        GitHead::Detached(id) => id.as_bytes().len() == 32,
        GitHead::Branch(_) => refs
            .split(|&byte| byte == b'\n')
            .any(|line| line.iter().position(|&byte| byte == b' ') == Some(64)),
    };
    if is_sha256 {
        "--object-format=sha256"
    } else {
        "--object-format=sha1"
    }
}

/// Appends `bytes` to a file of the git directory, and creates it if need be.
pub(crate) fn append(git_dir: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = git_dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap_or(git_dir))?;
    let mut file = std::fs::File::options()
        .append(true)
        .create(true)
        .open(path)?;
    Ok(std::io::Write::write_all(&mut file, bytes)?)
}

/// Returns the branch that HEAD names.
pub(crate) fn branch_of(head: &GitHead) -> Option<&[u8]> {
    match head {
        GitHead::Branch(branch) => Some(branch),
        GitHead::Detached(_) => None,
    }
}
