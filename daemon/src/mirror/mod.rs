//! Mirrors: bare clones of upstream repositories, and the git processes that work on them.
//!
//! Everything here is synchronous and runs on blocking threads. Only `git.rs` starts processes.
//!
//! A mirror has one writer and many readers. The repository's task (`crate::repository`) is the
//! writer: it clones, updates, repacks and mends, one job at a time. Readers (`query`, `serve`) may
//! run at any time: git renames new files into place, and looks for an object again if its pack is
//! gone.

mod ask;
mod broken_refs;
mod bundle;
mod clone;
mod compare;
mod config;
mod credentials;
mod disk_full;
mod effective_url;
mod error;
mod examine;
mod git;
mod git_error;
mod git_secrets;
mod global_config;
mod head;
mod lfs;
mod listing;
mod locks;
mod maintain;
mod memory;
mod namespaces;
mod orphans;
pub(crate) mod pkt_line;
mod probe;
mod process;
mod query;
mod reader;
mod redirect;
mod refs;
#[cfg(test)]
mod scripted;
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
pub(crate) use config::PACK_WINDOW_MEMORY;
pub use config::{GitConfig, MirrorsConfig, UpstreamConfig};
pub use credentials::{CredentialError, UpstreamAuthConfig};
pub(crate) use credentials::{Credentials, Login};
pub(crate) use disk_full::has_room;
pub(crate) use error::{MirrorError, is_disk_full};
pub(crate) use examine::{ExamineError, Finding, examine};
pub(crate) use git::{Git, GitCommand};
pub(crate) use git_error::GitError;
pub(crate) use global_config::write_global_config;
pub(crate) use lfs::{LfsFetchError, LfsObject, fetch_lfs_objects};
pub(crate) use listing::list_upstream;
pub(crate) use locks::remove_stale_locks;
pub(crate) use maintain::{Maintenance, maintain, needed_maintenance};
pub(crate) use namespaces::mirrored_namespaces;
pub(crate) use orphans::kill_orphans;
pub(crate) use probe::is_repository;
pub(crate) use query::{
    RefName, first_refs, has_commit, head_commit, missing_objects, resolve_refs,
};
pub(crate) use reader::GitReader;
pub(crate) use redirect::{MAX_REDIRECTS, RedirectTarget, UpstreamBase, is_redirect};
#[cfg(test)]
pub(crate) use scripted::ScriptedGit;
pub(crate) use serve::UploadPack;
pub(crate) use stream::GitStream;
pub(crate) use update::{head_of_upstream, update};
pub(crate) use upstream::Upstream;
pub use version::GitVersionError;
pub(crate) use version::check_version;
