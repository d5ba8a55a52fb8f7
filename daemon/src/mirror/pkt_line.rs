//! The part of git's pkt-line framing (`gitprotocol-common(5)`) that the daemon reads and writes:
//! what a request asks for, and whether an answer is a refusal.
//!
//! All functions work on the beginning of a message, which may end in the middle of a packet.

/// Returns the payloads of the complete packets in `bytes`, without flush and delimiter packets.
fn payloads(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        loop {
            let (payload, rest) = split(bytes)?;
            bytes = rest;
            if let Some(payload) = payload {
                return Some(payload);
            }
        }
    })
}

/// Splits off the first packet. Returns `None` if it is incomplete or malformed; the payload is
/// `None` for a special packet (flush, delimiter, response end).
fn split(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (length, rest) = bytes.split_at_checked(4)?;
    let length = usize::from_str_radix(std::str::from_utf8(length).ok()?, 16).ok()?;
    match length.checked_sub(4) {
        None => Some((None, rest)),
        Some(length) => rest
            .split_at_checked(length)
            .map(|(payload, rest)| (Some(payload), rest)),
    }
}

/// Returns the payloads of a complete answer, or `None` if `bytes` is anything but data packets
/// followed by one flush packet.
pub(crate) fn whole(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut rest = bytes.strip_suffix(b"0000")?;
    let mut payloads = Vec::new();
    while !rest.is_empty() {
        let (payload, after) = split(rest)?;
        payloads.push(payload?);
        rest = after;
    }
    Some(payloads)
}

/// Returns `payload` as one packet.
pub(crate) fn packet(payload: &str) -> Vec<u8> {
    format!("{:04x}{payload}", payload.len() + 4).into_bytes()
}

/// Returns whether the answer to the request that begins with `bytes` depends on upstream's refs,
/// and not on objects alone. In protocol version 2, these are `ls-refs` and a fetch of refs by
/// name.
pub(crate) fn depends_on_refs(bytes: &[u8]) -> bool {
    let mut payloads = payloads(bytes);
    let is_listing = payloads
        .next()
        .is_some_and(|command| command.trim_ascii_end() == b"command=ls-refs");
    is_listing || payloads.any(|payload| payload.starts_with(b"want-ref "))
}

/// Returns the ref prefixes that an `ls-refs` request asks for.
pub(crate) fn ref_prefixes(bytes: &[u8]) -> impl Iterator<Item = &str> {
    payloads(bytes).filter_map(|payload| {
        let prefix = payload.strip_prefix(b"ref-prefix ")?;
        std::str::from_utf8(prefix.trim_ascii_end()).ok()
    })
}

/// Returns the names of the refs in an answer to `ls-refs`.
pub(crate) fn listed_names(bytes: &[u8]) -> impl Iterator<Item = &str> {
    payloads(bytes).filter_map(|payload| {
        let line = std::str::from_utf8(payload).ok()?;
        line.trim_end().split(' ').nth(1)
    })
}

/// Returns whether the first packet of `bytes` is complete, or already too long for a refusal.
pub(crate) fn has_first_packet(bytes: &[u8]) -> bool {
    const ENOUGH: usize = 1024;
    bytes.len() >= ENOUGH || split(bytes).is_some()
}

/// Returns whether the answer that begins with `bytes` is an `ERR` packet of git.
pub(crate) fn is_refusal(bytes: &[u8]) -> bool {
    let first = payloads(bytes).next().unwrap_or_default();
    first.starts_with(b"ERR ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(payloads: &[&str]) -> Vec<u8> {
        let packet = |payload: &&str| format!("{:04x}{payload}", payload.len() + 4);
        let mut bytes: String = payloads.iter().map(packet).collect();
        bytes.push_str("0001");
        bytes.into_bytes()
    }

    #[test]
    fn requests_for_refs_differ_from_requests_for_objects() {
        let listing = packets(&["command=ls-refs\n", "agent=git/2"]);
        let by_name = packets(&["command=fetch", "want-ref refs/heads/main\n"]);
        let by_id = packets(&["command=fetch", "want 0123\n", "have 4567\n"]);

        assert!(depends_on_refs(&listing));
        assert!(depends_on_refs(&by_name));
        assert!(!depends_on_refs(&by_id));
        assert!(!depends_on_refs(b"0032want"));
        assert!(!depends_on_refs(b"zzzz"));
        assert!(!depends_on_refs(b""));
    }

    #[test]
    fn finds_the_prefixes_of_a_listing() {
        let listing = packets(&["command=ls-refs", "ref-prefix refs/pull/1\n", "peel"]);

        assert_eq!(ref_prefixes(&listing).collect::<Vec<_>>(), ["refs/pull/1"]);
    }

    #[test]
    fn recognizes_a_refusal() {
        let refusal = packets(&["ERR upload-pack: not our ref 0123"]);

        assert!(is_refusal(&refusal) && has_first_packet(&refusal));
        assert!(!has_first_packet(refusal.split_at(20).0));
        assert!(!is_refusal(&packets(&["packfile\n"])));
    }
}
