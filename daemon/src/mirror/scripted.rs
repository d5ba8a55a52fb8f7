//! [`ScriptedGit`]: a git for tests, which answers as the test says.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::Git;

/// A program in place of git. It is run as git is, by [`Git`], and records its calls.
#[derive(Debug)]
pub(crate) struct ScriptedGit(TempDir);

impl ScriptedGit {
    /// Creates a git that does nothing, successfully.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for pipe in ["gate", "arrived"] {
            let mode = Mode::RUSR | Mode::WUSR;
            mknodat(CWD, directory.path().join(pipe), FileType::Fifo, mode, 0).unwrap();
        }
        fs::create_dir(directory.path().join("answers")).unwrap();
        Self(directory)
    }

    /// Returns how to run it. Its commands are killed by `stop`.
    pub(crate) fn git(&self, stop: CancellationToken) -> Git {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/mirror/scripted_git");
        // The program looks for its files beside the configuration.
        Git::new(self.path("config"), stop).with_program(program)
    }

    /// Returns the directory that answers know as `$here`.
    pub(crate) fn directory(&self) -> &Path {
        self.0.path()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes later calls of `git SUBCOMMAND` run `script`, a piece of sh.
    pub(crate) fn answers(&self, subcommand: &str, script: &str) {
        let new = self.path("new");
        let mut file = File::create(&new).unwrap();
        file.write_all(script.as_bytes()).unwrap();
        fs::rename(new, self.path("answers").join(subcommand)).unwrap();
    }

    /// Returns the calls of `git SUBCOMMAND` so far: the arguments, then the repository.
    pub(crate) fn calls(&self, subcommand: &str) -> Vec<String> {
        let calls = match fs::read_to_string(self.path("calls")) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            calls => calls.unwrap(),
        };
        let is_wanted = |call: &&str| call.split(' ').next() == Some(subcommand);
        calls.lines().filter(is_wanted).map(str::to_owned).collect()
    }

    /// Waits until a call comes to `hold` in its answer.
    pub(crate) async fn has_arrived(&self) {
        let path = self.path("arrived");
        // Opening waits for the call.
        let wait = move || File::open(path).unwrap().read_to_end(&mut Vec::new());
        tokio::task::spawn_blocking(wait).await.unwrap().unwrap();
    }

    /// Returns whether a call is in `hold`.
    pub(crate) fn is_held(&self) -> bool {
        self.gate().is_some()
    }

    /// Lets the call in `hold` go on.
    pub(crate) fn release(&self) {
        self.gate().unwrap().write_all(b"\n").unwrap();
    }

    /// Opens the gate for writing, if a call is there to read from it.
    fn gate(&self) -> Option<File> {
        let gate = open(
            self.path("gate"),
            OFlags::WRONLY | OFlags::NONBLOCK,
            Mode::empty(),
        );
        gate.ok().map(File::from)
    }
}
