//! The sections `[git]`, `[mirrors]` and `[upstreams]` of the configuration.

mod git;
mod mirrors;
mod upstream;

pub use git::GitConfig;
pub(crate) use git::PACK_WINDOW_MEMORY;
pub use mirrors::MirrorsConfig;
pub use upstream::UpstreamConfig;
