//! The repositories of the daemon: one task for each updates its mirror and publishes it, at an
//! interval and on request.
//!
//! ```text
//! HTTP ─► registry ─► handle ──────── requests ─────────► worker (the task) ─► jobs
//!              └► freshness, contents, bundles            ├► schedule: when a job may run
//!                 (read the mirror)                       ├► other_publish, disk_space, damage
//!                                                         └► removal: the end of the mirror
//! ```
//!
//! The task is the only writer of its mirror. HTTP requests only read it: they send the task a
//! request and wait for the result, so a client that disconnects stops no work.

mod bundles;
mod contents;
mod damage;
mod disk_space;
pub(crate) mod disk_usage;
mod error;
mod freshness;
mod handle;
mod jobs;
mod lfs;
mod other_publish;
mod registry;
mod removal;
mod schedule;
mod status;
mod worker;

pub(crate) use bundles::Bundle;
pub(crate) use cachewfs_format::api::MirrorState;
pub(crate) use contents::WantedContents;
pub(crate) use error::RepositoryError;
pub(crate) use freshness::Freshness;
pub(crate) use handle::Repository;
pub(crate) use lfs::LfsState;
pub(crate) use registry::Registry;
pub(crate) use removal::Snapshots;
pub(crate) use status::{CurrentJob, RunFailure, Status};
