//! The last check before a snapshot is published.
//!
//! The publisher and the mount share one parser, so the check finds a snapshot that mounts would
//! refuse. If it were published, it would fail on all workstations until the next snapshot.

use cachewfs_format::{GitHead, IndexEntry, ObjectId, index_part_entries, is_ref_name};

use super::PublishError;

/// Fails if a mount would refuse this `HEAD` or `packed-refs`, or if they don't say that HEAD is at
/// `commit`. The null id as `commit` means that the branch of HEAD doesn't exist.
pub(super) fn check_refs(
    (head, packed_refs): (&[u8], &[u8]),
    commit: &ObjectId,
) -> Result<(), PublishError> {
    let head = GitHead::parse(head).map_err(|error| unusable(error.to_string()))?;
    let branch = match &head {
        GitHead::Branch(branch) => Some([b"refs/heads/", &branch[..]].concat()),
        GitHead::Detached(id) if id == commit => None,
        GitHead::Detached(id) => return Err(unusable(format!("HEAD is {id}, not {commit}"))),
    };
    let mut of_branch = None;
    for line in packed_refs.split(|&byte| byte == b'\n') {
        if line.is_empty() || line.starts_with(b"#") || line.starts_with(b"^") {
            continue;
        }
        let (id, name) = parse(line).ok_or_else(|| {
            let line = String::from_utf8_lossy(line);
            unusable(format!("{line:?} is not a valid line of packed-refs"))
        })?;
        if branch.as_deref() == Some(name) {
            of_branch = Some(id);
        }
    }
    let expected = (!commit.is_null()).then_some(commit);
    if branch.is_some() && of_branch.as_ref() != expected {
        return Err(unusable(format!("the branch of HEAD is not at {commit}")));
    }
    Ok(())
}

fn parse(line: &[u8]) -> Option<(ObjectId, &[u8])> {
    let space = line.iter().position(|&byte| byte == b' ')?;
    let (id, name) = line.split_at_checked(space)?;
    let name = name.strip_prefix(b" ").filter(|name| is_ref_name(name))?;
    let id = ObjectId::parse(std::str::from_utf8(id).ok()?).ok()?;
    Some((id, name))
}

/// Fails if a mount would refuse this part of an index, or if its number of entries isn't `files`.
///
/// Object ids have `id_len` bytes. Returns the latest modification time in the part, or 0 if it has
/// no entries.
pub(super) fn check_index_part(
    part: &[u8],
    id_len: usize,
    files: u32,
) -> Result<i64, PublishError> {
    let entries: Vec<IndexEntry<'_>> =
        index_part_entries(part, id_len).map_err(|error| unusable(error.to_string()))?;
    if u32::try_from(entries.len()) == Ok(files) {
        let newest = entries.iter().map(|entry| entry.mtime).max();
        Ok(newest.map_or(0, i64::from))
    } else {
        let found = entries.len();
        Err(unusable(format!(
            "a part of the index has {found} entries, not {files}"
        )))
    }
}

fn unusable(reason: String) -> PublishError {
    PublishError::Unusable { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    fn check(head: &str, packed_refs: &str) -> Result<(), PublishError> {
        let commit = ObjectId::parse(ID).unwrap();
        check_refs((head.as_bytes(), packed_refs.as_bytes()), &commit)
    }

    #[test]
    fn refs_that_a_mount_refuses_are_refused() {
        let main = format!("# pack-refs with: peeled \n{ID} refs/heads/main\n^{ID}\n");
        let detached = format!("{ID}\n");
        assert!(check("ref: refs/heads/main\n", &main).is_ok());
        assert!(check(&detached, "").is_ok());

        let other = ID.replace('0', "1");
        for (head, packed_refs) in [
            // The HEAD of a repository with the `reftable` backend.
            ("ref: refs/heads/.invalid\n", main.as_str()),
            ("ref: refs/tags/v1\n", &main),
            ("ref: refs/heads/other\n", &main),
            ("", &main),
            (&other, &main),
            (
                "ref: refs/heads/main\n",
                &format!("{other} refs/heads/main\n"),
            ),
            (&detached, &format!("{ID} refs/heads/a..b\n")),
        ] {
            let checked = check(head, packed_refs);
            assert!(
                matches!(checked, Err(PublishError::Unusable { .. })),
                "{head} {packed_refs}"
            );
        }
    }

    #[test]
    fn an_index_part_has_the_entries_of_its_run() {
        assert!(check_index_part(b"", 20, 0).is_ok());
        assert!(check_index_part(b"", 20, 1).is_err());
        assert!(check_index_part(b"half an entry", 20, 1).is_err());
    }
}
