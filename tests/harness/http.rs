//! A minimal HTTP client. It tells incomplete answers apart from complete ones.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// At most this many bytes are read in search of the end of a head.
const MAX_HEAD: usize = 64 << 10;

/// An answer that was received completely.
#[derive(Clone, Debug)]
pub struct HttpAnswer {
    /// The status code.
    pub status: u16,
    /// The header fields; names are in lower case.
    pub headers: Vec<(String, String)>,
    /// The whole body, without chunked framing.
    pub body: Vec<u8>,
}

impl HttpAnswer {
    /// Returns the value of a header, or an empty string if the answer has no such header.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map_or("", |(_, value)| value)
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends a request without a body on a new connection, and returns the answer.
///
/// Fails if the body ends early or the answer takes longer than `limit`.
pub fn http_request(
    address: SocketAddr,
    (method, target): (&str, &str),
    headers: &[(&str, &str)],
    limit: Duration,
) -> io::Result<HttpAnswer> {
    let deadline = Instant::now() + limit;
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_nodelay(true)?;
    let mut request = format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\n");
    for (name, value) in headers {
        request.extend([*name, ": ", *value, "\r\n"]);
    }
    request.push_str("Content-Length: 0\r\nConnection: close\r\n\r\n");
    stream.set_write_timeout(Some(limit))?;
    stream.write_all(request.as_bytes())?;
    let (head, rest) = read_head(&mut stream, deadline)?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.get(9..12)?.parse().ok());
    let mut answer = HttpAnswer {
        status: status.ok_or_else(|| invalid("no status"))?,
        headers: lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
            .collect(),
        body: rest,
    };
    if method == "HEAD" || matches!(answer.status, 204 | 304) {
        return Ok(answer);
    }
    let len = answer.header("content-length").parse::<usize>().ok();
    while len.is_none_or(|len| answer.body.len() < len) {
        if read_some(&mut stream, &mut answer.body, deadline)? == 0 {
            break;
        }
    }
    if answer.header("transfer-encoding") == "chunked" {
        answer.body = join_chunks(&answer.body).ok_or(io::ErrorKind::UnexpectedEof)?;
    } else if len.is_some_and(|len| answer.body.len() != len) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer)
}

/// Reads the head up to its empty line. Returns the head, and the bytes of the body that came with
/// it.
pub(crate) fn read_head(
    stream: &mut TcpStream,
    deadline: Instant,
) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        if bytes.len() > MAX_HEAD {
            return Err(invalid("no end of the head"));
        }
        if read_some(stream, &mut bytes, deadline)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Appends the next bytes to `to`. Returns how many there were: 0 at the end of the stream.
pub(crate) fn read_some(
    stream: &mut TcpStream,
    to: &mut Vec<u8>,
    deadline: Instant,
) -> io::Result<usize> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    stream.set_read_timeout(Some(left))?;
    let mut buffer = vec![0; 64 << 10];
    let count = stream.read(&mut buffer)?;
    to.extend(buffer.iter().take(count));
    Ok(count)
}

/// Returns the content of a chunked body, or `None` if the body is incomplete.
fn join_chunks(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n")?;
        let len = str::from_utf8(body.get(..end)?).ok()?;
        let len = usize::from_str_radix(len.split(';').next()?.trim(), 16).ok()?;
        if len == 0 {
            return Some(content);
        }
        content.extend(body.get(end + 2..end + 2 + len)?);
        body = body.get(end + 2 + len + 2..)?;
    }
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
