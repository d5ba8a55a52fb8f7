//! The life of each repository in the daemon: one task per repository that updates its mirror and
//! publishes, at its interval and when asked.

pub(crate) mod backoff;
mod bundles;
mod contents;
mod damage;
mod error;
mod followed;
mod freshness;
mod jobs;
mod lfs;
mod other_publish;
mod registry;
mod removal;
mod room;
mod schedule;
mod status;
mod worker;

pub(crate) use bundles::Bundle;
pub(crate) use contents::Wanted;
pub(crate) use error::RepositoryError;
pub(crate) use followed::Repository;
pub(crate) use freshness::Freshness;
pub(crate) use lfs::LfsState;
pub(crate) use registry::{Registry, mirrors};
pub(crate) use removal::Snapshots;
pub(crate) use status::{Doing, Failure, MirrorState, Status};
