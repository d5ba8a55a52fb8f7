//! Lists the refs of an upstream.
//!
//! `git ls-remote` starts a process, sends two requests, and gets all refs, also those of all pull
//! requests. With protocol version 2, a client can ask for prefixes (`gitprotocol-v2(5)`,
//! `ls-refs`), and each request stands alone. So the daemon sends one request itself to an upstream
//! that speaks HTTP. If that fails, git lists the refs, or finds out why they can't be listed.

use std::path::Path;
use std::time::Duration;

use cachewfs_format::ObjectId;
use tracing::Instrument as _;

use super::ask::ls_remote;
use super::head::Head;
use super::namespaces::{is_mirrored, mirrored_namespaces};
use super::refs::Ref;
use super::{Git, GitConfig, MirrorError, Upstream, pkt_line};
use crate::traces;

/// At most this many bytes of a response are read. If a listing is longer, git lists the refs.
const MAX_LEN: usize = 64 << 20;
const RESULT: &str = "application/x-git-upload-pack-result";

/// The refs that upstream lists, HEAD among them, as lines in the format of
/// `git ls-remote --symref`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listing(Vec<u8>);

impl Listing {
    /// Returns the HEAD of upstream.
    pub(super) fn head(&self) -> Head {
        Head::parse(&self.0)
    }

    /// Returns the mirrored refs, sorted by name. A detached HEAD is one of them, and comes first.
    pub(super) fn refs(&self, namespaces: &[String]) -> Vec<Ref<'_>> {
        let lines = self.0.split(|&byte| byte == b'\n').filter_map(|line| {
            let tab = line.iter().position(|&byte| byte == b'\t')?;
            Some((line.get(tab + 1..)?, line.get(..tab)?))
        });
        let is_detached = matches!(self.head(), Head::Detached { .. });
        // Two kinds of lines are no refs of a mirror. A line `ref: …` has no object id. A name that
        // ends with `^{}` has the object to which an annotated tag points.
        let is_shown = |(name, id): &Ref<'_>| {
            ObjectId::is_hex(id)
                && (is_mirrored(name, namespaces) && !name.ends_with(b"^{}")
                    || is_detached && *name == b"HEAD")
        };
        let mut refs: Vec<_> = lines.filter(is_shown).collect();
        refs.sort_by_key(|&(name, _)| name);
        // If upstream lists a name twice, git takes the first one, too.
        refs.dedup_by_key(|(name, _)| *name);
        refs
    }
}

/// Asks upstream for HEAD and all mirrored refs. Blocks the thread.
pub(crate) fn list_upstream(
    git: &Git,
    upstream: &Upstream,
    (mirror, namespaces): (&Path, &[String]),
    config: &GitConfig,
) -> Result<Listing, MirrorError> {
    // The operator's git configuration may rewrite URLs, and only git applies it.
    if config.config_file.is_none() {
        // If the request fails or takes too long, git lists the refs. Half of the timeout for the
        // request leaves the other half to git.
        let limit = config.ls_remote_timeout / 2;
        let listing = git.unless_stopping(list_by_http(upstream, namespaces, limit));
        if let Some(Some(listing)) = git.wait_for(listing) {
            return Ok(listing);
        }
    }
    let patterns = mirrored_namespaces(namespaces).map(|namespace| format!("{namespace}*"));
    let patterns: Vec<_> = patterns.collect();
    ls_remote(git, upstream, (mirror, &patterns), config).map(Listing)
}

/// Lists the refs with one request. Returns `None` on any failure, because git tries next.
async fn list_by_http(
    upstream: &Upstream,
    namespaces: &[String],
    limit: Duration,
) -> Option<Listing> {
    let url = upstream.current_url();
    if !url.starts_with("http") {
        return None;
    }
    let authorization = upstream.authorization().await.ok()?;
    let mut request = upstream
        .client()
        .post(format!("{url}/git-upload-pack"))
        .header("git-protocol", "version=2")
        .header("content-type", "application/x-git-upload-pack-request")
        .header("accept", RESULT)
        // Some servers tell git from browsers by the user agent.
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
    translate(&answer).map(Listing)
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

/// Converts a response to `ls-refs` to lines in the format of `git ls-remote --symref`. Returns
/// `None` if the response is malformed or incomplete.
fn translate(answer: &[u8]) -> Option<Vec<u8>> {
    let mut lines = Vec::new();
    for line in pkt_line::whole(answer)? {
        let mut words = line.trim_ascii_end().split(|&byte| byte == b' ');
        let (oid, name) = (words.next()?, words.next()?);
        if !ObjectId::is_hex(oid) {
            return None;
        }
        let target = words.find_map(|word| word.strip_prefix(b"symref-target:"));
        // Only HEAD's target is needed. A symbolic ref among the branches is compared by its
        // object.
        if let Some(target) = target.filter(|_| name == b"HEAD") {
            lines.extend([b"ref: ", target, b"\tHEAD\n"].concat());
        }
        lines.extend([oid, b"\t", name, b"\n"].concat());
    }
    Some(lines)
}

#[cfg(test)]
mod tests {
    use super::super::compare::differing;
    use super::super::query::HIDDEN_NAMESPACE;
    use super::*;

    #[test]
    fn only_mirrored_refs_are_compared() {
        let [one, two, three] = [1, 2, 3].map(|digit| digit.to_string().repeat(40));
        let upstream = format!(
            "ref: refs/heads/main\tHEAD\n{one}\tHEAD\n{one}\trefs/heads/main\n\
             ref: refs/heads/main\trefs/heads/alias\n{one}\trefs/heads/alias\n\
             {three}\trefs/heads/main\n{one}\trefs/remotes/x/refs/heads/y\n\
             {two}\trefs/tags/v1\n{one}\trefs/tags/v1^{{}}\n\
             {three}\trefs/pull/1/head\n{three}\trefs/notes/x\n{three}\trefs/cachewfs/x\n"
        );
        let branch = Listing(upstream.clone().into());
        let detached = upstream.split_once('\n').unwrap().1;
        let detached = Listing(detached.into());
        let of = |name: &'static str, id| -> Ref<'_> { (name.as_bytes(), str::as_bytes(id)) };
        let mirror = [
            of("refs/heads/alias", &one),
            of("refs/heads/main", &one),
            of("refs/tags/v1", &two),
        ];

        assert_eq!(branch.refs(&[]), mirror);
        let with_notes = branch.refs(&["refs/notes/".to_owned()]);
        let names = differing(&with_notes, &mirror);
        assert_eq!(names, [b"refs/notes/x".to_vec()].into());
        let names = differing(&mirror, &detached.refs(&[]));
        assert_eq!(names, [b"HEAD".to_vec()].into());
        let moved = [of("refs/heads/main", &two), of("refs/tags/v1", &two)];
        let names: Vec<_> = differing(&mirror, &moved).into_iter().collect();
        assert_eq!(names, [&b"refs/heads/alias"[..], b"refs/heads/main"]);
        let all = branch.refs(&["refs/".to_owned()]);
        assert!(
            all.iter()
                .all(|(name, _)| !name.starts_with(HIDDEN_NAMESPACE.as_bytes()))
        );
    }

    #[test]
    fn a_complete_listing_is_converted_to_the_format_of_ls_remote() {
        let oid = "1a".repeat(20);
        let lines = [
            format!("{oid} HEAD symref-target:refs/heads/main\n"),
            format!("{oid} refs/heads/main\n"),
            format!("{oid} refs/heads/alias symref-target:refs/heads/main\n"),
        ];
        let mut answer = lines.map(|line| pkt_line::packet(&line)).concat();

        assert_eq!(translate(&answer), None, "the listing has no end");
        answer.extend_from_slice(b"0000");
        let expected = format!(
            "ref: refs/heads/main\tHEAD\n{oid}\tHEAD\n{oid}\trefs/heads/main\n\
             {oid}\trefs/heads/alias\n"
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
    fn the_request_is_well_formed() {
        let question = question(&["refs/notes/".to_owned()]);

        let prefixes: Vec<_> = pkt_line::ref_prefixes(&question).collect();
        assert_eq!(
            prefixes,
            ["HEAD", "refs/heads/", "refs/tags/", "refs/notes/"]
        );
        assert!(pkt_line::depends_on_refs(&question));
    }
}
