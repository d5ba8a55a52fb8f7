//! Requests of git protocol version 2 as bytes, for tests without a git client.

use reqwest::{Client, Response};

/// Encodes each text as a packet, an empty text as a delimiter, and ends with a flush packet.
pub(crate) fn packets(texts: &[&str]) -> Vec<u8> {
    let packet = |text: &&str| match *text {
        "" => "0001".to_owned(),
        text => format!("{:04x}{text}", text.len() + 4),
    };
    let mut all: String = texts.iter().map(packet).collect();
    all.push_str("0000");
    all.into_bytes()
}

/// Returns a request that lists all refs.
pub(crate) fn ls_refs() -> Vec<u8> {
    packets(&["command=ls-refs\n", "", "symrefs\n"])
}

/// Returns a request that fetches a commit with all its history.
pub(crate) fn fetch(commit: &str) -> Vec<u8> {
    let want = format!("want {commit}\n");
    packets(&[
        "command=fetch",
        "",
        "no-progress",
        "ofs-delta",
        &want,
        "done\n",
    ])
}

/// The headers of a request of protocol version 2.
pub(crate) const HEADERS: [(&str, &str); 2] = [
    ("git-protocol", "version=2"),
    ("content-type", "application/x-git-upload-pack-request"),
];

/// Sends a request of protocol version 2.
pub(crate) async fn post(client: &Client, url: String, body: Vec<u8>) -> Response {
    let mut request = client.post(url).body(body);
    for (name, value) in HEADERS {
        request = request.header(name, value);
    }
    request.send().await.unwrap()
}
