//! Runs git: the only file that starts processes.
//!
//! Each command is a process group of its own with a hard time limit. The whole group is killed
//! when the limit is reached or the daemon stops. Each process has a memory limit (`memory.rs`).
//! git reads neither the system's nor the user's configuration.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Command;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::disk_full::is_disk_full;
use super::git_secrets::GitSecrets;
use super::memory::{MemoryWatch, default_limit};
use super::process::{MAX_OUTPUT_LEN, ProcessGroup, communicate};
use super::{GitError, GitReader, GitStream};
use crate::base::redact;
use crate::traces;

/// Prefixes of the environment variables of git that an operator may set: they say how to reach an
/// upstream, or trace git. All other variables of git are removed, because they would point git at
/// another repository or change what it does to a mirror.
const OPERATOR_VARIABLES: &[&str] = &[
    "GIT_ALLOW_PROTOCOL",
    "GIT_ASKPASS",
    "GIT_CURL_VERBOSE",
    "GIT_EXEC_PATH",
    "GIT_HTTP_",
    "GIT_PROTOCOL_FROM_USER",
    "GIT_PROXY_",
    "GIT_SSH",
    "GIT_SSL_",
    "GIT_TRACE",
];

/// Variables that every git command gets. Versions of git differ in their defaults, and each
/// version ignores the variables that it doesn't know.
const FIXED_VARIABLES: &[(&str, &str)] = &[
    ("GIT_ATTR_NOSYSTEM", "1"),
    // git 2.43.0 would look up each commit of the commit-graph in the packs, too.
    ("GIT_COMMIT_GRAPH_PARANOIA", "0"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    // git 3.0 would use SHA-256 for a new repository, and store refs in tables. The daemon itself
    // reads and publishes the files of a mirror, so their format must not change.
    ("GIT_DEFAULT_HASH", "sha1"),
    ("GIT_DEFAULT_REF_FORMAT", "files"),
    // A snapshot contains the objects themselves, not their replacements.
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("LC_ALL", "C"),
];

/// Returns whether git gets the variable `name` from the daemon's environment.
fn is_kept(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let starts = |prefix: &str| name.starts_with(prefix.as_bytes());
    !starts("GIT_") || OPERATOR_VARIABLES.iter().copied().any(starts)
}

/// How git is run; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Git {
    program: Arc<Path>,
    /// The file in the data directory that git reads in place of the user's configuration. The
    /// daemon writes it. It may include a file of the operator's.
    global_config: Arc<PathBuf>,
    /// Memory that each process may allocate, in bytes.
    memory_limit: u64,
    stop: CancellationToken,
    runtime: Handle,
}

impl Git {
    /// Creates a `Git` whose commands run in the caller's runtime and are killed by `stop`.
    pub(crate) fn new(global_config: PathBuf, stop: CancellationToken) -> Self {
        Self {
            program: Path::new("git").into(),
            global_config: Arc::new(global_config),
            memory_limit: default_limit(),
            stop,
            runtime: Handle::current(),
        }
    }

    /// Returns a copy whose commands are killed by `stop`.
    pub(crate) fn stopped_by(&self, stop: CancellationToken) -> Self {
        Self {
            stop,
            ..self.clone()
        }
    }

    /// Returns a copy that runs `program` in place of git.
    #[cfg(test)]
    pub(super) fn with_program(self, program: PathBuf) -> Self {
        Self {
            program: program.into(),
            ..self
        }
    }

    /// Returns a copy whose processes may allocate `memory_limit` bytes each.
    #[cfg(test)]
    pub(super) fn with_memory_limit(&self, memory_limit: u64) -> Self {
        Self {
            memory_limit,
            ..self.clone()
        }
    }

    /// Blocks until `future` is done. The thread must not be one of the runtime's own.
    pub(super) fn wait_for<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Waits for `future`. Returns `None` if the daemon stops first.
    pub(super) async fn unless_stopping<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.stop.run_until_cancelled(future).await
    }

    /// Returns whether the daemon is stopping, so that long work should end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Begins a command in the repository at `directory`.
    pub(crate) fn in_repository(&self, directory: &Path, subcommand: &str) -> GitCommand {
        let mut command = self.command(subcommand);
        command.repository = Some(directory.to_owned());
        command
    }

    /// Begins a command outside of any repository.
    pub(crate) fn command(&self, subcommand: &str) -> GitCommand {
        GitCommand {
            git: self.clone(),
            repository: None,
            config: Vec::new(),
            subcommand: subcommand.to_owned(),
            arguments: Vec::new(),
            variables: Vec::new(),
            input: StandardInput::Nothing,
            time_limit: Duration::from_mins(10),
        }
    }
}

enum StandardInput {
    Nothing,
    Bytes(Vec<u8>),
    File(File),
}

/// A git command that is being built. Its variables may be secret.
#[must_use]
pub(crate) struct GitCommand {
    git: Git,
    repository: Option<PathBuf>,
    config: Vec<String>,
    subcommand: String,
    arguments: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    input: StandardInput,
    time_limit: Duration,
}

impl std::fmt::Debug for GitCommand {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "GitCommand({})", self.subcommand)
    }
}

impl GitCommand {
    /// Adds arguments. They must not contain secrets: every user can see them in `/proc`.
    pub(crate) fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(
            arguments
                .into_iter()
                .map(|argument| argument.as_ref().to_owned()),
        );
        self
    }

    /// Sets a configuration key, as `-c` does.
    pub(crate) fn config(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.config.push(format!("{key}={value}"));
        self
    }

    /// Passes configuration keys through the environment, which other users can't read.
    pub(super) fn secrets(mut self, secrets: &GitSecrets) -> Self {
        for (name, value) in &secrets.variables {
            self = self.variable(name, value);
        }
        let pairs = &secrets.config;
        for (index, (key, value)) in pairs.iter().enumerate() {
            self = self
                .variable(format!("GIT_CONFIG_KEY_{index}"), key)
                .variable(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        self.variable("GIT_CONFIG_COUNT", pairs.len().to_string())
    }

    pub(crate) fn variable(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        let pair = (name.as_ref().to_owned(), value.as_ref().to_owned());
        self.variables.push(pair);
        self
    }

    pub(crate) fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = StandardInput::Bytes(bytes.into());
        self
    }

    pub(crate) fn input_file(mut self, file: File) -> Self {
        self.input = StandardInput::File(file);
        self
    }

    pub(crate) fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// Runs the command and returns its output.
    pub(crate) fn output(self) -> Result<Vec<u8>, GitError> {
        self.run(Stdio::piped())
    }

    /// Runs the command and returns its output as text, without white space at the ends.
    pub(crate) fn text(self) -> Result<String, GitError> {
        self.output()
            .map(|output| String::from_utf8_lossy(&output).trim().to_owned())
    }

    /// Runs the command and writes its output to `file`.
    pub(crate) fn output_to(self, file: File) -> Result<(), GitError> {
        self.run(file.into()).map(drop)
    }

    /// Runs the command and discards its output.
    pub(crate) fn effect(self) -> Result<(), GitError> {
        self.run(Stdio::null()).map(drop)
    }

    /// Starts the command and returns its output as a stream. The caller enforces the time limit,
    /// and ends the command by dropping the stream. Input must be nothing or a file.
    pub(crate) fn stream(mut self) -> Result<GitStream, GitError> {
        let stdin = match std::mem::replace(&mut self.input, StandardInput::Nothing) {
            StandardInput::File(file) => file.into(),
            StandardInput::Nothing | StandardInput::Bytes(_) => Stdio::null(),
        };
        let mut process = self.to_process(Stdio::piped());
        let command = self.subcommand;
        match process.stdin(stdin).spawn() {
            Ok(child) => {
                MemoryWatch::bound(&child, self.git.memory_limit);
                Ok(GitStream::new(command, ProcessGroup::of(&child), child))
            }
            Err(source) => Err(GitError::Spawn { command, source }),
        }
    }

    /// Starts the command and returns a reader of its output. Input must be nothing or a file.
    pub(crate) fn reader(self) -> Result<GitReader, GitError> {
        let (runtime, stop) = (self.git.runtime.clone(), self.git.stop.clone());
        let (command, limit) = (self.subcommand.clone(), self.time_limit);
        let stream = {
            // tokio can start a process only within a runtime.
            let _runtime = runtime.enter();
            self.stream()?
        };
        Ok(GitReader::new((runtime, stop), (command, stream), limit))
    }

    /// Runs the command. Blocks the thread, which must not be one of the runtime's own.
    fn run(self, stdout: Stdio) -> Result<Vec<u8>, GitError> {
        let runtime = self.git.runtime.clone();
        let span = traces::git_span(&self.subcommand);
        let output = runtime.block_on(self.run_in_runtime(stdout));
        match &output {
            Ok(_) => {}
            Err(GitError::Failed { status, .. }) => traces::note_exit(&span, status.code()),
            Err(error) => traces::note_error(&span, error.kind()),
        }
        output
    }

    fn to_process(&self, stdout: Stdio) -> Command {
        let mut process = Command::new(&*self.git.program);
        // Later values replace earlier ones: the command's variables win over the daemon's, and
        // these over the operator's. Only `secrets` may set the secret for upstream.
        for (name, _) in std::env::vars_os().filter(|(name, _)| !is_kept(name)) {
            process.env_remove(name);
        }
        process
            .envs(FIXED_VARIABLES.iter().copied())
            .env("GIT_CONFIG_GLOBAL", &*self.git.global_config)
            .env_remove("CACHEWFS_UPSTREAM_SECRET")
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(repository) = &self.repository {
            process.arg("--git-dir").arg(repository);
        }
        for setting in &self.config {
            process.arg("-c").arg(setting);
        }
        process
            .arg(&self.subcommand)
            .args(&self.arguments)
            .stdout(stdout)
            .stderr(Stdio::piped())
            // A group of its own: git starts helpers (`git-remote-https`, ssh), which would survive
            // if only git itself were killed.
            .process_group(0);
        process
    }

    async fn run_in_runtime(mut self, stdout: Stdio) -> Result<Vec<u8>, GitError> {
        let mut process = self.to_process(stdout);
        let command = self.subcommand;
        let (stdin, bytes) = match std::mem::replace(&mut self.input, StandardInput::Nothing) {
            StandardInput::Nothing => (Stdio::null(), None),
            StandardInput::Bytes(bytes) => (Stdio::piped(), Some(bytes)),
            StandardInput::File(file) => (file.into(), None),
        };
        let mut child = process
            .stdin(stdin)
            .spawn()
            .map_err(|source| GitError::Spawn {
                command: command.clone(),
                source,
            })?;
        // Every early return below drops `group` and so kills the processes. Only a process that
        // ended by itself is exempt (`disarm`): its id may belong to another process by then.
        let mut group = ProcessGroup::of(&child);
        let mut memory = MemoryWatch::bound(&child, self.git.memory_limit);
        let outcome = tokio::select! {
            outcome = tokio::time::timeout(
                self.time_limit,
                memory.during(communicate(&mut child, bytes)),
            ) => outcome,
            () = self.git.stop.cancelled() => {
                return Err(GitError::Stopped { command });
            }
        };
        let limit = self.time_limit;
        let exchanged = outcome.map_err(|_| GitError::TimedOut {
            command: command.clone(),
            limit,
        })?;
        let Ok((status, output, stderr)) = exchanged else {
            let source = exchanged
                .err()
                .unwrap_or_else(|| std::io::ErrorKind::Other.into());
            return Err(GitError::Pipe { command, source });
        };
        group.disarm();
        if output.len() as u64 > MAX_OUTPUT_LEN {
            return Err(GitError::TooMuchOutput { command });
        }
        if status.success() {
            return Ok(output);
        }
        let stderr = redact(String::from_utf8_lossy(&stderr).trim());
        let data_dir = self.git.global_config.parent();
        if data_dir.is_some_and(|directory| is_disk_full(&stderr, directory)) {
            return Err(GitError::DiskFull { command, stderr });
        }
        // git prints nothing if its exit code is merely the answer "no".
        if !stderr.is_empty() && memory.was_near_limit() {
            let limit = self.git.memory_limit;
            return Err(GitError::OutOfMemory {
                command,
                limit,
                stderr,
            });
        }
        Err(GitError::Failed {
            command,
            status,
            stderr,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(stop: &CancellationToken) -> Git {
        Git::new("/dev/null".into(), stop.clone())
    }

    /// A command whose child outlives it, unless the whole group is killed.
    fn endless(git: &Git, marker: &str) -> GitCommand {
        git.command("endless")
            .config("alias.endless", format!("!sleep {marker} & wait"))
    }

    fn is_running(marker: &str) -> bool {
        std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(Result::ok)
            .any(|process| {
                let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
                line == format!("sleep\0{marker}\0").as_bytes()
            })
    }

    async fn wait_until_gone(marker: &str) {
        for _ in 0..100 {
            if !is_running(marker) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("a child of git still runs");
    }

    #[test]
    fn only_variables_for_reaching_upstream_and_tracing_are_kept() {
        for kept in [
            "PATH",
            "HOME",
            "GIT_SSH_COMMAND",
            "GIT_SSL_CAINFO",
            "GIT_TRACE2",
        ] {
            assert!(is_kept(kept.as_ref()), "{kept}");
        }
        for removed in [
            "GIT_DIR",
            "GIT_REFERENCE_BACKEND",
            "GIT_CONFIG_COUNT",
            "GIT_NEW",
        ] {
            assert!(!is_kept(removed.as_ref()), "{removed}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_time_limit_kills_the_whole_group() {
        let command = endless(&git(&CancellationToken::new()), "61.0625")
            .time_limit(Duration::from_millis(300));

        let result = tokio::task::spawn_blocking(|| command.effect())
            .await
            .unwrap();

        assert!(
            matches!(result, Err(GitError::TimedOut { .. })),
            "{result:?}"
        );
        wait_until_gone("61.0625").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn stopping_the_daemon_kills_the_whole_group() {
        let stop = CancellationToken::new();
        let command = endless(&git(&stop), "62.0625");
        let running = tokio::task::spawn_blocking(|| command.effect());
        while !is_running("62.0625") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }

        stop.cancel();

        let result = running.await.unwrap();
        assert!(
            matches!(result, Err(GitError::Stopped { .. })),
            "{result:?}"
        );
        wait_until_gone("62.0625").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn stderr_is_kept_without_credentials() {
        let command = git(&CancellationToken::new()).command("complain").config(
            "alias.complain",
            "!echo 'no https://me:secret@x.org/y' >&2; false",
        );

        let result = tokio::task::spawn_blocking(|| command.effect())
            .await
            .unwrap();

        let text = result.unwrap_err().to_string();
        assert!(
            text.contains("no https://***@x.org/y") && !text.contains("secret"),
            "{text}"
        );
    }
}
