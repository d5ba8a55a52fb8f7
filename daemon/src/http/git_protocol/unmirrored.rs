//! Refs that a client looks for and that are not mirrored, such as `refs/pull/1/head`.
//!
//! For a short name git asks for all that it may stand for (`gitrevisions(7)`): for `feature/x`
//! `refs/feature/x`, too, beside `refs/heads/feature/x`. So a name outside of what is mirrored is worth
//! asking upstream only if the mirror has no branch or tag of that name.

use crate::mirror::mirrored_namespaces;
use crate::pkt_line;

/// The prefixes that the `ls-refs` which begins with `head` asks for outside of what is mirrored.
pub(super) fn prefixes(head: &[u8], namespaces: &[String]) -> Vec<String> {
    let is_unmirrored = |prefix: &&str| {
        let name = prefix.strip_prefix("refs/").unwrap_or_default();
        let overlaps =
            |namespace: &str| prefix.starts_with(namespace) || namespace.starts_with(*prefix);
        // What git tries for short names, and what is our own.
        let is_guess = ["remotes/", "refs/", "cachewfs/"]
            .iter()
            .any(|guess| name.starts_with(guess));
        name.contains('/') && !is_guess && !mirrored_namespaces(namespaces).any(overlaps)
    };
    let prefixes = pkt_line::ref_prefixes(head).filter(is_unmirrored);
    prefixes.map(str::to_owned).collect()
}

/// Whether `listing`, an answer to an `ls-refs`, has for each of `prefixes` what it may be short for.
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
    fn what_is_mirrored_and_what_git_only_tries_is_not_foreign() {
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
    fn a_branch_of_the_name_is_what_was_meant() {
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
