//! Drops refs whose objects a mirror lacks. git can't fetch while one exists, and nothing can be
//! published.

use std::ffi::OsStr;
use std::path::Path;

use cachewfs_format::{ObjectId, is_ref_name};

use super::head::{DETACHED_HEAD, UNBORN_BRANCH};
use super::query::{HIDDEN_NAMESPACE, missing_objects, shown_name};
use super::refs::RefFiles;
use super::update::set_branch;
use super::{Git, MirrorError};

/// At most this many broken refs are dropped. If more are broken, the mirror has lost objects
/// rather than refs, and all of it has to be examined.
const MAX_DROPPED: usize = 16;

/// Drops the refs of `mirror` whose objects it lacks, and returns their names. The next update
/// fetches them again from upstream. Only the mirror's writer may call this.
///
/// Drops none if an update would not mend the mirror: if it has no packs, or if a broken ref keeps
/// an object that upstream no longer has. Looks up one object for each ref, and reads none.
pub(crate) fn drop_broken_refs(git: &Git, mirror: &Path) -> Result<Vec<String>, MirrorError> {
    let files = RefFiles::read(mirror)?;
    let path = mirror.join("HEAD");
    let head = std::fs::read(&path).map_err(|source| MirrorError::Io { path, source })?;
    let mut refs = files.sorted();
    let head = head.trim_ascii_end();
    if ObjectId::is_hex(head) {
        refs.push((b"HEAD", head));
    }
    let parse = |id: &[u8]| ObjectId::parse(std::str::from_utf8(id).ok()?).ok();
    let refs: Vec<_> = refs
        .into_iter()
        .filter(|(name, _)| is_ref_name(name) || *name == b"HEAD")
        .filter_map(|(name, id)| Some((name, parse(id)?)))
        .collect();
    let ids: Vec<_> = refs.iter().map(|&(_, id)| id).collect();
    let missing = missing_objects(git, mirror, &ids)?;
    let broken: Vec<_> = refs
        .iter()
        .filter(|(_, id)| missing.contains(id))
        .map(|&(name, _)| name)
        .collect();
    // `refs/cachewfs/` keeps commits that upstream has dropped: no fetch would bring them back, so
    // only a restore from the store can mend such a ref. The branch of a detached HEAD is there,
    // too, but every update writes it anew.
    let is_kept = |name: &&[u8]| {
        name.starts_with(HIDDEN_NAMESPACE.as_bytes()) && *name != DETACHED_HEAD.as_bytes()
    };
    let is_to_be_examined =
        broken.len() > MAX_DROPPED || broken.iter().any(is_kept) || !has_packs(mirror);
    if broken.is_empty() || is_to_be_examined {
        return Ok(Vec::new());
    }
    let (head, broken): (Vec<_>, Vec<_>) = broken.into_iter().partition(|name| *name == b"HEAD");
    // git deletes the refs in one transaction. `--no-deref`: for a symbolic ref, delete the ref
    // itself and not its target.
    let commands = broken
        .iter()
        .map(|name| [b"delete ", *name, b"\n"].concat());
    git.in_repository(mirror, "update-ref")
        .args(["--no-deref", "--stdin"])
        .input(commands.collect::<Vec<_>>().concat())
        .effect()?;
    if !head.is_empty() {
        // HEAD can't be deleted: git would take the directory for no repository. It names a branch
        // that doesn't exist until the next update sets it.
        set_branch(git, mirror, UNBORN_BRANCH.as_bytes())?;
    }
    let names = head.into_iter().chain(broken);
    Ok(names.map(|name| shown_name(name.to_vec())).collect())
}

fn has_packs(mirror: &Path) -> bool {
    let entries = std::fs::read_dir(mirror.join("objects/pack"));
    let is_pack = |path: &Path| path.extension() == Some(OsStr::new("pack"));
    entries.is_ok_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|entry| is_pack(&entry.path())))
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write as _;
    use std::os::unix::ffi::OsStrExt as _;

    use cachewfs_tests::{git, init_bare};
    use tokio_util::sync::CancellationToken;

    use super::*;

    const GHOST: &str = "1212121212121212121212121212121212121212";

    async fn dropped(mirror: &Path) -> Vec<String> {
        let git = Git::new("/dev/null".into(), CancellationToken::new());
        let mirror = mirror.to_owned();
        let drop_them = move || drop_broken_refs(&git, &mirror).unwrap();
        tokio::task::spawn_blocking(drop_them).await.unwrap()
    }

    fn write(mirror: &Path, name: &[u8]) {
        let path = mirror.join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = File::create(path).unwrap();
        file.write_all(GHOST.as_bytes()).unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn refs_are_dropped_only_if_an_update_mends_the_mirror() {
        let root = tempfile::tempdir().unwrap();
        let mirror = root.path().join("mirror.git");
        init_bare(&mirror);
        let tree = git(&mirror, &["hash-object", "-t", "tree", "-w", "/dev/null"]);
        let commit = git(&mirror, &["commit-tree", "-m", "x", tree.trim()]);
        git(&mirror, &["update-ref", "refs/heads/main", commit.trim()]);
        let sound = git(&mirror, &["show-ref"]);
        write(&mirror, b"refs/heads/gr\xfcn");

        assert_eq!(dropped(&mirror).await, [""; 0], "there is no pack");
        fs::remove_file(mirror.join(OsStr::from_bytes(b"refs/heads/gr\xfcn"))).unwrap();
        git(&mirror, &["repack", "-adq"]);
        write(&mirror, b"refs/heads/gr\xfcn");
        write(&mirror, b"refs/cachewfs/retained/x");
        assert_eq!(
            dropped(&mirror).await,
            [""; 0],
            "only the store can mend that"
        );
        fs::remove_file(mirror.join("refs/cachewfs/retained/x")).unwrap();
        for number in 0..MAX_DROPPED {
            write(&mirror, format!("refs/tags/{number}").as_bytes());
        }
        assert_eq!(dropped(&mirror).await, [""; 0], "these are too many");
        for number in 2..MAX_DROPPED {
            fs::remove_file(mirror.join(format!("refs/tags/{number}"))).unwrap();
        }
        write(&mirror, b"HEAD");
        let names = ["HEAD", "refs/heads/gr\\xfcn", "refs/tags/0", "refs/tags/1"];
        assert_eq!(dropped(&mirror).await, names);
        assert_eq!(git(&mirror, &["show-ref"]), sound);
        assert_eq!(dropped(&mirror).await, [""; 0]);
    }
}
