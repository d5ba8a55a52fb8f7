//! The status page: what an operator wants to know at a glance, at 3 a.m. too.
//!
//! ```text
//! snapshots ─► report ─► view ─► page ─► / (HTML, whole without a script)
//!                 └──────┴─► /api/v1/status (JSON, for programs and script.js)
//! ```
//!
//! Page, style and script are in the binary; nothing is loaded from elsewhere.

mod numbers;
mod page;
mod report;
mod routes;
mod snapshots;
mod view;

pub(super) use report::Reports;
pub(super) use routes::routes;
pub(super) use snapshots::SnapshotReport;
