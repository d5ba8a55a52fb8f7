//! The `packed-refs` of the mount: the refs of a mirror, made from those of an archive.

use cachewfs_format::{ArchiveKind, ObjectId, is_ref_name};

/// The first line of the `packed-refs` that the mount shows.
const HEADER: &[u8] = b"# pack-refs with: peeled fully-peeled sorted \n";
const REMOTE: &[u8] = b"refs/remotes/origin/";
const HEADS: &[u8] = b"refs/heads/";
const TAGS: &[u8] = b"refs/tags/";

/// A ref in a `packed-refs` file, with the id from the peeled line that may follow it.
struct PackedRef<'a> {
    id: &'a [u8],
    name: Vec<u8>,
    peeled: Option<&'a [u8]>,
}

/// Turns the `packed-refs` of an archive into that of a mirror.
///
/// In a checkout archive, remote-tracking branches become branches, and the clone's own branches
/// are dropped. All other refs but tags are dropped, too: git would show notes in a log, and refs
/// below `refs/replace/` would make it show one object in place of another. So are malformed lines.
/// Object ids have `id_len` bytes.
pub(super) fn mirror_packed_refs(kind: ArchiveKind, packed_refs: &[u8], id_len: usize) -> Vec<u8> {
    let is_id = |id: &[u8]| is_id(id, id_len);
    let mut refs: Vec<PackedRef<'_>> = Vec::new();
    for line in packed_refs.split(|&byte| byte == b'\n') {
        if let Some(peeled) = line.strip_prefix(b"^") {
            if is_id(peeled)
                && let Some(last) = refs.last_mut()
            {
                last.peeled = Some(peeled);
            }
            continue;
        }
        let Some(space) = line.iter().position(|&byte| byte == b' ') else {
            continue;
        };
        let (id, name) = (&line[..space], &line[space + 1..]);
        if is_id(id) && is_ref_name(name) {
            refs.push(PackedRef {
                id,
                name: name.to_vec(),
                peeled: None,
            });
        }
    }
    if kind == ArchiveKind::Checkout {
        refs.retain(|line| !line.name.starts_with(HEADS));
        for line in &mut refs {
            if let Some(branch) = line.name.strip_prefix(REMOTE) {
                line.name = [HEADS, branch].concat();
            }
        }
    }
    refs.retain(|line| line.name.starts_with(HEADS) || line.name.starts_with(TAGS));
    refs.sort_by(|one, other| one.name.cmp(&other.name));
    // git finds a ref by binary search. If two lines had one name, it could find either.
    refs.dedup_by(|one, other| one.name == other.name);
    let mut text = HEADER.to_vec();
    for line in refs {
        text.extend_from_slice(&[line.id, b" ", &line.name, b"\n"].concat());
        if let Some(peeled) = line.peeled {
            text.extend_from_slice(&[b"^", peeled, b"\n"].concat());
        }
    }
    text
}

/// Returns whether `id` is the hexadecimal id of an object, of `id_len` bytes.
fn is_id(id: &[u8], id_len: usize) -> bool {
    id.len() == 2 * id_len && ObjectId::is_hex(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    fn of_checkout(clone: &str) -> String {
        let refs = mirror_packed_refs(ArchiveKind::Checkout, clone.as_bytes(), 20);
        String::from_utf8(refs).unwrap()
    }

    #[test]
    fn remote_tracking_branches_become_branches() {
        let clone = format!(
            "# pack-refs with: peeled fully-peeled sorted \n{ID} refs/heads/main\n\
             {ID} refs/remotes/origin/main\n\
             {ID} refs/remotes/origin/z\n{ID} refs/tags/v1\n^{ID}\n"
        );

        let text = of_checkout(&clone);

        let expected = format!(
            "# pack-refs with: peeled fully-peeled sorted \n{ID} refs/heads/main\n\
             {ID} refs/heads/z\n{ID} refs/tags/v1\n^{ID}\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn a_branch_called_head_is_a_branch() {
        let clone = format!(
            "{ID} refs/heads/main\n{ID} refs/remotes/origin/HEAD\n{ID} refs/remotes/origin/main\n"
        );

        let text = of_checkout(&clone);

        assert!(
            text.ends_with(&format!("{ID} refs/heads/HEAD\n{ID} refs/heads/main\n")),
            "{text}"
        );
    }

    #[test]
    fn of_a_mirror_archive_branches_and_tags_stay() {
        let mirror = format!("{ID} refs/heads/main\n{ID} refs/tags/v1\n");
        let others = format!("{ID} refs/notes/x\n{ID} refs/remotes/origin/x\n{ID} refs/stash\n");

        let text = mirror_packed_refs(
            ArchiveKind::Mirror,
            (mirror.clone() + &others).as_bytes(),
            20,
        );

        assert_eq!(text, [HEADER, mirror.as_bytes()].concat());
    }

    #[test]
    fn hostile_lines_are_left_out() {
        let clone = format!(
            "{ID} refs/heads/../../x\nzz refs/tags/a\n{ID} HEAD\n{ID} refs/tags/a b\n\
             {ID}{} refs/tags/long\n{ID} refs/tags/x.lock\n",
            &"0".repeat(24)
        );

        assert_eq!(of_checkout(&clone).as_bytes(), HEADER);
    }

    #[test]
    fn only_branches_and_tags_are_shown() {
        let clone = format!(
            "{ID} refs/replace/{ID}\n{ID} refs/replaced\n{ID} refs/notes/commits\n{ID} refs/stash\n"
        );

        assert_eq!(of_checkout(&clone).as_bytes(), HEADER);
    }

    #[test]
    fn a_ref_has_one_line() {
        let other = ID.replace('0', "f");
        let clone = format!("{ID} refs/tags/a\n{other} refs/tags/a\n{other} refs/tags/b\n");

        let text = mirror_packed_refs(ArchiveKind::Mirror, clone.as_bytes(), 20);
        let text = String::from_utf8(text).unwrap();

        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [format!("{ID} refs/tags/a"), format!("{other} refs/tags/b")]
        );
    }
}
