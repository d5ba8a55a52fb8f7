//! The HTTP interface. It never builds anything inside a request: it asks a repository's task, and
//! answers.

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
