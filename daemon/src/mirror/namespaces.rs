//! The namespaces of refs that a mirror has.

use super::query::HIDDEN_NAMESPACE;

/// Returns the namespaces of mirrored refs: branches, tags, and the configured ones.
pub(crate) fn mirrored_namespaces(configured: &[String]) -> impl Iterator<Item = &str> {
    ["refs/heads/", "refs/tags/"]
        .into_iter()
        .chain(configured.iter().map(String::as_str))
}

/// Returns whether the ref `name` is mirrored.
pub(super) fn is_mirrored(name: &[u8], namespaces: &[String]) -> bool {
    let mut namespaces = mirrored_namespaces(namespaces);
    namespaces.any(|namespace| name.starts_with(namespace.as_bytes()))
        && !name.starts_with(HIDDEN_NAMESPACE.as_bytes())
}
