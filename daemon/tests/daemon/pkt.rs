//! Requests of protocol version 2 as bytes, for tests that are their own git client.

/// Each text as a packet; an empty one is a delimiter. A flush ends it.
pub(crate) fn packets(texts: &[&str]) -> Vec<u8> {
    let packet = |text: &&str| match *text {
        "" => "0001".to_owned(),
        text => format!("{:04x}{text}", text.len() + 4),
    };
    let mut all: String = texts.iter().map(packet).collect();
    all.push_str("0000");
    all.into_bytes()
}

/// Lists all refs.
pub(crate) fn ls_refs() -> Vec<u8> {
    packets(&["command=ls-refs\n", "", "symrefs\n"])
}

/// Fetches all that a commit reaches.
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

/// The headers of such a request.
pub(crate) const HEADERS: [(&str, &str); 2] = [
    ("git-protocol", "version=2"),
    ("content-type", "application/x-git-upload-pack-request"),
];
