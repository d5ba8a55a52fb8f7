//! The status page: what an operator needs to see at a glance.
//!
//! ```text
//! snapshots ─► gather ─► report ─► view ─► page ─► / (HTML, complete without JavaScript)
//!                            └──────┴─► /api/v1/status (JSON, for programs and script.js)
//! ```
//!
//! Page, style sheet and script are compiled into the binary; nothing is loaded from elsewhere.

mod answer;
mod gather;
mod numbers;
mod page;
mod report;
mod snapshots;
mod view;

pub(super) use answer::{file, html, json};
pub(super) use report::Reports;
