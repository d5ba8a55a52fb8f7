//! Compares mounts of random trees with git's own description of these trees.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use cachewfs_tests::{GitRepo, MountProcess, Site, can_mount, git, try_git};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

/// Returns how many random trees are tried. `CACHEWFS_TEST_CASES` sets it.
fn cases() -> u32 {
    let cases = std::env::var("CACHEWFS_TEST_CASES").ok();
    cases.and_then(|cases| cases.parse().ok()).unwrap_or(6)
}

/// The mode of a file or symbolic link, as git writes it, and its content or target.
type Entry = (String, Vec<u8>);
/// The files and symbolic links of a tree, by path.
type Tree = BTreeMap<Vec<u8>, Entry>;

/// Names of bytes that are special to git, shells or UTF-8. The bytes are few: so names are often
/// prefixes of other names.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let letters = proptest::sample::select(b"ab-.~ '\"\n\\\xff\xc3\t*".to_vec());
    proptest::collection::vec(letters, 1..4).prop_filter("`.` and `..` are not names", |name| {
        !matches!(&name[..], b"." | b"..")
    })
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(name(), 1..5).prop_map(|names| names.join(&b'/'))
}

fn entry() -> impl Strategy<Value = Entry> {
    let short = || proptest::collection::vec(any::<u8>(), 0..2000);
    // Up to several chunks.
    let long = (any::<u8>(), 0..2_000_000_usize).prop_map(|(step, length)| {
        (0..length)
            .map(|at| (at >> 9).to_le_bytes()[0] ^ step)
            .collect()
    });
    prop_oneof![
        6 => short().prop_map(|content| ("100644".to_owned(), content)),
        2 => short().prop_map(|content| ("100755".to_owned(), content)),
        1 => long.prop_map(|content| ("100644".to_owned(), content)),
        2 => path().prop_map(|target| ("120000".to_owned(), target)),
    ]
}

/// Trees without a path that is both a file and a directory.
fn tree() -> impl Strategy<Value = Tree> {
    proptest::collection::btree_map(path(), entry(), 1..60).prop_map(|entries| {
        let mut tree = Tree::new();
        for (path, entry) in entries {
            // In sorted order, a file comes before all paths below it.
            let is_below_a_file = (1..path.len())
                .filter(|&at| path[at] == b'/')
                .any(|at| tree.contains_key(&path[..at]));
            if !is_below_a_file {
                tree.insert(path, entry);
            }
        }
        tree
    })
}

#[test]
fn any_tree_is_shown_as_git_has_it() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    std::fs::create_dir_all(site.upstreams()).unwrap();
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let number = AtomicU32::new(0);
    let config = Config {
        cases: cases(),
        failure_persistence: None,
        max_shrink_iters: 30,
        ..Config::default()
    };

    let outcome = TestRunner::new(config).run(&(tree(), any::<Index>()), |(tree, index)| {
        let name = format!("case{}", number.fetch_add(1, Ordering::Relaxed));
        let repo = push_tree(&site, &name, &tree);
        compare(&mount, &format!("local/{name}"), &repo, index);
        Ok(())
    });

    outcome.unwrap();
}

/// Creates a repository with this tree, and pushes it.
fn push_tree(site: &Site, name: &str, tree: &Tree) -> GitRepo {
    let mut repo = site.repo(name);
    for (path, (mode, content)) in tree {
        let path = OsStr::from_bytes(path);
        if mode == "120000" {
            let link = repo.work.join(path);
            std::fs::create_dir_all(link.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(OsStr::from_bytes(content), link).unwrap();
            continue;
        }
        repo.write(path, content);
        let mode = u32::from_str_radix(mode, 8).unwrap() & 0o777;
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(repo.work.join(path), permissions).unwrap();
    }
    repo.commit("a tree");
    repo.push();
    repo
}

fn compare(mount: &MountProcess, name: &str, repo: &GitRepo, index: Index) {
    mount.cli(&["prefetch", name]);
    let mounted = mount.repo(name);
    let expected = tree_in_git(&repo.upstream);

    // First a read in the middle of each file, before any file is read from its start.
    for (path, (mode, content)) in &expected {
        if mode == "120000" || content.is_empty() {
            continue;
        }
        let at = index.index(content.len());
        let mut found = vec![0; (content.len() - at).min(70_000)];
        let file = std::fs::File::open(mounted.join(OsStr::from_bytes(path))).unwrap();
        file.read_exact_at(&mut found, at as u64).unwrap();
        assert!(content[at..].starts_with(&found), "{path:?} from {at}");
    }
    let mut shown = Tree::new();
    read_mounted_tree(&mounted, &mut Vec::new(), &mut shown);
    let (shown_paths, expected_paths): (Vec<_>, Vec<_>) =
        (shown.keys().collect(), expected.keys().collect());
    assert_eq!(shown_paths, expected_paths);
    for (path, entry) in &expected {
        assert!(shown[path] == *entry, "{path:?} differs");
    }
    assert_eq!(git(&mounted, &["status", "--porcelain"]), "");
    assert!(try_git(&mounted, &["fsck", "--full"]).status.success());
}

/// Returns the tree of HEAD, from `git ls-tree` and `git cat-file`.
fn tree_in_git(upstream: &Path) -> Tree {
    let listed = try_git(upstream, &["ls-tree", "-r", "-z", "HEAD"]).stdout;
    let lines = listed
        .split(|&byte| byte == 0)
        .filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let tab = line.iter().position(|&byte| byte == b'\t').unwrap();
            let meta = String::from_utf8(line[..tab].to_vec()).unwrap();
            let [mode, "blob", id] = meta.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{meta}");
            };
            let content = try_git(upstream, &["cat-file", "blob", id]).stdout;
            (line[tab + 1..].to_vec(), (mode.to_owned(), content))
        })
        .collect()
}

/// Adds all files and links below `directory`, except `.git`, to `tree`. `prefix` is the path of
/// `directory` in the repository.
fn read_mounted_tree(directory: &Path, prefix: &mut Vec<OsString>, tree: &mut Tree) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if prefix.is_empty() && entry.file_name() == ".git" {
            continue;
        }
        prefix.push(entry.file_name());
        let metadata = std::fs::symlink_metadata(entry.path()).unwrap();
        if metadata.is_dir() {
            read_mounted_tree(&entry.path(), prefix, tree);
        } else {
            let path = prefix.join(OsStr::new("/")).into_vec();
            let shown = if metadata.is_symlink() {
                let target = std::fs::read_link(entry.path()).unwrap();
                ("120000".to_owned(), target.into_os_string().into_vec())
            } else {
                let is_executable = metadata.permissions().mode() & 0o111 != 0;
                let mode = if is_executable { "100755" } else { "100644" };
                (mode.to_owned(), std::fs::read(entry.path()).unwrap())
            };
            tree.insert(path, shown);
        }
        prefix.pop();
    }
}
