//! Passing requests on to upstream: the only place that talks to it over HTTP.

mod request;
mod shared;
mod spool;

pub(super) use request::{UpstreamRequest, build, pass_on};
pub(super) use shared::{SharedAnswers, pass_on_shared};
