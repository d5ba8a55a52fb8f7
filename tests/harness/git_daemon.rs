//! git's own server, to compare with.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::process::{Process, free_address};
use crate::wait::wait_until;

/// `git daemon`, which serves every repository below a directory, whole or in part.
#[derive(Debug)]
pub struct GitDaemon {
    /// Ends it when dropped.
    _process: Process,
    address: SocketAddr,
}

impl GitDaemon {
    /// Serves what is below `directory`; waits until it answers.
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

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
