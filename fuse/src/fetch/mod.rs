//! Fetches ranges of archives over HTTP, from the daemons or from the bucket behind them.
//!
//! If a daemon fails, the next one is asked. Bytes that come out of this module are *not* verified:
//! [`crate::segment`] verifies them, and requests wrong bytes again.
//!
//! ```text
//! range request ─► daemon ─┬─ 206 ──────────────────────────────► bytes
//!                          └─ 307 ─► bucket ─┬─ 206 ────────────► bytes   (a direct read)
//!                                            └─ fails ─► daemon ─► bytes; then a backoff
//! ```
//!
//! `race.rs` finds the daemon and the connection that answer, `daemon.rs` and `clients.rs` remember
//! which of them fell silent, `trust.rs` remembers direct reads that failed. `probe.rs` is for a
//! person: it finds the step at which a daemon can't be reached.

mod answer;
mod clients;
mod connection;
mod daemon;
mod direct;
mod error;
mod host_list;
mod http;
mod one_archive;
mod probe;
mod race;
mod source;
mod trust;

pub(crate) use error::FetchError;
pub(crate) use http::HttpSource;
pub(crate) use one_archive::OneArchive;
pub use probe::{Step, StepOutcome, probe_daemon};
pub(crate) use source::{ArchiveSource, BodyStream, RangeRequest, Tail, TailAnswer, current_tail};
