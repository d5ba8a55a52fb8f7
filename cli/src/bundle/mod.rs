//! The text of `cachewfs report`. Each line of it goes through [`Redactor`].

mod redact;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use cachewfs_format::printable;
use cachewfs_fuse::mount_table_lines;
use redact::Redactor;
use serde::Serialize;

use crate::commands::doctor::Findings;
use crate::doctor::{MountState, Subject, distribution, examine, git_version, kernel};

/// The contents of a report, for people.
pub(crate) const SECTIONS: [&str; 6] = [
    "versions of cachewfs, kernel, git and the distribution",
    "the environment variables that cachewfs and git obey",
    "the findings of cachewfs doctor",
    "cachewfs in the mount table and in /etc/fstab",
    "status and options of each mount",
    "the end of each mount's log",
];
/// At most this many bytes of the end of a log are read.
const MAX_LOG_LEN: u64 = 256 << 10;
/// At most this many lines of a log.
const MAX_LOG_LINES: usize = 500;
/// At most this many characters in a line.
const MAX_LINE_LEN: usize = 10_000;
/// The environment variables in a report.
const VARIABLES: [&str; 19] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "XDG_CACHE_HOME",
    "CACHEWFS_LOG",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "FUSERMOUNT_PATH",
    "LANG",
    "container",
];

/// A report that is being put together.
#[derive(Debug)]
pub(crate) struct Bundle {
    redactor: Redactor,
    lines: Vec<String>,
    /// How many secrets were replaced.
    pub(crate) redacted: usize,
}

impl Bundle {
    /// Collects everything about `subject`. The token in `token_file` is one more secret.
    pub(crate) fn of(subject: &Subject, token_file: Option<&Path>) -> Self {
        let options = subject
            .mounts
            .iter()
            .filter_map(|mount| mount.options.as_ref());
        let token_files = options.filter_map(|options| options.token_file.as_deref());
        let mut bundle = Self {
            redactor: Redactor::new(token_files.chain(token_file)),
            lines: Vec::new(),
            redacted: 0,
        };
        bundle.add_versions();
        bundle.section("environment");
        for name in VARIABLES {
            if let Some(value) = std::env::var_os(name) {
                bundle.line(&format!("{name}={}", value.display()));
            }
        }
        bundle.section("doctor");
        let checks: Vec<_> = examine(subject, &[]).collect();
        bundle.json(&Findings::from(checks));
        bundle.section("mount table");
        for line in mount_table_lines().unwrap_or_default() {
            bundle.line(&line);
        }
        bundle.section("/etc/fstab");
        let fstab = std::fs::read_to_string("/etc/fstab").unwrap_or_default();
        for line in fstab.lines().filter(|line| line.contains("cachewfs")) {
            bundle.line(line);
        }
        for mount in &subject.mounts {
            bundle.add_mount(mount);
        }
        bundle
    }

    /// Returns the report, with a list of its contents in front.
    pub(crate) fn text(&self) -> String {
        let contents = SECTIONS.map(|section| format!("- {section}\n")).concat();
        let lines = self.lines.join("\n");
        let redacted = self.redacted;
        format!(
            "A report of cachewfs, with:\n{contents}\n{redacted} secrets were replaced by ***: \
             tokens, passwords, queries of URLs, headers with credentials.\n{lines}\n"
        )
    }

    fn add_versions(&mut self) {
        self.section("versions");
        self.line(concat!("cachewfs ", env!("CARGO_PKG_VERSION")));
        self.line(&format!("Linux {} {}", kernel(), std::env::consts::ARCH));
        self.line(&git_version().unwrap_or("git can't be run".to_owned()));
        self.line(&distribution().unwrap_or_default());
    }

    fn add_mount(&mut self, mount: &MountState) {
        let point = mount.mount_point.display();
        self.section(&format!("{point}: status"));
        match &mount.status {
            Ok(status) => self.json(status),
            Err(error) => self.line(&format!("{error:#}")),
        }
        let Some(options) = &mount.options else {
            return;
        };
        self.section(&format!("{point}: options"));
        self.json(options);
        self.section(&format!("{point}: log"));
        match &options.log {
            None => self.line("it was mounted without -o log=FILE"),
            Some(path) => match tail(path) {
                Ok(lines) => lines.iter().for_each(|line| self.line(line)),
                Err(error) => self.line(&format!("{}: {error}", path.display())),
            },
        }
    }

    fn section(&mut self, title: &str) {
        self.line("");
        self.line(&format!("== {title} =="));
    }

    fn json(&mut self, value: &impl Serialize) {
        let text = serde_json::to_string_pretty(value);
        let text = text.unwrap_or_else(|error| error.to_string());
        text.lines().for_each(|line| self.line(line));
    }

    fn line(&mut self, line: &str) {
        let (line, count) = self.redactor.redact(line);
        self.redacted += count;
        self.lines.push(printable(&line, MAX_LINE_LEN).into_owned());
    }
}

/// Returns the last lines of a file.
fn tail(path: &Path) -> std::io::Result<VecDeque<String>> {
    let mut file = File::open(path)?;
    let skipped = file.metadata()?.len().saturating_sub(MAX_LOG_LEN);
    file.seek(SeekFrom::Start(skipped))?;
    let mut reader = BufReader::new(file.take(MAX_LOG_LEN));
    if skipped > 0 {
        // The first line is cut off: a secret in it might not be recognised.
        reader.skip_until(b'\n')?;
    }
    let mut lines = VecDeque::new();
    for line in reader.split(b'\n') {
        lines.push_back(String::from_utf8_lossy(&line?).into_owned());
        if lines.len() > MAX_LOG_LINES {
            lines.pop_front();
        }
    }
    Ok(lines)
}
