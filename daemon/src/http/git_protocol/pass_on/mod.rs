//! Passes requests on to upstream. Nothing else in `http` sends HTTP requests to upstream.

mod request;
mod shared;
mod spool;

pub(super) use request::{UpstreamRequest, build, pass_on};
pub(super) use shared::{SharedAnswers, pass_on_shared};
