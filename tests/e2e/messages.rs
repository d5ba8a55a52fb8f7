//! The messages of typical mistakes: a file below `tests/data/messages` has the whole text of each.
//!
//! With `CACHEWFS_WRITE_MESSAGES=1`, the test writes the files instead of comparing them.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cachewfs_tests::{MountProcess, Site, binary, can_mount, free_address, git, write_file};

/// The variable that makes the tests write the files.
const WRITE: &str = "CACHEWFS_WRITE_MESSAGES";

/// Runs commands in an empty place, and collects what they say.
struct Transcript<'a> {
    site: &'a Site,
    /// Texts that differ from run to run, and the words that stand for them.
    names: Vec<(String, &'static str)>,
    text: String,
}

impl<'a> Transcript<'a> {
    fn new(site: &'a Site) -> Self {
        Self {
            site,
            names: vec![(site.path().display().to_string(), "SITE")],
            text: String::new(),
        }
    }

    fn name(&mut self, text: &str, word: &'static str) {
        self.names.insert(0, (text.to_owned(), word));
    }

    /// Runs a program with arguments, in which words stand for the names. Notes its exit code and
    /// its standard error.
    fn run(&mut self, line: &str) {
        self.run_in(self.site.path(), line);
    }

    fn run_in(&mut self, directory: &Path, line: &str) {
        let mut words = line.split(' ');
        let program = words.next().unwrap();
        let arguments = words.map(|word| {
            let names = self.names.iter();
            names.fold(word.to_owned(), |word, (text, name)| {
                word.replace(name, text)
            })
        });
        let output = Command::new(binary(program))
            .args(arguments)
            .current_dir(directory)
            .env("RUST_BACKTRACE", "1")
            .env_remove("CACHEWFS_DAEMON")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let mut said = String::from_utf8(output.stderr).unwrap();
        for (text, word) in &self.names {
            said = said.replace(text, word);
        }
        let code = output.status.code().unwrap();
        writeln!(self.text, "$ {line}").unwrap();
        for said in said.lines() {
            let indent = if said.is_empty() { "" } else { "    " };
            writeln!(self.text, "{indent}{said}").unwrap();
        }
        writeln!(self.text, "[{code}]\n").unwrap();
    }

    /// Compares the messages with the file, or writes the file.
    fn check(&self, name: &str) {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("data/messages")
            .join(format!("{name}.txt"));
        if std::env::var_os(WRITE).is_some() {
            return write_file(&file, &self.text);
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        let different = expected
            .split("\n\n")
            .zip(self.text.split("\n\n"))
            .find(|(expected, said)| expected != said);
        if let Some((expected, said)) = different {
            panic!(
                "{} has\n\n{expected}\n\nbut it is\n\n{said}\n\nIf that is better, run this test \
                 with {WRITE}=1",
                file.display()
            );
        }
        assert_eq!(
            expected,
            self.text,
            "{} is longer or shorter",
            file.display()
        );
    }
}

#[test]
fn wrong_arguments() {
    let site = Site::default();
    let mut said = Transcript::new(&site);

    for line in [
        "cachewfs frobnicate",
        "cachewfs stauts",
        "cachewfs pin",
        "cachewfs clone https://github.com/org/repo --brnach main",
        "cachewfs prefetch github.com/org/repo --hot --all",
        "cachewfs mount",
        "cachewfs mount /mnt",
        "cachewfs mount http://h:8080",
        "cachewfs mount ftp://h /mnt",
        "cachewfs mount h:8080 /mnt",
        "cachewfs mount http://me:secret@h /mnt",
        "cachewfs mount --local /d http://h /mnt",
        "cachewfs mount --replace http://h /mnt",
        "cachewfs mount http://h /mnt -o alow_other",
        "cachewfs mount http://h /mnt -o cache_size=big",
        "cachewfs mount http://h /mnt -o read_timeout=soon",
        "cachewfs mount http://h /mnt -o hydrate=yes",
        "cachewfs mount --local /d --upstream github.com /mnt",
        "cachewfs mount --local /d --upstream github.com=gh /mnt",
        "cachewfs pin not-a-url",
        "cachewfs pin https://github.com",
        "cachewfs pin https://me:secret@github.com",
        "cachewfs clone ../other",
        "cachewfs restore github.com/org/repo",
        "cachewfs restore --daemon h:8080 github.com/org/repo",
        "cachewfs restore --daemon http://h github.com/org/repo --commit abc",
        "cachewfs pin --json",
        "cachewfs completions tcsh",
        "cachewfs man SITE/absent",
    ] {
        said.run(line);
    }

    said.check("wrong_arguments");
}

#[test]
fn wrong_configurations() {
    let site = Site::default();
    let mut said = Transcript::new(&site);

    said.run("cachewfsd --config SITE/absent.toml check-config");
    for text in [
        "listen = \"8080\"",
        "listne = \"127.0.0.1:8080\"",
        "listen = \"127.0.0.1:8080",
        "fetch_interval = 60",
        "fetch_interval = \"60\"",
        "fetch_interval = \"1ms\"",
        "[upstreams]\ngithub.com = \"https://github.com\"",
        "[upstreams]\n\"github.com\" = \"github.com\"",
        "[upstreams]\n\"github.com\" = \"https://\"",
        "[upstreams]\n\"https://github.com\" = \"https://github.com\"",
        "[store]\ndisk_bytes = \"10G\"",
        "[jobs]\nupdates = \"many\"",
        "[jobs]\nupdates = 0",
        "log = \"xml\"",
        "data_dir = \"\"",
        "data_dir = \"/dev/null/x\"",
        "[auth]\ntokens_file = \"/nonexistent\"",
        "[tls]\ncertificate = \"/nonexistent\"\nkey = \"/nonexistent\"",
        "[upstream_auth.\"github.com\"]\nusername = \"me\"",
        "[store.s3]\nbucket = \"\"",
    ] {
        write!(said.text, "{text}\n\n").unwrap();
        write_file(&site.path().join("c.toml"), text);
        said.run("cachewfsd --config SITE/c.toml check-config");
    }

    said.check("wrong_configurations");
}

#[test]
fn without_a_mount() {
    let site = Site::default();
    let mut said = Transcript::new(&site);
    let free = free_address();
    said.name(&free.to_string(), "ADDRESS");
    fs::create_dir(site.path().join("full")).unwrap();
    write_file(&site.path().join("full/file"), "x");

    for line in [
        "cachewfs status --mount SITE/nowhere",
        "cachewfs refresh local/project --mount SITE",
        "cachewfs refresh local/project --mount SITE --json",
        "cachewfs umount SITE",
        "cachewfs before-sleep SITE",
        "cachewfs mount --replace SITE",
        "cachewfs mount http://ADDRESS SITE/absent -o cache_dir=SITE/cache",
        "cachewfs mount http://ADDRESS SITE/full/file -o cache_dir=SITE/cache",
        "cachewfs mount http://ADDRESS SITE/full -o cache_dir=SITE/full/file",
        "cachewfs mount http://ADDRESS SITE/full -o cache_dir=SITE/cache,token_file=SITE/absent",
        "cachewfs mount http://ADDRESS SITE/full -o cache_dir=SITE/cache,log=SITE/absent/log",
        "cachewfs clone local/project SITE/full",
        "cachewfs restore --daemon http://ADDRESS local/project SITE/full",
        "cachewfs restore --daemon http://ADDRESS local/project SITE/restored",
    ] {
        said.run(line);
    }

    said.check("without_a_mount");
}

#[test]
fn with_mounts() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let mut said = Transcript::new(&site);
    let daemon = site.daemon();
    let free = free_address();
    let [first, second] = ["first", "second"].map(|name| site.path().join(name));
    let mount = MountProcess::start(&first, &daemon.url(), "hydrate=off");
    let away = MountProcess::start(&second, &format!("http://{free}"), "hydrate=off");
    let pid = mount.pid();
    for (text, word) in [
        (daemon.address().to_string(), "DAEMON"),
        (free.to_string(), "ADDRESS"),
        (format!("process {pid}"), "process PID"),
    ] {
        said.name(&text, word);
    }
    let head = git(&repo.work, &["rev-parse", "HEAD"]);
    said.name(head.trim(), "COMMIT");

    said.run("cachewfs -q clone local/project SITE/clone --mount SITE/first/mnt");
    for line in [
        "cachewfs -q clone local/project SITE/clone --mount SITE/first/mnt",
        "cachewfs -q clone local/project SITE/other --branch nope --mount SITE/first/mnt",
        "cachewfs -q pin local/absent --mount SITE/first/mnt",
        "cachewfs -q pin elsewhere.org/project --mount SITE/first/mnt",
        "cachewfs -q unpin local/project --mount SITE/first/mnt",
        "cachewfs -q mount --replace SITE/first/mnt -o allow_other",
        "cachewfs -q pin local/project --mount SITE/second/mnt",
        "cachewfs -q clone local/project SITE/third --mount SITE/second/mnt",
        "cachewfs -q umount SITE/first/mnt",
    ] {
        said.run(line);
    }
    let clone = site.path().join("clone");
    said.run_in(&clone, "cachewfs -q status");
    drop(away);

    said.check("with_mounts");
}
