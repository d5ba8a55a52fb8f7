//! Removes the files that killed git processes leave behind.

use std::path::Path;
use std::{fs, io};

/// Removes locks and half-written files in `mirror`. Only the mirror's writer may call this, while
/// no git command runs in it.
pub(crate) fn remove_stale_locks(mirror: &Path) -> io::Result<()> {
    let is_lock = |name: &str| name.strip_suffix(".lock").is_some();
    // git writes `packed-refs.new` beside its lock. If that file stays, every later update that
    // deletes a packed ref fails.
    let is_stale = |name: &str| is_lock(name) || name == "packed-refs.new";
    remove_matching(mirror, Depth::Here, is_stale)?;
    remove_matching(&mirror.join("refs"), Depth::Below, is_lock)?;
    remove_matching(&mirror.join("objects/info"), Depth::Below, |name| {
        is_lock(name) || name.starts_with("tmp_")
    })?;
    // Temporary packs can be as large as the repository, and git's own clean-up is off.
    remove_matching(&mirror.join("objects/pack"), Depth::Here, |name| {
        is_lock(name) || name.starts_with("tmp_") || name.starts_with(".tmp-")
    })?;
    remove_parts_of_packs(&mirror.join("objects/pack"))?;
    for entry in fs::read_dir(mirror.join("objects"))? {
        let entry = entry?;
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with("tmp_objdir-")
        {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Removes incomplete packs: files of a pack without its `.pack` or `.idx`. git adds the
/// index last, so a pack without an index was being added or removed when git was killed.
///
/// Also removes `.keep` files: a killed fetch leaves one behind, and git then never repacks its
/// pack.
fn remove_parts_of_packs(directory: &Path) -> io::Result<()> {
    remove_matching(directory, Depth::Here, |name| {
        let Some((stem, extension)) = name.rsplit_once('.') else {
            return false;
        };
        let is_there = |extension| directory.join(format!("{stem}.{extension}")).exists();
        stem.starts_with("pack-") && (extension == "keep" || !is_there("idx") || !is_there("pack"))
    })
}

#[derive(Clone, Copy)]
enum Depth {
    Here,
    Below,
}

fn remove_matching(
    directory: &Path,
    depth: Depth,
    is_stale: impl Fn(&str) -> bool + Copy,
) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let is_directory = entry.file_type()?.is_dir();
        if is_directory && matches!(depth, Depth::Below) {
            remove_matching(&entry.path(), depth, is_stale)?;
        } else if !is_directory && is_stale(&entry.file_name().to_string_lossy()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_locks_and_nothing_else() {
        let mirror = tempfile::tempdir().unwrap();
        let path = |name: &str| mirror.path().join(name);
        fs::create_dir_all(path("refs/heads/a")).unwrap();
        fs::create_dir_all(path("objects/pack")).unwrap();
        fs::create_dir_all(path("objects/tmp_objdir-incoming-x")).unwrap();
        let stale = [
            "HEAD.lock",
            "packed-refs.lock",
            "packed-refs.new",
            "refs/heads/a/b.lock",
            "objects/pack/tmp_pack_1",
            "objects/pack/multi-pack-index.lock",
            "objects/pack/pack-1.keep",
            "objects/pack/pack-2.pack",
            "objects/pack/pack-2.rev",
            "objects/pack/pack-3.bitmap",
        ];
        let good = [
            "HEAD",
            "refs/heads/a/b",
            "objects/pack/multi-pack-index",
            "objects/pack/pack-1.pack",
            "objects/pack/pack-1.idx",
            "objects/pack/pack-1.rev",
        ];
        for name in stale.iter().chain(&good) {
            fs::File::create(path(name)).unwrap();
        }

        remove_stale_locks(mirror.path()).unwrap();

        assert!(stale.iter().all(|name| !path(name).exists()));
        assert!(good.iter().all(|name| path(name).exists()));
        assert!(!path("objects/tmp_objdir-incoming-x").exists());
    }
}
