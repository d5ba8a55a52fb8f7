//! The refs of a mirror, out of the refs of a clone.

/// What the mount shows as `packed-refs`.
const HEADER: &[u8] = b"# pack-refs with: peeled fully-peeled sorted \n";
const REMOTE: &[u8] = b"refs/remotes/origin/";
const HEADS: &[u8] = b"refs/heads/";

/// One line of a `packed-refs` file, with the line of the peeled id that may follow it.
struct Line<'a> {
    id: &'a [u8],
    name: Vec<u8>,
    peeled: Option<&'a [u8]>,
}

/// Turns the `packed-refs` of a clone into that of the mirror: remote-tracking branches become
/// branches, and the clone's own branches go. Lines that are no refs are left out.
pub(super) fn mirror_packed_refs(clone: &[u8]) -> Vec<u8> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for line in clone.split(|&byte| byte == b'\n') {
        if let Some(peeled) = line.strip_prefix(b"^") {
            if is_id(peeled)
                && let Some(last) = lines.last_mut()
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
            lines.push(Line {
                id,
                name: name.to_vec(),
                peeled: None,
            });
        }
    }
    let has_remotes = lines.iter().any(|line| line.name.starts_with(REMOTE));
    if has_remotes {
        lines.retain(|line| {
            !line.name.starts_with(HEADS) && line.name != b"refs/remotes/origin/HEAD"
        });
    }
    for line in &mut lines {
        if let Some(branch) = line.name.strip_prefix(REMOTE) {
            line.name = [HEADS, branch].concat();
        }
    }
    lines.sort_by(|one, other| one.name.cmp(&other.name));
    let mut text = HEADER.to_vec();
    for line in lines {
        text.extend_from_slice(&[line.id, b" ", &line.name, b"\n"].concat());
        if let Some(peeled) = line.peeled {
            text.extend_from_slice(&[b"^", peeled, b"\n"].concat());
        }
    }
    text
}

/// Whether `id` is the hexadecimal id of an object.
fn is_id(id: &[u8]) -> bool {
    std::str::from_utf8(id).is_ok_and(|id| cachewfs_format::ObjectId::parse(id).is_ok())
}

/// Whether git would take `name` for a ref, as far as it matters for safety.
pub(super) fn is_ref_name(name: &[u8]) -> bool {
    let is_bad = |byte: &u8| byte.is_ascii_control() || b" ~^:?*[\\".contains(byte);
    name.starts_with(b"refs/")
        && !name.iter().any(is_bad)
        && !name
            .windows(2)
            .any(|pair| pair == b".." || pair == b"//" || pair == b"@{")
        && !name
            .split(|&byte| byte == b'/')
            .any(|part| part.is_empty() || part.starts_with(b"."))
}

/// What `HEAD` says, if it is well formed: a symbolic ref to a branch, or the id of a commit.
pub(super) fn checked_head(head: &[u8]) -> Option<Head> {
    let text = head.trim_ascii_end();
    if let Some(name) = text.strip_prefix(b"ref: ") {
        let is_branch = name.starts_with(HEADS) && is_ref_name(name);
        return is_branch.then(|| Head::Branch(name[HEADS.len()..].to_vec()));
    }
    is_id(text).then(|| Head::Detached(text.to_vec()))
}

/// What HEAD is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// The name of a branch, without `refs/heads/`.
    Branch(Vec<u8>),
    /// The hexadecimal id of a commit.
    Detached(Vec<u8>),
}

impl Head {
    /// The content of the file `HEAD`.
    pub(super) fn to_file(&self) -> Vec<u8> {
        match self {
            Self::Branch(name) => [b"ref: ", HEADS, name, b"\n"].concat(),
            Self::Detached(id) => [id.as_slice(), b"\n"].concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn remote_tracking_branches_become_branches() {
        let clone = format!(
            "# pack-refs with: peeled fully-peeled sorted \n{ID} refs/heads/main\n\
             {ID} refs/remotes/origin/HEAD\n{ID} refs/remotes/origin/main\n\
             {ID} refs/remotes/origin/z\n{ID} refs/tags/v1\n^{ID}\n"
        );

        let text = String::from_utf8(mirror_packed_refs(clone.as_bytes())).unwrap();

        let expected = format!(
            "# pack-refs with: peeled fully-peeled sorted \n{ID} refs/heads/main\n\
             {ID} refs/heads/z\n{ID} refs/tags/v1\n^{ID}\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn hostile_lines_are_left_out() {
        let clone =
            format!("{ID} refs/heads/../../x\nzz refs/tags/a\n{ID} HEAD\n{ID} refs/tags/a b\n");

        assert_eq!(mirror_packed_refs(clone.as_bytes()), HEADER);
    }

    #[test]
    fn head_is_a_branch_or_a_commit_or_nothing() {
        let branch = checked_head(b"ref: refs/heads/a/b\n").unwrap();

        assert_eq!(branch.to_file(), b"ref: refs/heads/a/b\n");
        assert!(matches!(
            checked_head(ID.as_bytes()),
            Some(Head::Detached(_))
        ));
        for bad in [
            "ref: refs/../x",
            "ref: HEAD",
            "",
            "ref: refs/tags/x",
            "ref: refs/heads/a\nb",
        ] {
            assert_eq!(checked_head(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
