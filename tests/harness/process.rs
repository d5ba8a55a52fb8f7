//! Starts the programs of this workspace, and ends them by their process ids.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::bytes_below;
use crate::disk::write_file;
use crate::s3::{ask, store_tables};
use crate::wait::{pause, wait_until};

/// Returns the path of a program of this workspace, which `cargo build --bins` puts beside the
/// tests.
pub fn binary(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().unwrap().parent().unwrap().join(name);
    assert!(
        path.exists(),
        "{} is missing: run cargo build --bins",
        path.display()
    );
    path
}

/// Runs `cachewfs` and returns its output.
pub fn run(arguments: &[&str]) -> Output {
    Command::new(binary("cachewfs"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// A process that is ended when this is dropped: with SIGTERM, or after ten seconds with SIGKILL.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        // An error means that the process has already ended.
        kill_process(pid.unwrap(), signal).ok();
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// Waits until the process has ended. Returns its exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        wait_until("a process has ended", || self.has_ended());
        self.0.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        for _ in 0..500 {
            if self.has_ended() {
                return;
            }
            pause();
        }
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A running `cachewfsd` with its own configuration file.
#[derive(Debug)]
pub struct DaemonProcess {
    process: Process,
    /// The command line in front of `cachewfsd`; empty if it is started directly.
    wrapper: Vec<String>,
    config: PathBuf,
    log: PathBuf,
    address: SocketAddr,
}

impl DaemonProcess {
    /// Starts a daemon that keeps its data in `directory` and mirrors the repositories below
    /// `upstreams` as `local/…`. Returns when the daemon accepts connections.
    pub fn start(directory: &Path, upstreams: &Path) -> Self {
        Self::start_with_tables(directory, upstreams, "")
    }

    /// Starts a daemon as [`Self::start`] does, with `tables` at the end of its configuration file.
    pub fn start_with_tables(directory: &Path, upstreams: &Path, tables: &str) -> Self {
        Self::start_with_config(
            directory,
            upstreams,
            ("fetch_interval = \"500ms\"\n", tables),
        )
    }

    /// Starts a daemon as [`Self::start`] does, with top-level `keys` and with `tables` in its
    /// configuration file.
    pub fn start_with_config(
        directory: &Path,
        upstreams: &Path,
        (keys, tables): (&str, &str),
    ) -> Self {
        let address = free_address();
        let text = format!(
            "data_dir = \"{}\"\npublish_delay = \"0s\"\n{keys}\
             [upstreams]\nlocal = \"file://{}\"\n{tables}\n{}",
            directory.join("data").display(),
            upstreams.display(),
            // A test may configure a store of its own.
            if tables.contains("[store") {
                String::new()
            } else {
                store_tables(directory)
            }
        );
        Self::launch(directory, (&[], address), &text)
    }

    /// Starts a daemon that listens on `address`, with `text` as the rest of its configuration
    /// file. If the port is 0, the daemon chooses one, and can't be started again.
    ///
    /// If `wrapper` isn't empty, it is a command that executes the daemon, like `ip netns exec
    /// NAME`. The configuration file and the log are in `directory`. Returns when the daemon
    /// accepts connections.
    pub fn launch(directory: &Path, (wrapper, address): (&[&str], SocketAddr), text: &str) -> Self {
        let config = directory.join("cachewfsd.toml");
        write_file(&config, format!("listen = \"{address}\"\n{text}"));
        let log = directory.join("log");
        let wrapper: Vec<_> = wrapper.iter().map(|&word| word.to_owned()).collect();
        let process = spawn(&wrapper, (&config, &log));
        let mut daemon = Self {
            process,
            wrapper,
            config,
            log,
            address,
        };
        daemon.wait_until_ready();
        daemon
    }

    fn wait_until_ready(&mut self) {
        let (process, address) = (&mut self.process, &mut self.address);
        let log = &self.log;
        wait_until("the daemon answers", || {
            let log = || fs::read_to_string(log).unwrap_or_default();
            assert!(!process.has_ended(), "the daemon ended; its log: {}", log());
            if address.port() == 0 {
                *address = served_address(&log()).unwrap_or(*address);
            }
            address.port() != 0 && TcpStream::connect(*address).is_ok()
        });
    }

    /// Returns the daemon's base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the address that the daemon listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the daemon's log, of all its runs.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Returns the value of a sample of `/metrics`, or `None` if there is no such sample. `sample`
    /// is written as on that page: `name{label="value"}`.
    pub fn metric(&self, sample: &str) -> Option<u64> {
        let page = ask(self.address, "GET", "/metrics").unwrap();
        let value = page.lines().find_map(|line| line.strip_prefix(sample));
        value.map(|value| value.trim().parse().unwrap())
    }

    /// Returns the CPU time that the daemon has used so far, without that of the programs it
    /// started.
    pub fn cpu_time(&self) -> Duration {
        /// The unit of times in `/proc`: `USER_HZ` is 100 on Linux.
        const TICK: Duration = Duration::from_millis(10);
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.0.id())).unwrap();
        // proc_pid_stat(5): field 2, the program's name in parentheses, may contain spaces. The
        // user time and the system time are fields 14 and 15.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let times = fields.split_whitespace().skip(11).take(2);
        TICK * times.map(|time| time.parse::<u32>().unwrap()).sum::<u32>()
    }

    /// Returns how many bytes the daemon has written to its store so far. If the store is in a
    /// bucket, these are the bytes that the daemon sent to S3.
    pub fn stored_bytes(&self) -> u64 {
        let store = self.config.with_file_name("data/store");
        let sent = self.metric("cachewfsd_s3_bytes_total{direction=\"up\"}");
        sent.unwrap_or_else(|| bytes_below(&store))
    }

    /// Sends a signal to the daemon.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Ends the daemon with SIGTERM. Returns its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        self.process.signal(Signal::TERM);
        self.process.wait()
    }

    /// Ends the daemon with SIGKILL.
    pub fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait();
    }

    /// Starts the daemon again after it has ended, with the same address, configuration and data.
    pub fn restart(&mut self) {
        self.process = spawn(&self.wrapper, (&self.config, &self.log));
        self.wait_until_ready();
    }
}

fn spawn(wrapper: &[String], (config, log): (&Path, &Path)) -> Process {
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(log)
        .unwrap();
    let wrapper: Vec<_> = wrapper.iter().map(String::as_str).collect();
    let mut command = wrapped(&wrapper, "cachewfsd");
    command
        .arg("--config")
        .arg(config)
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    Process::spawn(&mut command)
}

/// Returns a command that starts a program of this workspace. If `wrapper` isn't empty, it is a
/// command that executes the program.
pub(crate) fn wrapped(wrapper: &[&str], program: &str) -> Command {
    let program = binary(program);
    let Some((first, others)) = wrapper.split_first() else {
        return Command::new(program);
    };
    let mut command = Command::new(first);
    command.args(others).arg(program);
    command
}

/// Returns the IPv4 address that a daemon with this log listens on, or `None` if it doesn't listen
/// yet.
pub fn served_address(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once("Serving http://")?;
    let is_end = |letter: char| !letter.is_ascii_digit() && !".:".contains(letter);
    let (address, _) = rest.split_once(is_end)?;
    Some(address.parse().unwrap())
}

/// Returns an address of the loopback interface with a free port.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}
