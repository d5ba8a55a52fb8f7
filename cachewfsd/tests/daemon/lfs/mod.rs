//! LFS archives.

mod archives;
mod failures;
