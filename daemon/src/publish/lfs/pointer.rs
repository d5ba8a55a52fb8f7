//! The small text file that stands in git for an LFS object.

use std::fmt;

/// Files of this length or more are no pointers, says git-lfs.
pub(super) const MAX_POINTER_LEN: u64 = 1024;
/// What the first line may name; the last two are from before the first release of git-lfs.
const VERSIONS: [&str; 3] = [
    "https://git-lfs.github.com/spec/v1",
    "https://hawser.github.com/spec/v1",
    "http://git-media.io/v/2",
];

/// The id of an LFS object: the SHA-256 of its bytes, as 64 hexadecimal digits in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LfsOid(String);

impl LfsOid {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == 64 && text.bytes().all(is_digit)).then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Where it is in a git directory.
    pub(super) fn path(&self) -> String {
        let part = |range| self.0.get(range).unwrap_or_default();
        format!("lfs/objects/{}/{}/{self}", part(0..2), part(2..4))
    }
}

impl fmt::Display for LfsOid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What a pointer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LfsPointer {
    pub(super) oid: LfsOid,
    /// Length of the object in bytes, as the repository has it.
    pub(super) size: u64,
}

impl LfsPointer {
    /// Parses a file; `None` if it is no pointer.
    pub(super) fn parse(file: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(file).ok()?.lines();
        let version = lines.next()?.strip_prefix("version ")?.trim();
        let value = |key: &str| {
            let mut values = lines.clone().filter_map(|line| line.split_once(' '));
            values.find(|(found, _)| *found == key)
        };
        let (_, oid) = value("oid")?;
        let (_, size) = value("size")?;
        VERSIONS.contains(&version).then_some(())?;
        Some(Self {
            oid: LfsOid::parse(oid.trim().strip_prefix("sha256:")?)?,
            size: size.trim().parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_parsed() {
        let oid = "4d".repeat(32);
        let text =
            format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 12345\n");

        let pointer = LfsPointer::parse(text.as_bytes()).unwrap();

        assert_eq!((pointer.oid.as_str(), pointer.size), (&*oid, 12345));
        assert_eq!(pointer.oid.path(), format!("lfs/objects/4d/4d/{oid}"));
        let extended = text.replace("oid ", &format!("ext-0-foo sha256:{oid}\noid "));
        assert_eq!(LfsPointer::parse(extended.as_bytes()), Some(pointer));
    }

    #[test]
    fn other_files_are_not_parsed_as_pointers() {
        let oid = "4d".repeat(32);
        let good =
            format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 1\n");
        for (part, other) in [
            ("spec/v1", "spec/v9"),
            ("version", "Version"),
            ("sha256:4d", "sha256:4D"),
            ("sha256:4d", "sha256:../"),
            ("sha256:", "md5:"),
            ("size 1", "size -1"),
            ("size 1\n", ""),
        ] {
            let bad = good.replace(part, other);
            assert_ne!(bad, good);
            assert_eq!(LfsPointer::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(LfsPointer::parse(b""), None);
        assert_eq!(LfsPointer::parse(b"\xff\n"), None);
    }
}
