//! git's own server, as the comparison for benchmarks.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::process::{Process, free_address};
use crate::wait::wait_until;

/// A `git daemon` that serves every repository below a directory, also to partial clones.
#[derive(Debug)]
pub struct GitDaemon {
    /// Dropped to end the server.
    _process: Process,
    address: SocketAddr,
}

impl GitDaemon {
    /// Serves the repositories below `directory`. Returns when the server accepts connections.
    pub fn start(directory: &Path) -> Self {
        let address = free_address();
        let mut command = Command::new("git");
        command
            .args(["-c", "uploadpack.allowFilter=true"])
            .args(["-c", "safe.directory=*"])
            .args(["daemon", "--export-all", "--listen=127.0.0.1"])
            .arg(format!("--port={}", address.port()))
            .arg(format!("--base-path={}", directory.display()))
            .arg(directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = Process::spawn(&mut command);
        wait_until("git daemon answers", || TcpStream::connect(address).is_ok());
        Self {
            _process: process,
            address,
        }
    }

    /// Returns the address that the server listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
