//! Compares a mirror with upstream: before an update, to skip it if no ref has changed, and after
//! one, to verify it.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use cachewfs_format::is_ref_name;

use super::head::{DETACHED_HEAD, Head};
use super::listing::Listing;
use super::namespaces::is_mirrored;
use super::query::head_commit;
use super::refs::{Ref, RefFiles};
use super::{Git, MirrorError};

/// Returns whether the branches, tags, `namespaces` and HEAD of `mirror` equal those in `listing`.
/// Only reads, so it may run beside any writer.
pub(crate) fn is_current(
    git: &Git,
    (mirror, namespaces): (&Path, &[String]),
    listing: &Listing,
) -> Result<bool, MirrorError> {
    let is_same = differing_refs((mirror, namespaces), listing)?.is_empty();
    Ok(is_same && is_head_of(git, mirror, listing)?)
}

/// Returns the names of mirrored refs that differ between `mirror` and `listing`. A detached HEAD
/// counts as a ref.
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
    // git neither fetches nor lists a ref with an invalid name. It would differ for ever.
    differing.retain(|name| is_ref_name(name) || name == b"HEAD");
    Ok(differing)
}

/// Returns the names of refs that are only in `left` or only in `right`, or that name different
/// objects.
pub(super) fn differing(left: &[Ref<'_>], right: &[Ref<'_>]) -> BTreeSet<Vec<u8>> {
    let mut differing = BTreeSet::new();
    // The usual case needs no map.
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

/// Returns whether HEAD of `mirror` is of the kind in `listing` and names the same branch.
fn is_head_of(git: &Git, mirror: &Path, listing: &Listing) -> Result<bool, MirrorError> {
    let path = mirror.join("HEAD");
    let head = std::fs::read(&path).map_err(|source| MirrorError::Io { path, source })?;
    let branch = head.trim_ascii().strip_prefix(b"ref: ");
    Ok(match (listing.head(), branch) {
        (Head::Branch(upstream), Some(branch)) => upstream == branch,
        // `differing_refs` compares the object.
        (Head::Detached { .. }, None) => true,
        // Upstream doesn't tell the name of an unborn branch, so any unborn branch is right.
        (Head::Unborn, _) => head_commit(git, mirror)?.is_none(),
        (Head::Branch(_), None)
        | (Head::Detached { .. }, Some(_))
        | (Head::Impossible { .. }, _) => false,
    })
}
