//! Puts objects into a git directory that is in use: packs, commit-graphs, and single commits.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cachewfs_fuse::{PACK_KEEP, Restore};

use crate::git::Call;

/// Moves the files below `staged` to `git_dir`, in an order in which git never finds a file that
/// needs another one that isn't there yet.
pub(super) fn move_objects(staged: &Path, git_dir: &Path) -> Result<()> {
    let mut files = Vec::new();
    list(staged, Path::new("objects"), &mut files)?;
    // git takes a pack for complete if its index is there, and reads the chain of commit-graphs
    // before the graphs.
    files.sort_by_key(|path| {
        let is_chain = path.ends_with("commit-graph-chain");
        (is_chain, path.extension().is_some_and(|end| end == "idx"))
    });
    for path in files {
        let to = git_dir.join(&path);
        let moved = fs::create_dir_all(to.parent().unwrap_or(git_dir))
            .and_then(|()| fs::rename(staged.join(&path), &to));
        moved.with_context(|| format!("can't write {}", to.display()))?;
    }
    Ok(())
}

/// Adds the files below `root/directory` to `files`, as paths relative to `root`.
fn list(root: &Path, directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = match fs::read_dir(root.join(directory)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let path = directory.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(root, &path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// Adds the commit of HEAD, unless it is in a pack of the clone. The rest of its pack stays away.
pub(crate) async fn add_commit(restore: &Restore, directory: &Path) -> Result<()> {
    let commit = restore.commit().to_string();
    let arguments = ["-e", &*commit];
    let is_there = Call::new(directory, "cat-file", &arguments).output();
    if is_there.await.is_ok() {
        return Ok(());
    }
    let Some(content) = restore.read_commit().await? else {
        return Ok(());
    };
    let arguments = ["-t", "commit", "-w", "--stdin"];
    let call = Call {
        input: &content,
        ..Call::new(directory, "hash-object", &arguments)
    };
    // If it is another commit, HEAD's is still missing, which the caller finds out.
    call.output().await.map(drop)
}

/// Returns whether an object of HEAD is missing. It is in a pack of the history if a newer commit
/// has taken a file from there again.
pub(crate) async fn lacks_objects(restore: &Restore, directory: &Path) -> bool {
    let commit = restore.commit().to_string();
    let arguments = ["--objects", "--missing=print", "--no-walk", &commit];
    let listed = Call::new(directory, "rev-list", &arguments).output().await;
    listed.map_or(true, |listed| {
        let mut lines = listed.split(|&byte| byte == b'\n');
        lines.any(|line| line.starts_with(b"?"))
    })
}

/// Lets git repack the packs of older snapshots. `packs` are the paths of those of the newest one.
///
/// They stay until then: a commit of a person may need objects that are in no other pack.
pub(super) fn release_packs(git_dir: &Path, packs: &[&[u8]]) {
    let entries = fs::read_dir(git_dir.join("objects/pack"));
    for entry in entries.into_iter().flatten().flatten() {
        let keep = entry.path();
        let pack = Path::new("objects/pack").join(entry.file_name());
        let pack = pack.with_extension("pack");
        let is_keep = keep.extension().is_some_and(|end| end == "keep");
        if is_keep
            && !packs.contains(&pack.as_os_str().as_encoded_bytes())
            && fs::read(&keep).is_ok_and(|content| content == PACK_KEEP)
        {
            // Without the removal, the pack only takes disk for longer.
            fs::remove_file(&keep).ok();
        }
    }
}
