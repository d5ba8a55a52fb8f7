//! Which machines understand the changed-path filters of a published commit-graph.

/// Whether git on this machine hashes paths as the published filters do.
///
/// Version 1 of the filters, the only one that git before 2.46 has, depends on the sign of C's `char`
/// for bytes from 0x80 on (`gitformat-commit-graph(5)`). Published are those of machines where it is
/// signed, as on x86. Elsewhere a daemon writes none, and a mount has git read none: with the wrong
/// ones `git log -- <path>` would leave commits out.
pub const ARE_CHANGED_PATHS_PORTABLE: bool = std::ffi::c_char::MIN < 0;
