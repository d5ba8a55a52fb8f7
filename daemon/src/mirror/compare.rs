//! Whether a mirror is as upstream: before an update, which is spared then, and after one.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use cachewfs_format::is_ref_name;

use super::listing::Listing;
use super::query::{HIDDEN, head_commit};
use super::refs::{Ref, RefFiles};
use super::update::{DETACHED_HEAD, Head, mirrored_namespaces};
use super::{Git, MirrorError};

/// Returns whether heads, tags, `namespaces` and HEAD of `mirror` are what `listing` says they are upstream.
/// Changes nothing, so it may run beside anything.
pub(crate) fn is_current(
    git: &Git,
    (mirror, namespaces): (&Path, &[String]),
    listing: &Listing,
) -> Result<bool, MirrorError> {
    let is_same = differing_refs((mirror, namespaces), listing)?.is_empty();
    Ok(is_same && is_head_of(git, mirror, listing)?)
}

/// Returns the names of mirrored refs that are in `mirror` not what `listing` says. A detached HEAD counts as one.
pub(super) fn differing_refs(
    (mirror, namespaces): (&Path, &[String]),
    listing: &Listing,
) -> Result<BTreeSet<Vec<u8>>, MirrorError> {
    let files = RefFiles::read(mirror)?;
    let refs = files.sorted();
    let mut present = Vec::new();
    if let Head::Detached { .. } = listing.head() {
        let head = refs
            .iter()
            .find(|(name, _)| *name == DETACHED_HEAD.as_bytes());
        present.extend(head.map(|&(_, id)| (&b"HEAD"[..], id)));
    }
    present.extend(
        refs.into_iter()
            .filter(|(name, _)| is_mirrored(name, namespaces)),
    );
    let mut differing = differing(&listing.refs(namespaces), &present);
    // git neither fetches nor lists refs that it can't name.
    differing.retain(|name| is_ref_name(name) || name == b"HEAD");
    Ok(differing)
}

/// Returns whether a ref called `name` is mirrored.
pub(super) fn is_mirrored(name: &[u8], namespaces: &[String]) -> bool {
    let mut namespaces = mirrored_namespaces(namespaces);
    namespaces.any(|namespace| name.starts_with(namespace.as_bytes()))
        && !name.starts_with(HIDDEN.as_bytes())
}

/// Returns the names of refs that are in `left` or `right` only, or name different objects there.
pub(super) fn differing(left: &[Ref<'_>], right: &[Ref<'_>]) -> BTreeSet<Vec<u8>> {
    let mut differing = BTreeSet::new();
    if left == right {
        return differing;
    }
    for (some, others) in [(left, right), (right, left)] {
        let others: HashMap<_, _> = others.iter().copied().collect();
        let differs = |&&(name, id): &&Ref<'_>| others.get(name) != Some(&id);
        let names = some.iter().filter(differs).map(|(name, _)| name.to_vec());
        differing.extend(names);
    }
    differing
}

/// Returns whether HEAD of `mirror` is of the kind that `listing` says, and names the same branch.
fn is_head_of(git: &Git, mirror: &Path, listing: &Listing) -> Result<bool, MirrorError> {
    let path = mirror.join("HEAD");
    let head = std::fs::read(&path).map_err(|source| MirrorError::Io { path, source })?;
    let branch = head.trim_ascii().strip_prefix(b"ref: ");
    Ok(match (listing.head(), branch) {
        (Head::Branch(upstream), Some(branch)) => upstream == branch,
        // The object is compared as a ref.
        (Head::Detached { .. }, None) => true,
        (Head::Unborn, _) => head_commit(git, mirror)?.is_none(),
        (Head::Branch(_), None)
        | (Head::Detached { .. }, Some(_))
        | (Head::Impossible { .. }, _) => false,
    })
}
