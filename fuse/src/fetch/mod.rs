//! Bytes over HTTP: ranges of archives, with retries and fail-over; from daemons, or from where they point.
//!
//! What comes out of here is *not* verified: [`crate::segment`] does that, and asks again for what
//! is broken.

mod answer;
mod direct;
mod error;
mod host_list;
mod http;
#[cfg(test)]
pub(crate) mod scripted;
mod source;
mod token;
mod trust;

pub(crate) use direct::DirectError;
pub(crate) use error::FetchError;
pub(crate) use http::HttpSource;
pub(crate) use source::{ArchiveSource, BodyStream, RangeRequest, Tail, TailAnswer, current_tail};
pub(crate) use token::DaemonToken;
pub use token::{SecretToken, TokenError};
