//! The HTTP interface. A request never builds anything itself: it asks the repository's task, and
//! answers with the result.

mod admin;
mod authorize;
mod blocks;
mod body;
mod body_budget;
mod bundle;
mod conditional;
mod direct;
mod ensure_refs;
mod error;
mod git_protocol;
mod health;
mod lfs;
mod metrics;
mod miss;
mod observe;
mod pin;
mod published;
mod range;
mod repos;
mod route;
mod routes;
mod snapshots;
mod status;

pub(crate) use routes::router;
