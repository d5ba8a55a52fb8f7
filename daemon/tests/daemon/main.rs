//! The daemon as its clients see it: real git, real HTTP on loopback, stock tar and zstd.

#![expect(
    clippy::unwrap_used,
    reason = "what fails in a test's harness fails the test"
)]

mod archive;
mod git_limits;
mod git_pass_on;
mod git_serve;
mod git_share;
mod harness;
mod http;
mod http_upstream;
mod odd_repositories;
mod pkt;
mod publish;
