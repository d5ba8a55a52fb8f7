//! git's smart HTTP protocol (`gitprotocol-http(5)`): reads are answered from the mirror,
//! everything else is passed on to upstream.
//!
//! ```text
//! answer ─► upload_pack ─► mirror (git upload-pack)
//!    │            └───────┐
//!    └────────────────► pass_on ─► upstream (HTTP)
//! ```
//!
//! Every answer goes through `relay`, which limits its time and breaks the connection if it fails.

mod answer;
mod body;
mod headers;
mod pass_on;
mod relay;
mod running;
mod server;
mod unmirrored;
mod upload_pack;

pub(super) use answer::answer;
pub(super) use server::GitServer;
