//! git's hash functions, for the ids of objects and for the checksums at the end of git's files.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// The length in bytes of a SHA-256 hash, and so of an object id in a SHA-256 repository.
const SHA256_LEN: usize = 32;

/// A running hash with the hash function of a repository's object format, SHA-1 or SHA-256.
pub struct GitHash(Context);

impl GitHash {
    /// Starts a hash for a repository whose object ids are `id_len` bytes long.
    pub fn of_format(id_len: usize) -> Self {
        Self(Context::new(if id_len == SHA256_LEN {
            &SHA256
        } else {
            &SHA1_FOR_LEGACY_USE_ONLY
        }))
    }

    /// Adds bytes to the hash.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the hash of all added bytes.
    pub fn finish(self) -> Vec<u8> {
        self.0.finish().as_ref().to_owned()
    }
}

impl std::fmt::Debug for GitHash {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("GitHash")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ObjectId;

    #[test]
    fn hashes_as_git_does() {
        // `git hash-object --stdin </dev/null` in a repository of each format.
        for (id_len, expected) in [
            (20, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"),
            (
                32,
                "473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813",
            ),
        ] {
            let mut hash = GitHash::of_format(id_len);
            hash.update(b"blob 0\0");

            let hash = ObjectId::from_bytes(&hash.finish()).unwrap();
            assert_eq!(hash.to_string(), expected);
        }
    }
}
