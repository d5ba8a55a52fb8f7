//! Passes requests on to upstream. Nothing else in `http` sends HTTP requests to upstream.

mod answers;
mod head;
mod request;
mod shared;
mod spool;

pub(super) use answers::SharedAnswers;
pub(super) use head::build;
pub(super) use request::{UpstreamRequest, pass_on};
pub(super) use shared::pass_on_shared;
