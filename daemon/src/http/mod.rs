//! The HTTP interface. A request never builds anything itself: it asks the repository's task, and
//! answers with the result.

mod admin;
mod answers;
mod app;
mod archive_answer;
mod authorize;
mod blocks;
mod body;
mod body_budget;
mod bundle;
mod catalog;
mod conditional;
mod describe;
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
mod range;
mod repos;
mod request;
mod route;
mod routes;
mod snapshots;
mod status;

pub(crate) use routes::router;
