//! Compares this crate with git. If this crate accepts an index, a path or the name of a ref, git
//! must read it in the same way. Most inputs are bytes that git itself would never write.

use std::io::Write as _;
use std::process::{Command, Stdio};

use cachewfs_format::{
    GitIndexWriter, GitPath, IndexEntry, ObjectId, index_part_entries, is_ref_name,
};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use tempfile::TempDir;

/// Returns `count` values of a strategy. Every run of the test gets the same values.
fn values<S: Strategy>(count: usize, strategy: &S) -> Vec<S::Value> {
    let mut runner = TestRunner::deterministic();
    (0..count)
        .map(|_| strategy.new_tree(&mut runner).unwrap().current())
        .collect()
}

/// A repository on which git runs with its strictest rules.
struct Repository {
    directory: TempDir,
}

impl Repository {
    /// Creates a repository whose object ids have `id_len` bytes.
    fn create(id_len: usize) -> Self {
        let directory = TempDir::new().unwrap();
        let repository = Self { directory };
        let format = if id_len == 32 { "sha256" } else { "sha1" };
        repository.git(&["init", "-q", "--object-format", format, "."], b"");
        repository
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.directory.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_INDEX_FILE", self.directory.path().join("index"))
            .args(["-c", "core.protectHFS=true", "-c", "core.protectNTFS=true"])
            .args(arguments)
            .current_dir(self.directory.path())
            .stderr(Stdio::null());
        command
    }

    /// Runs git, which must succeed. Returns its standard output.
    fn git(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let mut command = self.command(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "git {arguments:?} failed");
        output.stdout
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::File::create(path)
            .unwrap()
            .write_all(bytes)
            .unwrap();
    }

    /// Returns git's list of the entries of an index: `<mode> <id> <stage>\t<path>`, with a NUL
    /// after each.
    fn listed(&self, index: &[u8]) -> Vec<u8> {
        self.write("index", index);
        self.git(&["ls-files", "--stage", "-z"], b"")
    }
}

fn hex(id: &[u8]) -> String {
    ObjectId::from_bytes(id).unwrap().to_string()
}

/// Returns the list that git should print for these entries.
fn listing<'a>(entries: impl IntoIterator<Item = IndexEntry<'a>>) -> Vec<u8> {
    let line = |entry: IndexEntry<'_>| {
        let fields = format!("{:06o} {} 0\t", entry.mode, hex(entry.id));
        [fields.as_bytes(), entry.path, b"\0"].concat()
    };
    entries.into_iter().flat_map(line).collect()
}

/// An entry before it is encoded, with the errors that it may have.
#[derive(Clone, Debug)]
struct Draft {
    path: String,
    mode: u32,
    /// The flags without the length of the path.
    flags: u16,
    /// The number that is added to the length of the path in the flags.
    extra_len: u16,
    /// The bytes between flags and path.
    more_flags: Vec<u8>,
    /// The bytes after the path and the NULs that git writes.
    padding: Vec<u8>,
}

impl Draft {
    fn encode(&self, id_len: usize) -> Vec<u8> {
        let mut entry = vec![0; 40];
        entry[24..28].copy_from_slice(&self.mode.to_be_bytes());
        entry.extend(vec![0xA5; id_len]);
        let len = u16::try_from(self.path.len().min(0xFFF)).unwrap();
        entry.extend((self.flags | len.wrapping_add(self.extra_len)).to_be_bytes());
        entry.extend_from_slice(&self.more_flags);
        entry.extend_from_slice(self.path.as_bytes());
        entry.resize((entry.len() + 8) / 8 * 8, 0);
        entry.extend_from_slice(&self.padding);
        entry
    }
}

/// Chooses `usual`, the value that git writes, in 12 of 13 cases, and one of `odd` otherwise.
fn mostly<T: Clone + std::fmt::Debug + 'static>(usual: T, odd: Vec<T>) -> impl Strategy<Value = T> {
    prop_oneof![12 => Just(usual), 1 => select(odd)]
}

fn draft() -> impl Strategy<Value = Draft> {
    let long = |len: usize| "y/".repeat(len / 2) + &"y".repeat(len % 2);
    let path = select(vec![
        "a".to_owned(),
        "a-".to_owned(),
        "a/b".to_owned(),
        "a/b/c".to_owned(),
        "a.b/c".to_owned(),
        "b".to_owned(),
        "dir/.git/hooks/post-checkout".to_owned(),
        "dir/git~1".to_owned(),
        "dir/é\n\t\"".to_owned(),
        "../../x".to_owned(),
        long(0xFFE) + "z",
        long(0xFFF),
        long(0xFFE) + "zz",
    ]);
    let mode = mostly(
        0o100_644,
        vec![0o100_755, 0o120_000, 0o160_000, 0o40_000, 0o100_600, 0],
    );
    let flags = mostly(0, vec![0x1000, 0x2000, 0x4000, 0x8000]);
    let extra_len = mostly(0, vec![1, 8, 0xFFFF]);
    // The second value is that of an entry with git's skip-worktree flag.
    let more_flags = mostly(vec![], vec![vec![0, 0], vec![0x40, 0], b"xx".to_vec()]);
    let padding = mostly(
        vec![],
        vec![vec![0; 8], b"x".to_vec(), b"../x\0\0\0\0".to_vec()],
    );
    (path, mode, flags, extra_len, more_flags, padding).prop_map(
        |(path, mode, flags, extra_len, more_flags, padding)| Draft {
            path,
            mode,
            flags,
            extra_len,
            more_flags,
            padding,
        },
    )
}

/// Makes a part of an index: entries that are usually sorted, with up to one changed byte.
fn part(id_len: usize) -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2);
    let drafts = prop::collection::vec(draft(), 0..5);
    (drafts, any::<u8>(), changes).prop_map(move |(mut drafts, disorder, changes)| {
        if disorder > 20 {
            drafts.sort_by(|one, other| one.path.cmp(&other.path));
            drafts.dedup_by(|one, other| one.path == other.path);
        }
        let entries = drafts.iter().map(|draft| draft.encode(id_len));
        let mut part = entries.collect::<Vec<_>>().concat();
        let len = part.len();
        for (at, byte) in changes.into_iter().filter(|_| len > 0) {
            part[at.index(len)] = byte;
        }
        part
    })
}

fn check_index(id_len: usize, cases: usize) {
    let repository = Repository::create(id_len);
    let mut accepted = 0;
    for part in values(cases, &part(id_len)) {
        let Ok(entries) = index_part_entries(&part, id_len) else {
            continue;
        };
        accepted += 1;
        let expected = listing(entries.iter().copied());

        // git reads the part as it is, with a header and a zero checksum around it.
        let count = u32::try_from(entries.len()).unwrap().to_be_bytes();
        let as_given = [&b"DIRC\0\0\0\x02"[..], &count, &part, &vec![0; id_len]].concat();
        let listed = repository.listed(&as_given);
        assert!(listed == expected, "{}", part.escape_ascii());

        let mut writer = GitIndexWriter::new(id_len);
        writer.push_part(&part).unwrap();
        let index = writer.finish(true);
        assert!(listing(index.entries()) == expected);
        assert!(repository.listed(index.bytes()) == expected);
    }
    assert!((cases / 8..cases * 7 / 8).contains(&accepted), "{accepted}");
}

#[test]
fn git_reads_the_same_entries_in_an_accepted_index() {
    check_index(20, 200);
}

#[test]
fn git_reads_the_same_entries_with_ids_of_sha256() {
    check_index(32, 50);
}

/// Takes the entries of the index that git writes for `files`, and assembles an index of them. It
/// must be equal to git's, with its tree extension and its checksum.
fn check_as_git_writes_it(id_len: usize, files: &[&str]) {
    let repository = Repository::create(id_len);
    for file in files {
        repository.write(&format!("tree/{file}"), file.as_bytes());
    }
    let work_tree = repository.directory.path().join("tree");
    let at_tree = format!("--work-tree={}", work_tree.display());
    let git_dir = format!(
        "--git-dir={}",
        repository.directory.path().join(".git").display()
    );
    let git = |arguments: &[&str]| {
        let arguments = [&[&*git_dir, &*at_tree], arguments].concat();
        repository.git(&arguments, b"")
    };
    git(&["add", "-A", ":/"]);
    let tree = git(&["write-tree"]);
    git(&["read-tree", std::str::from_utf8(&tree).unwrap().trim_end()]);
    let written = std::fs::read(repository.directory.path().join("index")).unwrap();
    let tree_at = written
        .windows(4)
        .position(|bytes| bytes == b"TREE")
        .unwrap_or(written.len() - id_len);

    let mut writer = GitIndexWriter::new(id_len);
    writer.push_part(&written[12..tree_at]).unwrap();
    let index = writer.finish(true);

    assert_eq!(index.entries().count(), files.len());
    assert!(**index.bytes() == *written, "{files:?}");
}

#[test]
fn the_index_has_the_bytes_that_git_writes() {
    let files = [
        "a-b",
        "a/b/c",
        "a/b/d",
        "a/x",
        "a.b",
        "long-name/f",
        "long-nam/f",
        "z/z/z/z",
    ];
    for id_len in [20, 32] {
        check_as_git_writes_it(id_len, &files);
        check_as_git_writes_it(id_len, &files[2..3]);
    }
}

/// Makes components of a path that git refuses, or that are similar to these.
fn component() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        2 => select(vec![
            &b".git"[..], b".GIT", b"git~1", b".gitmodules", b"gitmod~1", b"GI7EBA~2", b"gi7~1234",
        ]),
        1 => select(vec![
            &b"."[..], b" ", b":", b"\\", b"x", b"~", b"1", b"modules", b"\xe2\x80\x8c",
            b"\xef\xbb\xbf", b"\xe2\x81\xaf", b"\xe2\x80\x8b", b"\xff", b"\xef\xbf\xbf", b"\xc3\xa9",
        ]),
    ];
    prop::collection::vec(piece, 1..4).prop_map(|pieces| pieces.concat())
}

#[test]
fn git_checks_out_every_accepted_path() {
    const MODES: [u32; 2] = [0o100_644, 0o120_000];
    let repository = Repository::create(20);
    let components = values(3000, &prop::collection::vec(component(), 1..3));
    // Each path is below a directory of its own, so that no path is a parent of another.
    let below_number = |(number, path): (usize, Vec<Vec<u8>>)| {
        let number = number.to_string().into_bytes();
        [vec![number], path].concat().join(&b'/')
    };
    let paths: Vec<Vec<u8>> = components
        .into_iter()
        .enumerate()
        .map(below_number)
        .collect();
    let oid = "a5".repeat(20);

    for mode in MODES {
        let line =
            |path: &Vec<u8>| [format!("{mode:o} {oid} 0\t").as_bytes(), path, b"\0"].concat();
        // git ignores the paths that it refuses.
        let input: Vec<u8> = paths.iter().flat_map(line).collect();
        std::fs::remove_file(repository.directory.path().join("index")).ok();
        repository.git(&["update-index", "-z", "--index-info"], &input);
        let listed = repository.git(&["ls-files", "-z"], b"");
        let listed: std::collections::HashSet<&[u8]> = listed.split(|&byte| byte == 0).collect();

        let is_accepted = |path: &&Vec<u8>| {
            GitPath::parse(path).is_ok_and(|path| path.check_out_as(mode).is_ok())
        };
        let accepted: Vec<&Vec<u8>> = paths.iter().filter(is_accepted).collect();
        assert!((300..2700).contains(&accepted.len()), "{}", accepted.len());
        for path in &accepted {
            assert!(
                listed.contains(&***path),
                "git refuses {:?}",
                path.escape_ascii().to_string()
            );
        }
        // git accepts a few paths more: those below a directory with a short name of `.gitmodules`,
        // and those after a backslash at the start of a component.
        let needless = listed.len() - 1 - accepted.len();
        assert!(
            needless < 200,
            "{needless} paths are refused that git accepts"
        );
    }
}

#[test]
fn ref_names_are_those_that_git_accepts() {
    let repository = Repository::create(20);
    let piece = prop_oneof![
        3 => select(vec!["a", "b", "/", "-", "é"]),
        1 => select(vec![
            ".", "..", "//", ".lock", "@", "{", "@{", "~", "^", ":", "?", "*", "[", "\\", " ", "\x7f", "\n",
            "\u{1}",
        ]),
    ];
    let name =
        prop::collection::vec(piece, 1..6).prop_map(|parts| format!("refs/{}", parts.concat()));

    for name in values(300, &name) {
        let status = repository
            .command(&["check-ref-format", &name])
            .status()
            .unwrap();
        assert_eq!(is_ref_name(name.as_bytes()), status.success(), "{name:?}");
    }
    assert!(!is_ref_name(b"HEAD"));
}
