//! git's smart HTTP protocol (`gitprotocol-http(5)`): reads are answered from the mirror,
//! everything else is passed on to upstream.
//!
//! ```text
//! target ─► answer ─► upload_pack ─► mirror (git upload-pack)
//!             │            └───────┐
//!             └────────────────► pass_on ─► upstream (HTTP)
//! ```
//!
//! Every answer goes through `relay`, which limits its time and breaks the connection if it fails.

mod answer;
mod body;
mod error;
mod headers;
mod pass_on;
mod relay;
mod running;
mod server;
mod target;
mod unmirrored;
mod upload_pack;

pub(super) use answer::{answer, client};
pub(super) use error::GitHttpError;
pub(super) use server::GitServer;
pub(super) use target::{GitTarget, parse, parse_other};
