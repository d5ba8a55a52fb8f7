//! Mirrors: bare clones of upstream repositories, and the processes that keep them.
//!
//! Everything here is synchronous and runs on blocking threads; only `git` starts processes.

mod as_git;
mod ask;
mod broken_refs;
mod bundle;
mod clone;
mod compare;
mod credentials;
mod disk_full;
mod error;
mod examine;
mod git;
mod git_error;
mod lfs;
mod listing;
mod locks;
mod maintain;
mod memory;
mod orphans;
mod probe;
mod process;
mod query;
mod reader;
mod redirect;
mod refs;
mod serve;
mod stream;
mod update;
mod upstream;
mod version;

pub(crate) use broken_refs::drop_broken_refs;
pub(crate) use bundle::{BundleRef, refs_beyond, write_bundle};
pub(crate) use clone::{
    clone_mirror, create_mirror, is_empty_mirror, is_mirror, mirror_path, move_into_place,
};
pub(crate) use compare::is_current;
pub use credentials::{CredentialError, UpstreamAuthConfig};
pub(crate) use credentials::{Credentials, Login};
pub(crate) use disk_full::has_room;
pub(crate) use error::{MirrorError, is_disk_full};
pub(crate) use examine::{ExamineError, Finding, examine};
pub(crate) use git::{Git, GitCommand};
pub(crate) use git_error::GitError;
pub(crate) use lfs::{LfsFetchError, LfsObject, fetch_lfs_objects};
pub(crate) use listing::list_upstream;
pub(crate) use locks::remove_stale_locks;
pub(crate) use maintain::{Upkeep, maintain, upkeep};
pub(crate) use orphans::end_orphans;
pub(crate) use probe::is_repository;
pub(crate) use query::{
    RefName, first_refs, has_commit, head_commit, missing_objects, resolve_refs,
};
pub(crate) use reader::GitReader;
pub(crate) use redirect::{Base, MAX_REDIRECTS, Place, is_redirect};
pub(crate) use serve::UploadPack;
pub(crate) use stream::GitStream;
pub(crate) use update::{head_of_upstream, mirrored_namespaces, update};
pub(crate) use upstream::{Upstream, redact};
pub use version::GitVersionError;
pub(crate) use version::check_version;
