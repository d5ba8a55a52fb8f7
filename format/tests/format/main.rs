//! Tests of the public API:
//!
//! - written archives and manifests are read again;
//! - damaged and forged ones are refused;
//! - other programs (zstd, GNU tar, git) agree with this crate;
//! - `docs/format.md` agrees with the code.

#![expect(
    clippy::unwrap_used,
    reason = "a test that can't be set up has to fail"
)]

mod damage;
mod document;
mod fuzz_seeds;
mod git_oracle;
mod golden;
mod harness;
mod lies;
mod manifest;
mod memory;
mod round_trip;
mod stock_tools;
