//! Tests of the daemon as its clients see it: with real git, HTTP on loopback, stock tar and zstd.

#![expect(
    clippy::unwrap_used,
    reason = "a failure in the helpers of a test fails the test"
)]

mod git;
mod http;
mod lfs;
mod mirror;
mod program;
mod publish;
mod s3;
mod support;
