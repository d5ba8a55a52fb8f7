//! The refs of an upstream that speaks HTTP, in one request.
//!
//! `git ls-remote` gets all refs that there are, those of all pull requests too, in two requests and a
//! process; protocol version 2 can be asked for prefixes (`gitprotocol-v2(5)`, `ls-refs`), and each of
//! its requests stands alone.

use std::time::Duration;

use tracing::Instrument as _;

use crate::mirror::{Upstream, mirrored_namespaces};
use crate::pkt_line;
use crate::traces;

/// A longer listing is left to git, in bytes.
const MAX_LEN: usize = 64 << 20;
const RESULT: &str = "application/x-git-upload-pack-result";

/// Lists HEAD and the mirrored refs of `upstream` as `git ls-remote --symref` does; `None` if that
/// doesn't work, for whatever reason: git finds out.
pub(super) async fn list(
    client: &reqwest::Client,
    upstream: &Upstream,
    namespaces: &[String],
    limit: Duration,
) -> Option<Vec<u8>> {
    let url = upstream.place();
    if !url.starts_with("http") {
        return None;
    }
    let authorization = upstream.authorization().await.ok()?;
    let mut request = client
        .post(format!("{url}/git-upload-pack"))
        .header("git-protocol", "version=2")
        .header("content-type", "application/x-git-upload-pack-request")
        .header("accept", RESULT)
        // Some servers tell git from browsers by this.
        .header("user-agent", "git/cachewfsd")
        .timeout(limit)
        .body(question(namespaces));
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    let span = traces::upstream_span("list refs", upstream.authority());
    let response = request.send().instrument(span.clone()).await;
    traces::note_answer(&span, &response);
    let mut response = response.ok()?;
    let kind = response.headers().get("content-type");
    if response.status() != 200 || kind.is_none_or(|kind| kind != RESULT) {
        return None;
    }
    let mut answer = Vec::new();
    while let Some(bytes) = response.chunk().await.ok()? {
        answer.extend_from_slice(&bytes);
        if answer.len() > MAX_LEN {
            return None;
        }
    }
    translate(&answer)
}

fn question(namespaces: &[String]) -> Vec<u8> {
    let mut packets = vec![b"0014command=ls-refs\n0001".to_vec()];
    packets.push(pkt_line::packet("symrefs\n"));
    packets.push(pkt_line::packet("ref-prefix HEAD\n"));
    packets.extend(
        mirrored_namespaces(namespaces)
            .map(|namespace| pkt_line::packet(&format!("ref-prefix {namespace}\n"))),
    );
    packets.push(b"0000".to_vec());
    packets.concat()
}

/// Makes lines as of `git ls-remote --symref` of an answer to `ls-refs`; `None` if it isn't whole.
fn translate(answer: &[u8]) -> Option<Vec<u8>> {
    let mut lines = Vec::new();
    for line in pkt_line::whole(answer)? {
        let mut words = line.trim_ascii_end().split(|&byte| byte == b' ');
        let (oid, name) = (words.next()?, words.next()?);
        let is_oid = oid.len() >= 40 && oid.iter().all(u8::is_ascii_hexdigit);
        if !is_oid {
            return None;
        }
        let target = words.find_map(|word| word.strip_prefix(b"symref-target:"));
        if let Some(target) = target.filter(|_| name == b"HEAD") {
            lines.extend([b"ref: ", target, b"\tHEAD\n"].concat());
        }
        lines.extend([oid, b"\t", name, b"\n"].concat());
    }
    Some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_listing_reads_as_that_of_ls_remote() {
        let oid = "1a".repeat(20);
        let lines = [
            format!("{oid} HEAD symref-target:refs/heads/main\n"),
            format!("{oid} refs/heads/main\n"),
            format!("{oid} refs/heads/alias symref-target:refs/heads/main\n"),
        ];
        let mut answer = lines.map(|line| pkt_line::packet(&line)).concat();

        assert_eq!(translate(&answer), None, "there is no end");
        answer.extend_from_slice(b"0000");
        let expected = format!(
            "ref: refs/heads/main\tHEAD\n{oid}\tHEAD\n{oid}\trefs/heads/main\n{oid}\trefs/heads/alias\n"
        );
        assert_eq!(translate(&answer), Some(expected.into_bytes()));
        assert_eq!(translate(b"0000"), Some(Vec::new()));
        for bad in [
            &b""[..],
            b"000dERR no\n0000",
            b"0008abcd0000",
            b"zzzz0000",
            b"00000000",
        ] {
            assert_eq!(translate(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_question_is_well_formed() {
        let question = question(&["refs/notes/".to_owned()]);

        let prefixes: Vec<_> = pkt_line::ref_prefixes(&question).collect();
        assert_eq!(
            prefixes,
            ["HEAD", "refs/heads/", "refs/tags/", "refs/notes/"]
        );
        assert!(pkt_line::depends_on_refs(&question));
    }
}
