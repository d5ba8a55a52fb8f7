//! Processes of the product, ended by their ids.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::bytes_below;
use crate::s3::{ask, store_tables};
use crate::wait::{pause, wait_until};

/// A program of this workspace, beside the tests: `cargo build --bins` makes it.
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

/// Runs `cachewfs`.
pub fn run(arguments: &[&str]) -> Output {
    Command::new(binary("cachewfs"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// A process that ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        // Fails for a process that has ended, which is as good.
        kill_process(pid.unwrap(), signal).ok();
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// Waits until it has ended; gives the exit code.
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

/// `cachewfsd`, with a configuration of its own.
#[derive(Debug)]
pub struct DaemonProcess {
    process: Process,
    wrapper: Vec<String>,
    config: PathBuf,
    log: PathBuf,
    address: SocketAddr,
}

impl DaemonProcess {
    /// Starts a daemon that keeps its data in `directory` and mirrors `local/…` from the
    /// repositories below `upstreams`; waits until it is ready.
    pub fn start(directory: &Path, upstreams: &Path) -> Self {
        Self::start_with_tables(directory, upstreams, "")
    }

    /// The same, with more tables in its configuration.
    pub fn start_with_tables(directory: &Path, upstreams: &Path, tables: &str) -> Self {
        Self::start_with_config(
            directory,
            upstreams,
            ("fetch_interval = \"500ms\"\n", tables),
        )
    }

    /// The same, with keys before the tables of its configuration, too.
    pub fn start_with_config(
        directory: &Path,
        upstreams: &Path,
        (keys, tables): (&str, &str),
    ) -> Self {
        let address = free_address();
        let text = format!(
            "data_dir = \"{}\"\npublish_delay = \"0s\"\n{keys}[upstreams]\nlocal = \"file://{}\"\n{tables}\n{}",
            directory.join("data").display(),
            upstreams.display(),
            // Some have a store of their own.
            if tables.contains("[store") {
                String::new()
            } else {
                store_tables(directory)
            }
        );
        Self::launch(directory, (&[], address), &text)
    }

    /// Starts a daemon that is configured by `text` and listens at `address`, by way of a program that
    /// becomes it (`ip netns exec …`), if one is given; waits until it is ready. Its log is in `directory`.
    pub fn launch(directory: &Path, (wrapper, address): (&[&str], SocketAddr), text: &str) -> Self {
        fs::create_dir_all(directory).unwrap();
        let config = directory.join("cachewfsd.toml");
        let text = format!("listen = \"{address}\"\n{text}");
        fs::File::create(&config)
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
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
        let address = self.address;
        let process = &mut self.process;
        let log = &self.log;
        wait_until("the daemon answers", || {
            let said = || fs::read_to_string(log).unwrap_or_default();
            assert!(!process.has_ended(), "the daemon ended: {}", said());
            TcpStream::connect(address).is_ok()
        });
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// A sample of `/metrics`, if it has it: `name{label="value"}`.
    pub fn metric(&self, sample: &str) -> Option<u64> {
        let page = ask(self.address, "GET", "/metrics").unwrap();
        let value = page.lines().find_map(|line| line.strip_prefix(sample));
        value.map(|value| value.trim().parse().unwrap())
    }

    /// What of the processors' time it has taken so far, without programs that it started.
    pub fn cpu_time(&self) -> Duration {
        /// Of a second, in what Linux tells programs.
        const TICK: Duration = Duration::from_millis(10);
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.0.id())).unwrap();
        // The name of the program may have spaces. After it come state, ten others, user and system.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let times = fields.split_whitespace().skip(11).take(2);
        TICK * times.map(|time| time.parse::<u32>().unwrap()).sum::<u32>()
    }

    /// What it has written to its store so far: to the bucket, if that is in one.
    pub fn stored_bytes(&self) -> u64 {
        let store = self.config.with_file_name("data/store");
        let sent = self.metric("cachewfsd_s3_bytes_total{direction=\"up\"}");
        sent.unwrap_or_else(|| bytes_below(&store))
    }

    /// Ends it with SIGTERM; gives its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        self.process.signal(Signal::TERM);
        self.process.wait()
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait();
    }

    /// Starts it again after it has ended, at the same address and with the same data.
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
    let mut words = wrapper.iter();
    let mut command = match words.next() {
        Some(program) => {
            let mut command = Command::new(program);
            command.args(words).arg(binary("cachewfsd"));
            command
        }
        None => Command::new(binary("cachewfsd")),
    };
    command
        .arg("--config")
        .arg(config)
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    Process::spawn(&mut command)
}

/// An address of the loopback interface that nobody listens at.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}
