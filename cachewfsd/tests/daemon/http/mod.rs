//! Requests: their answers, what may be asked, and clients that misbehave.

mod archives;
mod auth;
mod bombs;
mod bundles;
mod connections;
mod direct;
mod ensure_refs;
mod hostile;
mod metrics;
mod miss;
mod pins;
mod stale;
mod status_page;
mod tls;
mod todays_client;
