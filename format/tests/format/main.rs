//! The public API, from outside: what is written is read again, damage and lies are noticed, other
//! programs read archives, documents say what the code does.

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
