//! Whether this machine can use the changed-path filters of a published commit-graph.

/// Whether git on this machine hashes paths as the published filters do.
///
/// The hash of version 1 of the filters depends on the sign of C's `char` for bytes from 0x80 on
/// (`gitformat-commit-graph(5)`). git before 2.46 has no other version. Published filters are those
/// of machines where `char` is signed, such as x86.
///
/// On other machines a daemon writes no filters, and a mount tells git to read none. With filters
/// of the other kind, `git log -- <path>` would leave commits out.
pub const ARE_CHANGED_PATHS_PORTABLE: bool = std::ffi::c_char::MIN < 0;
