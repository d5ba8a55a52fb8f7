//! The life of each repository in the daemon: one task per repository that updates its mirror and
//! publishes, at its interval and when asked.

mod error;
mod registry;
mod status;
mod worker;

pub(crate) use error::RepositoryError;
pub(crate) use registry::{Registry, mirrors};
pub(crate) use status::{MirrorState, Status};
