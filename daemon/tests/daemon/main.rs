//! The daemon as its clients see it: real git, real HTTP on loopback, stock tar and zstd.

mod archive;
mod harness;
mod http;
mod odd_repositories;
mod publish;
