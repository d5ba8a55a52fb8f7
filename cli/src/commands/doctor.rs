//! `cachewfs doctor`: says what is wrong with this machine, and how to mend it.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use crate::doctor::{Check, Outcome, Subject, Target, examine};
use crate::error::CliError;
use crate::output;

/// Say what is wrong with this machine, and how to mend it
///
///   cachewfs doctor                                     this machine and all of its mounts
///   cachewfs doctor /cachewfs                           this machine and one mount
///   cachewfs doctor http://cachew.example.com:8080      before there is a mount
///   cachewfs doctor --clone ~/src/project               also a clone that no mount knows
///   cachewfs doctor --json | jq '.checks[] | select(.outcome == "wrong")'
///
/// Each check is one line, with what to do below it. The command changes nothing, and needs no
/// mount and no daemon. It checks FUSE, the kernel, git and updatedb; each mount; each step to each
/// daemon: name, route, connection, clock, TLS, HTTP and token; each cache; and each clone.
///
/// The exit code is 0 if nothing is wrong, and 1 otherwise. Warnings don't count.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// A mount point, or the URL of a daemon. The default is all mounts of this machine.
    #[arg(value_name = "MOUNT-OR-URL")]
    target: Option<String>,

    /// The file with the daemon's token. The default is that of the mount.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Check the clone in DIR, too. May be given several times.
    #[arg(long, value_name = "DIR")]
    clone: Vec<PathBuf>,

    /// Print JSON, for programs.
    #[arg(long)]
    json: bool,
}

/// All checks, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Findings {
    /// The version of this program.
    version: &'static str,
    checks: Vec<Check>,
}

impl From<Vec<Check>> for Findings {
    fn from(checks: Vec<Check>) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        Self { version, checks }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let target = Target::parse(args.target.as_deref())?;
    let subject = Subject::find(&target, args.token_file.as_deref())?;
    let mut checks = Vec::new();
    for check in examine(&subject, &args.clone) {
        if !args.json {
            for line in check.lines() {
                output::line(&line)?;
            }
        }
        checks.push(check);
    }
    let wrong = checks
        .iter()
        .filter(|check| check.outcome() == Outcome::Wrong);
    let count = wrong.count();
    if args.json {
        output::json(&Findings::from(checks))?;
    }
    match count {
        0 => Ok(()),
        count => Err(CliError::Unwell { count }.into()),
    }
}
