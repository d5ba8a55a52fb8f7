//! Runs stock git, and makes repositories with it.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::disk::write_file;

/// The file that takes the place of the user's `~/.gitconfig`.
const GIT_CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/xdg/git/config");
/// A value of `XDG_CONFIG_HOME` with which git finds [`GIT_CONFIG`]: git-lfs runs git without the
/// `GIT_…` variables.
const CONFIG_HOME: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/xdg");

/// Runs git in `directory` without the configuration of the machine or its user. Returns git's
/// output. Panics with git's standard error if git fails.
pub fn git<A: AsRef<OsStr>>(directory: impl AsRef<Path>, arguments: &[A]) -> String {
    output_of(git_command(directory.as_ref()).args(arguments))
}

/// Runs git like [`git`], and returns its result also if git fails.
pub fn try_git<A: AsRef<OsStr>>(directory: &Path, arguments: &[A]) -> Output {
    git_command(directory).args(arguments).output().unwrap()
}

fn output_of(git: &mut Command) -> String {
    let output = git.output().unwrap();
    let arguments: Vec<_> = git.get_args().collect();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "git {arguments:?} failed: {stderr}"
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs git like [`git`], with `input` on its standard input.
pub fn git_with_input(directory: &Path, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = git_command(directory)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // On a thread: git may print more than a pipe holds before it has read all of its input.
    let feeding = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {arguments:?} failed");
    feeding.join().unwrap().unwrap();
    output.stdout
}

/// Runs git like [`git`]; authors and committers date their work `seconds` after a fixed time. So
/// commits that a test makes within one second still have an order.
pub fn git_at_time<A: AsRef<OsStr>>(directory: &Path, seconds: u64, arguments: &[A]) -> String {
    let date = format!("{} +0000", 1_700_000_000 + seconds);
    let mut git = git_command(directory);
    git.env("GIT_AUTHOR_DATE", &date)
        .env("GIT_COMMITTER_DATE", &date);
    output_of(git.args(arguments))
}

/// Creates a bare repository as the daemon creates mirrors: with loose refs and `packed-refs`,
/// whatever ref format git has by default. Its HEAD names `main`.
pub fn init_bare(directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    let init = git_command(directory)
        .args(["init", "-q", "--bare", "-b", "main"])
        .env("GIT_DEFAULT_REF_FORMAT", "files")
        .status();
    assert!(init.unwrap().success());
}

/// Returns a git command in `directory`, without the configuration of the machine or its user.
pub fn git_command(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", GIT_CONFIG)
        .env("XDG_CONFIG_HOME", CONFIG_HOME)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("LC_ALL", "C")
        .env("GIT_AUTHOR_NAME", "A")
        .env("GIT_AUTHOR_EMAIL", "a@example.com")
        .env("GIT_COMMITTER_NAME", "A")
        .env("GIT_COMMITTER_EMAIL", "a@example.com")
        .stdin(Stdio::null());
    command
}

/// Writes `count` git blobs into the repository at `directory` as loose objects. The content of
/// each is `prefix` and a number.
pub fn add_loose_objects(directory: &Path, prefix: &str, count: u32) {
    let files = tempfile::tempdir().unwrap();
    let mut paths = String::new();
    for number in 0..count {
        let path = files.path().join(number.to_string());
        write_file(&path, format!("{prefix} {number}"));
        paths.extend([path.to_str().unwrap(), "\n"]);
    }
    let arguments = ["hash-object", "-w", "--no-filters", "--stdin-paths"];
    git_with_input(directory, &arguments, paths.as_bytes());
}

/// A working copy and the bare upstream repository that it pushes to.
#[derive(Debug)]
pub struct GitRepo {
    /// The work tree.
    pub work: PathBuf,
    /// The bare repository that the daemon mirrors.
    pub upstream: PathBuf,
    commits: u64,
}

impl GitRepo {
    /// Creates a working copy at `work` and, unless it exists, an empty upstream at `upstream`.
    pub fn create(work: PathBuf, upstream: PathBuf) -> Self {
        fs::create_dir_all(&work).unwrap();
        fs::create_dir_all(&upstream).unwrap();
        if !upstream.join("HEAD").exists() {
            git(
                &upstream,
                &["init", "-q", "--bare", "--initial-branch=main"],
            );
        }
        git(&work, &["init", "-q", "--initial-branch=main"]);
        git(
            &work,
            &["remote", "add", "origin", &upstream.display().to_string()],
        );
        Self {
            work,
            upstream,
            commits: 0,
        }
    }

    /// Writes a file of the work tree, and creates its directories.
    pub fn write(&self, name: impl AsRef<OsStr>, content: &[u8]) {
        write_file(&self.work.join(name.as_ref()), content);
    }

    /// Writes a file of the work tree whose name is not UTF-8.
    pub fn write_with_raw_name(&self, name: &[u8], content: &[u8]) {
        self.write(OsStr::from_bytes(name), content);
    }

    /// Commits the whole work tree. Returns the commit's id.
    pub fn commit(&mut self, message: &str) -> String {
        self.commits += 1;
        git(&self.work, &["add", "--all"]);
        git_at_time(
            &self.work,
            self.commits,
            &["commit", "-q", "--allow-empty", "-m", message],
        );
        git(&self.work, &["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// Stores a git blob. Returns its id.
    pub fn store_blob(&self, content: &[u8]) -> String {
        let blob = git_with_input(&self.work, &["hash-object", "-w", "--stdin"], content);
        String::from_utf8(blob).unwrap().trim().to_owned()
    }

    /// Makes a commit whose tree git refuses to check out, and returns its id. On Windows, `git~1`
    /// is a short name of `.git`, so git accepts it nowhere (`core.protectNTFS`).
    pub fn commit_with_refused_tree(&self) -> String {
        let line = format!("100644 blob {}\tgit~1\n", self.store_blob(b"hi\n"));
        let tree = git_with_input(&self.work, &["mktree"], line.as_bytes());
        let tree = String::from_utf8(tree).unwrap();
        let commit = git(&self.work, &["commit-tree", "-m", "bad", tree.trim()]);
        commit.trim().to_owned()
    }

    /// Pushes all branches and tags.
    pub fn push(&self) {
        git(&self.work, &["push", "-q", "--force", "--all"]);
        git(&self.work, &["push", "-q", "--force", "--tags"]);
    }

    /// Adds `commits` commits that change files in seven directories, a branch and two tags.
    pub fn add_history(&mut self, commits: u32) {
        for number in 0..commits {
            let directory = number % 7;
            let text = format!("{number} line\n").repeat(200);
            self.write(
                format!("src/dir{directory}/file{}.txt", number % 31),
                text.as_bytes(),
            );
            self.write("README.md", format!("# version {number}\n").as_bytes());
            self.commit(&format!("change {number}"));
        }
        git(&self.work, &["branch", "topic", "HEAD~1"]);
        git(&self.work, &["tag", "light"]);
        git_at_time(
            &self.work,
            1,
            &["tag", "-a", "-m", "an annotated tag", "v1", "HEAD~1"],
        );
    }

    /// Writes files with unusual names, modes, line ends and attributes, and symbolic links.
    pub fn add_odd_files(&self) {
        self.write("with space/and 'quotes\" too", b"quoted\n");
        self.write("new\nline", b"newline in its name\n");
        self.write_with_raw_name(b"not-utf8-\xff\xfe", b"bytes\n");
        self.write("empty", b"");
        self.write("deep/er/and/deeper/file", b"deep\n");
        self.write("a-b", b"sorts before a/\n");
        self.write("a/b", b"sorts after a-b\n");
        self.write("run.sh", b"#!/bin/sh\necho ran\n");
        self.write("crlf.txt", b"line\r\n");
        self.write(".gitattributes", b"*.bat text eol=crlf\n");
        self.write("windows.bat", b"echo\n");
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(self.work.join("run.sh"), executable).unwrap();
        for (target, name) in [
            ("run.sh", "link"),
            ("missing", "dangling"),
            ("deep/er", "to-dir"),
        ] {
            std::os::unix::fs::symlink(target, self.work.join(name)).ok();
        }
    }
}

/// Panics unless the index in `git_directory` ends with the checksum of its other bytes, as
/// coreutils computes it.
pub fn assert_index_checksum(git_directory: &Path) {
    let mut index = fs::read(git_directory.join("index")).unwrap();
    let is_sha256 = fs::read_to_string(git_directory.join("config"))
        .unwrap()
        .to_lowercase()
        .contains("objectformat = sha256");
    let (program, len) = if is_sha256 {
        ("sha256sum", 32)
    } else {
        ("sha1sum", 20)
    };
    let checksum = index.split_off(index.len() - len);
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&index).unwrap();
    let printed = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let hex = printed.split(' ').next().unwrap_or_default();
    let byte = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16);
    let expected: Vec<_> = hex
        .as_bytes()
        .chunks(2)
        .map(|two| byte(two).unwrap())
        .collect();
    assert_eq!(checksum, expected, "the index ends with a wrong checksum");
}
