//! Runs a command, usually the tests, and one S3 server that all its processes share.
//!
//! ```text
//! CACHEWFS_TEST_STORE=s3 cargo run -p cachewfs-tests --example with_s3 -- cargo nextest run …
//! ```

use std::process::{Command, ExitCode};

use anyhow::Context as _;
use cachewfs_tests::S3Server;

fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments
        .next()
        .context("no command to run: give it as the arguments")?;
    let server = S3Server::start().context("no S3 server: run packaging/setup seaweedfs")?;
    let (name, value) = server.environment();
    let mut command = Command::new(program);
    let status = command.args(arguments).env(name, value).status()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}
