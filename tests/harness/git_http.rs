//! An upstream that speaks HTTP: `git http-backend` behind a minimal HTTP server.

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::http::{read_head, read_some};

/// How long a client may take to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// An HTTP server of all repositories below a directory. Once dropped, it accepts no more
/// connections.
#[derive(Debug)]
pub struct GitHttpServer {
    address: SocketAddr,
    is_stopped: Arc<AtomicBool>,
}

impl GitHttpServer {
    /// Serves the repositories below `root` on a free port of the address `listen` of this machine.
    pub fn start(listen: IpAddr, root: &Path) -> Self {
        let listener = TcpListener::bind((listen, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let is_stopped = Arc::new(AtomicBool::new(false));
        let (stopped, root) = (Arc::clone(&is_stopped), root.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(stream), root) = (stream, root.clone()) else {
                    continue;
                };
                // An error means that the client has closed the connection.
                std::thread::spawn(move || serve(stream, &root).ok());
            }
        });
        Self {
            address,
            is_stopped,
        }
    }

    /// Returns the address of the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the base URL of the server.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for GitHttpServer {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        // Wakes the accepting thread, so that it sees the flag.
        TcpStream::connect(self.address).ok();
    }
}

/// Answers one request, then closes the connection.
fn serve(mut stream: TcpStream, root: &PathBuf) -> io::Result<()> {
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    let (head, mut body) = read_head(&mut stream, deadline)?;
    let mut lines = head.lines();
    let mut line = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (line.next().unwrap_or(""), line.next().unwrap_or(""));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let header = |name: &str| {
        let mut pairs = head.lines().filter_map(|line| line.split_once(':'));
        let found = pairs.find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value.trim()).to_owned()
    };
    let len = header("content-length").parse().unwrap_or(0);
    while body.len() < len && read_some(&mut stream, &mut body, deadline)? > 0 {}
    // `git http-backend` is a CGI program: the request is in its environment (RFC 3875).
    let mut backend = Command::new("git")
        .arg("http-backend")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_COUNT", "2")
        .env("GIT_CONFIG_KEY_0", "uploadpack.allowAnySHA1InWant")
        .env("GIT_CONFIG_VALUE_0", "true")
        .env("GIT_CONFIG_KEY_1", "safe.directory")
        .env("GIT_CONFIG_VALUE_1", "*")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", method)
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    // This can't deadlock: the body fits into the pipe, or the backend reads it before it answers.
    let written = backend.stdin.take().unwrap().write_all(&body);
    let output = backend.wait_with_output()?.stdout;
    written?;
    let end = output.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, content) = output.split_at(end.ok_or(io::ErrorKind::InvalidData)? + 4);
    let head = String::from_utf8_lossy(head);
    let status = head.lines().find_map(|line| line.strip_prefix("Status: "));
    let others = head.lines().filter(|line| !line.starts_with("Status: "));
    let others: String = others
        .filter(|line| !line.is_empty())
        .flat_map(|line| [line, "\r\n"])
        .collect();
    let status = status.unwrap_or("200 OK");
    let len = content.len();
    let head = format!("HTTP/1.1 {status}\r\n{others}Content-Length: {len}\r\n");
    stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
    stream.write_all(content)
}
