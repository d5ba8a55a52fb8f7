//! LFS pointers: the small text files that git has in place of LFS objects.

use std::fmt;

/// Files of at least this many bytes are not pointers, by the definition of git-lfs.
pub(super) const MAX_POINTER_LEN: u64 = 1024;
/// The versions that the first line may name. The last two are older than the first release of
/// git-lfs.
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

    /// Returns the path of the object in a git directory.
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

/// A parsed LFS pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LfsPointer {
    pub(super) oid: LfsOid,
    /// The length of the object in bytes, as the pointer says.
    pub(super) size: u64,
}

impl LfsPointer {
    /// Parses the content of a file. Returns `None` if it isn't a pointer.
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
