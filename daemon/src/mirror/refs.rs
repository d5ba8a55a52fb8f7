//! Reads the refs of a mirror from its files.
//!
//! git takes ten times as long to list 100,000 refs, and every update and every check lists them.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use cachewfs_format::ObjectId;

use super::MirrorError;

/// The name of a ref, and the id of its object in hexadecimal digits.
pub(super) type Ref<'a> = (&'a [u8], &'a [u8]);

/// The files that contain the refs of a mirror (`gitrepository-layout(5)`).
#[derive(Debug)]
pub(super) struct RefFiles {
    /// The contents of the files below `refs/`, by ref name. They take precedence over `packed`.
    loose: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The content of `packed-refs`.
    packed: Vec<u8>,
}

impl RefFiles {
    /// Reads the refs of `mirror`. git may change them meanwhile.
    pub(super) fn read(mirror: &Path) -> Result<Self, MirrorError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| MirrorError::Io { path, source }
        };
        let mut loose = BTreeMap::new();
        // The loose refs first: when git packs a ref, it writes `packed-refs` before it removes the
        // ref's file. In the other order, a ref that is packed between the two reads would be lost.
        let refs = mirror.join("refs");
        read_loose(&refs, mirror, &mut loose).map_err(io(&refs))?;
        let path = mirror.join("packed-refs");
        let packed = if_there(fs::read(&path)).map_err(io(&path))?;
        let packed = packed.unwrap_or_default();
        Ok(Self { loose, packed })
    }

    /// Returns the refs, sorted by name. Like git, leaves out a ref whose file names no object.
    pub(super) fn sorted(&self) -> Vec<Ref<'_>> {
        let lines = self.packed.split(|&byte| byte == b'\n');
        let packed = lines.filter(|line| !line.starts_with(b"#") && !line.starts_with(b"^"));
        let packed = packed.filter_map(|line| {
            let space = line.iter().position(|&byte| byte == b' ')?;
            Some((line.get(space + 1..)?, line.get(..space)?))
        });
        // The loose file wins even if it is empty or damaged: git does not fall back, either.
        let mut refs: Vec<_> = packed
            .filter(|(name, _)| !self.loose.contains_key(*name))
            .collect();
        let (mut links, mut named) = (Vec::new(), Vec::new());
        for (name, content) in &self.loose {
            let content = content.trim_ascii_end();
            match content.strip_prefix(b"ref: ") {
                Some(target) => links.push((name.as_slice(), target)),
                None if ObjectId::is_hex(content) => named.push((name.as_slice(), content)),
                None => {}
            }
        }
        refs.extend(named);
        if !links.is_empty() {
            let targets: HashMap<_, _> = refs.iter().copied().collect();
            let resolve = |(name, target)| Some((name, *targets.get(target)?));
            refs.extend(links.into_iter().filter_map(resolve));
        }
        refs.sort_by_key(|&(name, _)| name);
        refs
    }
}

/// Adds the files below `directory` to `found`, keyed by their paths relative to `mirror`.
fn read_loose(
    directory: &Path,
    mirror: &Path,
    found: &mut BTreeMap<Vec<u8>, Vec<u8>>,
) -> io::Result<()> {
    for entry in if_there(fs::read_dir(directory))?.into_iter().flatten() {
        let (entry, path) = entry.map(|entry| (entry.file_type(), entry.path()))?;
        let name = path.strip_prefix(mirror).unwrap_or(&path);
        let name = name.as_os_str().as_bytes();
        if if_there(entry)?.is_some_and(|kind| kind.is_dir()) {
            read_loose(&path, mirror, found)?;
        } else if !name.ends_with(b".lock")
            && let Some(content) = if_there(fs::read(&path))?
        {
            found.insert(name.to_owned(), content);
        }
    }
    Ok(())
}

/// Returns `None` if a file or directory has disappeared meanwhile.
fn if_there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        found => found.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use cachewfs_tests::{git, init_bare};

    use super::*;

    #[test]
    fn refs_are_read_as_git_lists_them() {
        let root = tempfile::tempdir().unwrap();
        let mirror = root.path().join("mirror.git");
        init_bare(&mirror);
        let listed = || {
            git(
                &mirror,
                &["for-each-ref", "--format=%(objectname) %(refname)"],
            )
        };
        let read = || {
            let files = RefFiles::read(&mirror).unwrap();
            let line = |&(name, id): &Ref<'_>| [id, b" ", name, b"\n"].concat();
            let lines: Vec<_> = files.sorted().iter().map(line).collect();
            String::from_utf8(lines.concat()).unwrap().trim().to_owned()
        };
        let write = |name: &str, content: &str| {
            let mut file = fs::File::create(mirror.join(name)).unwrap();
            file.write_all(content.as_bytes()).unwrap();
        };
        let tree = git(&mirror, &["hash-object", "-t", "tree", "-w", "/dev/null"]);
        let [first, second] = ["one", "two"].map(|message| {
            let commit = git(&mirror, &["commit-tree", "-m", message, tree.trim()]);
            commit.trim().to_owned()
        });
        assert_eq!(read(), "");
        for name in [
            "refs/heads/main",
            "refs/heads/main-2",
            "refs/heads/ä/b",
            "refs/x/y",
        ] {
            git(&mirror, &["update-ref", name, &first]);
        }
        git(&mirror, &["tag", "-a", "-m", "x", "v1", &first]);
        git(&mirror, &["pack-refs", "--all"]);
        git(&mirror, &["update-ref", "refs/heads/main", &second]);
        git(&mirror, &["update-ref", "refs/heads/new/one", &second]);
        git(
            &mirror,
            &["symbolic-ref", "refs/heads/link", "refs/heads/main-2"],
        );
        git(
            &mirror,
            &["symbolic-ref", "refs/heads/nowhere", "refs/heads/gone"],
        );
        write("refs/heads/new/two.lock", &first);
        let expected = listed();

        assert_eq!(read(), expected.trim());
        assert_eq!(expected.trim().lines().count(), 7, "{expected}");
        // An empty file, as a crash leaves it, hides the line in packed-refs.
        write("refs/heads/main-2", "");
        git(&mirror, &["symbolic-ref", "-d", "refs/heads/link"]);
        assert_eq!(read(), listed().trim());
    }
}
