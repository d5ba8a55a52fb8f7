//! The target of a request: its method and URL, parsed once.
//!
//! ```text
//! path ─► Shape: endpoint, undecoded name, rest ─► Route: checked names and ids
//!             └► pattern (traces), class (metrics)   ├► action (policy)
//!                                                    └► the handler
//! ```
//!
//! `observe` parses, and every later layer reads the same result. So policy, handler, metrics and
//! traces can't disagree about a URL.

mod endpoint;
mod git_target;
mod name;
mod parse;
mod shape;

pub(super) use endpoint::Call;
pub(super) use git_target::{AdvertisedService, GitTarget, Service, Spelling};
pub(super) use name::UrlError;
pub(super) use parse::{ParsedUrl, RepoResource, Route};
pub(super) use shape::is_read;
