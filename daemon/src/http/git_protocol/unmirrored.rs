//! Refs that a client asks for and that the daemon doesn't mirror, such as `refs/pull/1/head`.
//!
//! For a short name, git asks for every full name that it may stand for (`gitrevisions(7)`). For
//! `feature/x` it asks for `refs/feature/x` beside `refs/heads/feature/x`. So a name outside of the
//! mirrored namespaces is worth a question to upstream only if the mirror has no branch or tag of
//! that short name.

use crate::mirror::{mirrored_namespaces, pkt_line};

/// Returns the prefixes outside of the mirrored namespaces that an `ls-refs` asks for. `head` is
/// the beginning of the request.
pub(super) fn prefixes(head: &[u8], namespaces: &[String]) -> Vec<String> {
    let is_unmirrored = |prefix: &&str| {
        let name = prefix.strip_prefix("refs/").unwrap_or_default();
        let overlaps =
            |namespace: &str| prefix.starts_with(namespace) || namespace.starts_with(*prefix);
        // git tries these for every short name, and `refs/cachewfs/` is the daemon's own.
        let is_guess = ["remotes/", "refs/", "cachewfs/"]
            .iter()
            .any(|guess| name.starts_with(guess));
        name.contains('/') && !is_guess && !mirrored_namespaces(namespaces).any(overlaps)
    };
    let prefixes = pkt_line::ref_prefixes(head).filter(is_unmirrored);
    prefixes.map(str::to_owned).collect()
}

/// Returns whether `listing`, an answer to `ls-refs`, has a branch or tag for each of `prefixes`
/// that it may be short for.
pub(super) fn are_listed(listing: &[u8], prefixes: &[String]) -> bool {
    let names: Vec<_> = pkt_line::listed_names(listing).collect();
    prefixes.iter().all(|prefix| {
        let name = prefix.strip_prefix("refs/").unwrap_or(prefix);
        names.iter().any(|listed| {
            let short = ["refs/heads/", "refs/tags/"]
                .iter()
                .find_map(|namespace| listed.strip_prefix(namespace));
            short == Some(name)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(payloads: &[&str]) -> Vec<u8> {
        let packet = |payload: &&str| format!("{:04x}{payload}", payload.len() + 4);
        payloads.iter().map(packet).collect::<String>().into_bytes()
    }

    fn asked(names: &[&str]) -> Vec<String> {
        let lines: Vec<_> = names
            .iter()
            .map(|name| format!("ref-prefix {name}\n"))
            .collect();
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        prefixes(&packets(&lines), &["refs/notes/".to_owned()])
    }

    #[test]
    fn mirrored_names_and_guesses_of_git_are_not_asked_upstream() {
        let main = ["main", "refs/main", "refs/tags/main", "refs/heads/main"];
        let tried = [
            "refs/remotes/main",
            "refs/remotes/main/HEAD",
            "refs/refs/pull/1/head",
        ];

        assert!(asked(&main).is_empty());
        assert!(asked(&tried).is_empty());
        assert!(asked(&["refs/", "refs/heads/", "refs/notes/x", "HEAD"]).is_empty());
        assert_eq!(asked(&["refs/pull/1/head"]), ["refs/pull/1/head"]);
        assert_eq!(asked(&["refs/feature/x"]), ["refs/feature/x"]);
    }

    #[test]
    fn a_branch_with_the_short_name_satisfies_the_prefix() {
        let listing = packets(&[
            "0123 refs/heads/feature/x\n",
            "0123 refs/tags/v1 peeled:4567\n",
        ]);
        let unmirrored = |name: &str| vec![name.to_owned()];

        assert!(are_listed(&listing, &unmirrored("refs/feature/x")));
        assert!(!are_listed(&listing, &unmirrored("refs/pull/1/head")));
        assert!(!are_listed(&listing, &unmirrored("refs/feature")));
        assert!(!are_listed(b"0000", &unmirrored("refs/feature/x")));
    }
}
