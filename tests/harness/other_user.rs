//! Runs the CLI and other programs as a user other than root.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::process::binary;
use crate::site::Site;

/// A user id that owns no processes and no files on this machine.
pub const USER: u32 = 64_999;

/// A copy of the CLI that every user may run, and a temporary directory that every user may write
/// to.
#[derive(Debug)]
pub struct OtherUser {
    program: PathBuf,
    /// The temporary directory.
    pub tmp: PathBuf,
    /// The user id.
    pub uid: u32,
}

impl OtherUser {
    /// Returns [`USER`], who may enter the directories of `site`.
    pub fn new(site: &Site) -> Self {
        let open = |path: &Path, mode| {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        };
        open(site.path(), 0o755);
        let program = site.path().join("cachewfs");
        fs::copy(binary("cachewfs"), &program).unwrap();
        open(&program, 0o755);
        let tmp = site.path().join("tmp");
        fs::create_dir(&tmp).unwrap();
        open(&tmp, 0o1777);
        let uid = USER;
        Self { program, tmp, uid }
    }

    /// Returns the user with this id, with the same program and directory.
    #[must_use]
    pub fn with_uid(&self, uid: u32) -> Self {
        Self {
            program: self.program.clone(),
            tmp: self.tmp.clone(),
            uid,
        }
    }

    /// Makes `command` run as the user, without a runtime directory.
    pub fn own<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .current_dir("/")
            .env_remove("XDG_RUNTIME_DIR")
            .env("TMPDIR", &self.tmp)
            .stdin(Stdio::null())
            .uid(self.uid)
            .gid(self.uid)
    }

    /// Runs the CLI, for a mount. Returns the exit code and the output.
    pub fn run(&self, arguments: &[&str], mount: &Path) -> (Option<i32>, String) {
        let mount = mount.display().to_string();
        self.run_plain(&[arguments, &["--mount", &mount]].concat())
    }

    /// Runs the CLI. Returns the exit code and the output.
    pub fn run_plain(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(&self.program);
        let output = self.own(&mut command).args(arguments).output().unwrap();
        (output.status.code(), said(&output))
    }
}

/// Returns all that a program printed.
pub fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}
