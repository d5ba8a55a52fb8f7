//! Clients that hold connections open and send nothing on them, or hardly anything.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, interval, timeout};

use crate::support::test_daemon::*;

/// How long a test waits for the daemon to close a connection. Longer than all timeouts here.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Sends `head` and then a byte ten times a second. Returns how long the daemon kept the
/// connection.
async fn send_slowly(address: SocketAddr, head: &str) -> Duration {
    // Taken before the connection exists: the daemon's timer must not start before ours.
    let began = Instant::now();
    let (mut reading, mut writing) = TcpStream::connect(address).await.unwrap().into_split();
    writing.write_all(head.as_bytes()).await.unwrap();
    let writer = tokio::spawn(async move {
        let mut ticks = interval(Duration::from_millis(100));
        loop {
            ticks.tick().await;
            if writing.write_all(b"a").await.is_err() {
                return;
            }
        }
    });
    let mut rest = Vec::new();
    let ended = timeout(CLOSE_TIMEOUT, reading.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the daemon did not close the connection");
    writer.abort();
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_its_request_too_slowly_is_disconnected() {
    let daemon =
        TestDaemon::start_with(|config| config.head_timeout = Duration::from_secs(1)).await;
    let address = daemon.running.address;

    for head in [
        "",
        "GET /readyz HTTP/1.1\r\n",
        "GET /readyz HTTP/1.1\r\nhost: x\r\nx-a: ",
    ] {
        let took = send_slowly(address, head).await;
        assert!((1..10).contains(&took.as_secs()), "{head:?}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_after_its_last_response() {
    let daemon =
        TestDaemon::start_with(|config| config.head_timeout = Duration::from_secs(1)).await;
    let mut stream = TcpStream::connect(daemon.running.address).await.unwrap();

    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    // Before it becomes idle, the connection serves more than one request.
    for _ in 0..2 {
        stream.write_all(request).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.rotate_left(1);
            answer[11] = stream.read_u8().await.unwrap();
        }
        let mut body = [0; 3];
        stream.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"ok\n");
    }

    let end = timeout(CLOSE_TIMEOUT, stream.read(&mut [0])).await;
    assert!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
}
