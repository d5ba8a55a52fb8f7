//! `cachewfs doctor` and `cachewfs report` on machines on which something is wrong.
//!
//! The machines are real: mount and network namespaces, other files in `/etc`, servers that answer
//! something else.

mod daemon;
mod machine;
mod mounts;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cachewfs_tests::{Site, binary, write_file};
use serde_json::Value;

/// The findings of one run of `cachewfs doctor`.
#[derive(Debug)]
struct Findings {
    code: Option<i32>,
    checks: Vec<Value>,
}

/// A machine in a mount namespace of its own: shell commands that change it, and then the program.
#[derive(Debug)]
struct Machine {
    script: String,
    setup: Command,
    directory: PathBuf,
}

impl Machine {
    fn new(site: &Site) -> Self {
        let directory = site.path().join("machine");
        fs::create_dir_all(&directory).unwrap();
        Self {
            script: "set -e\n".to_owned(),
            setup: Command::new("unshare"),
            directory,
        }
    }

    /// Runs shell commands in the namespace, before the program.
    fn with(mut self, commands: &str) -> Self {
        self.script.push_str(commands);
        self.script.push('\n');
        self
    }

    /// Gives the machine an `/etc` of its own, with these files.
    fn with_etc(self, files: &[(&str, &str)]) -> Self {
        let etc = self.directory.join("etc");
        let copied = Command::new("cp").args(["-a", "/etc"]).arg(&etc).status();
        assert!(copied.unwrap().success());
        for (name, content) in files {
            // It may be a link, or a mount.
            fs::remove_file(etc.join(name)).ok();
            write_file(&etc.join(name), content);
        }
        let mount = format!("mount --bind {} /etc", etc.display());
        self.with(&mount)
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.setup.env(name, value);
        self
    }

    /// Gives the machine no network.
    fn without_network(mut self) -> Self {
        self.setup.arg("--net");
        self
    }

    fn doctor(&mut self, arguments: &[&str]) -> Findings {
        self.script.push_str("exec \"$@\"\n");
        self.setup.args(["--mount", "sh", "-c", &self.script, "sh"]);
        findings(&mut self.setup, &self.directory, arguments)
    }
}

/// Runs `cachewfs doctor` on this machine.
fn doctor(site: &Site, arguments: &[&str]) -> Findings {
    findings(&mut Command::new("env"), site.path(), arguments)
}

fn findings(command: &mut Command, directory: &Path, arguments: &[&str]) -> Findings {
    command
        .arg(binary("cachewfs"))
        .args(["doctor", "--json"])
        .args(arguments);
    let output = command.current_dir(directory).output().unwrap();
    let parsed: Result<Value, _> = serde_json::from_slice(&output.stdout);
    let json = parsed.unwrap_or_else(|error| panic!("{error}: {output:?}"));
    Findings {
        code: output.status.code(),
        checks: json["checks"].as_array().unwrap().clone(),
    }
}

impl Findings {
    /// Returns the check with this name. Panics if there is none, or several.
    fn of(&self, name: &str) -> &Value {
        let mut found = self.checks.iter().filter(|check| check["name"] == name);
        let check = found.next().unwrap_or_else(|| panic!("{name}: {self:?}"));
        assert!(found.next().is_none(), "{name}: {self:?}");
        check
    }

    fn outcome(&self, name: &str) -> &str {
        self.of(name)["outcome"].as_str().unwrap()
    }

    /// Panics unless the check has this outcome, and a reason with `text` in it.
    fn assert(&self, name: &str, outcome: &str, text: &str) {
        let check = self.of(name);
        assert_eq!(check["outcome"], outcome, "{check}");
        let reason = check["reason"].as_str().unwrap();
        assert!(reason.contains(text), "{check}");
    }

    /// Returns the names of the checks that found something wrong.
    fn wrong(&self) -> Vec<&str> {
        let wrong = self
            .checks
            .iter()
            .filter(|check| check["outcome"] == "wrong");
        wrong.map(|check| check["name"].as_str().unwrap()).collect()
    }
}
