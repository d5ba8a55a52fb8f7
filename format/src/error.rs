//! The error type of the crate.

/// The result of a function of this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// The reason why bytes, a name or a value is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
#[non_exhaustive]
pub enum Error {
    /// A text is not the name of a repository.
    #[error("{name:?} is not the name of a repository: {reason}")]
    BadRepoName {
        /// The text, cut to 80 characters.
        name: String,
        /// The rule that the text breaks.
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
    /// A path could leave its tree, is too long, or is out of order.
    #[error("a path is refused: {reason}")]
    BadPath {
        /// The rule that the path breaks.
        reason: &'static str,
    },
    /// The bytes end before a field that they should have.
    #[error("the {section} is truncated")]
    Truncated {
        /// The part of an archive.
        section: &'static str,
    },
    /// The bytes don't have the form that `docs/format.md` prescribes.
    #[error("the {section} is malformed: {reason}")]
    Malformed {
        /// The part of an archive.
        section: &'static str,
        /// The rule that the bytes break.
        reason: &'static str,
    },
    /// A text is not the JSON that `docs/format.md` prescribes.
    #[error("the {section} is not valid JSON of its kind: {reason}")]
    BadJson {
        /// The kind of object: manifest, pointer or deletions.
        section: &'static str,
        /// The JSON parser's reason with line and column, cut to 200 characters.
        reason: String,
    },
    /// The bytes have another version of the format than this program reads and writes.
    #[error("the {section} has version {version}, which this program can't read")]
    UnknownVersion {
        /// The part of an archive.
        section: &'static str,
        /// The version found.
        version: u32,
    },
    /// A length or a count is over its limit.
    #[error("the {section} is too large: {len}, the limit is {max}")]
    TooLarge {
        /// The part of an archive.
        section: &'static str,
        /// The length in bytes, or the count.
        len: u64,
        /// The limit in bytes, or of the count.
        max: u64,
    },
    /// The bytes don't have the expected digest.
    #[error("the {section} doesn't have the digest {expected}")]
    WrongDigest {
        /// The part of an archive.
        section: &'static str,
        /// The expected digest.
        expected: crate::Digest,
    },
    /// A chunk with the right digest doesn't decompress to the length in its segment table.
    #[error("a chunk doesn't decompress to {expected_len} bytes")]
    BadChunk {
        /// The length that the segment table gives, in bytes.
        expected_len: u32,
    },
}
