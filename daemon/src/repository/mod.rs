//! The repositories of the daemon: one task for each updates its mirror and publishes it, at an
//! interval and on request.
//!
//! ```text
//! HTTP ─► registry ─► handle ──────── requests ─────────► worker (the task) ─► jobs
//!    └► freshness, contents, bundles, lfs                 ├► schedule: when a job may run
//!       (read the mirror)                                 ├► waiting, disk_space, damage
//!                                                         └► removal: the end of the mirror
//! context   the parts of the daemon that all of these share
//! ```
//!
//! The task is the only writer of its mirror. HTTP requests only read it: they send the task a
//! request and wait for the result, so a client that disconnects stops no work.

mod bundles;
mod checks;
mod contents;
mod context;
mod damage;
mod disk_space;
mod disk_usage;
mod error;
mod examination;
mod failure;
mod freshness;
mod handle;
mod jobs;
mod last_use;
mod lfs;
mod lfs_state;
mod other_publish;
mod registry;
mod removal;
mod repositories;
mod request;
mod schedule;
mod status;
mod waiting;
mod worker;

#[cfg(test)]
mod tests;

pub(crate) use bundles::{Bundle, Bundles};
pub(crate) use cachewfs_format::api::MirrorState;
pub(crate) use checks::Freshness;
pub(crate) use contents::{MirrorReader, WantedContents};
pub(crate) use context::Context;
pub(crate) use error::RepositoryError;
pub(crate) use failure::RunFailure;
pub(crate) use handle::Repository;
pub(crate) use lfs::LfsRuns;
pub(crate) use lfs_state::LfsState;
pub(crate) use registry::Registry;
pub(crate) use request::Snapshots;
pub(crate) use status::{CurrentJob, Status};
