//! LFS archives.

pub(crate) mod archives;
mod failures;
