//! Why bytes or names are refused.

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// Why bytes or names are refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
#[non_exhaustive]
pub enum Error {
    /// A text is not the name of a repository.
    #[error("{name:?} is not the name of a repository: {reason}")]
    BadRepoName {
        /// The text, cut to 80 characters.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A text is not the id of a git object.
    #[error("{text:?} is not 40 or 64 lower-case hexadecimal digits")]
    BadObjectId {
        /// The text, cut to 80 characters.
        text: String,
    },
    /// A text is not a digest.
    #[error("{text:?} is not 64 lower-case hexadecimal digits")]
    BadDigest {
        /// The text, cut to 80 characters.
        text: String,
    },
    /// A text is not the id of a snapshot.
    #[error("{text:?} is not <commit> or <commit>-<16 hexadecimal digits>")]
    BadSnapshotId {
        /// The text, cut to 120 characters.
        text: String,
    },
    /// A path could leave its tree, or is too long.
    #[error("a path is refused: {reason}")]
    BadPath {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The bytes end before what they announce.
    #[error("the {section} ends early")]
    Truncated {
        /// Which part of an archive.
        section: &'static str,
    },
    /// The bytes don't have the form that `docs/format.md` demands.
    #[error("the {section} is malformed: {reason}")]
    Malformed {
        /// Which part of an archive.
        section: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A text is not the JSON that `docs/format.md` demands.
    #[error("the {section} is not JSON of the right form: {reason}")]
    BadJson {
        /// What it should be.
        section: &'static str,
        /// What is wrong with it, and where; cut to 200 characters.
        reason: String,
    },
    /// Written by a later version of the format.
    #[error("the {section} has version {version}, which this program can't read")]
    UnknownVersion {
        /// Which part of an archive.
        section: &'static str,
        /// The version found.
        version: u32,
    },
    /// A length is larger than a reader accepts.
    #[error("the {section} has {len} where at most {max} is accepted")]
    TooLarge {
        /// Which part of an archive.
        section: &'static str,
        /// What was found.
        len: u64,
        /// What is accepted.
        max: u64,
    },
    /// The bytes are not those that the digest names.
    #[error("the {section} doesn't have the digest {expected}")]
    WrongDigest {
        /// Which part of an archive.
        section: &'static str,
        /// The digest that was asked for.
        expected: crate::Digest,
    },
    /// A chunk with the right digest doesn't decompress to what its table says.
    #[error("a chunk doesn't decompress to {expected_len} bytes")]
    BadChunk {
        /// The length that the segment table gives, in bytes.
        expected_len: u32,
    },
}
