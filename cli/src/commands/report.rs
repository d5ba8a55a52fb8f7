//! `cachewfs report`: writes what a ticket needs into a text file, without secrets.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result};

use crate::bundle::{Bundle, SECTIONS};
use crate::doctor::{Subject, Target};
use crate::output;

/// Write a report for a ticket into a text file, without secrets
///
///   cachewfs report                      writes cachewfs-report-DATE.txt here
///   cachewfs report -o ticket.txt
///   cachewfs report -o - | less          prints it
///
/// The report has the versions of cachewfs, kernel and git, the findings of `cachewfs doctor`, the
/// mount table and fstab as far as cachewfs is in them, and the status, options and end of the log
/// of each mount. It names repositories, directories and hosts. Tokens, passwords, the queries of
/// URLs and headers with credentials are replaced by ***. Read it before you send it.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// The file to write, or - for standard output. An existing file is not replaced.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// A file with a token that may be in no report. The token files of the mounts are known.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let subject = Subject::find(&Target::Everything, args.token_file.as_deref())?;
    let bundle = Bundle::of(&subject, args.token_file.as_deref());
    let text = bundle.text();
    if args.output.as_deref() == Some(Path::new("-")) {
        return output::write(text.as_bytes());
    }
    let path = args.output.clone().unwrap_or_else(default_path);
    let create = || -> std::io::Result<()> {
        let directory = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let mut file = tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new(".")))?;
        file.write_all(text.as_bytes())?;
        file.persist_noclobber(&path)?;
        Ok(())
    };
    create().with_context(|| format!("can't write the report to {}", path.display()))?;
    output::line(&format!("{} has:", path.display()))?;
    for section in SECTIONS {
        output::line(&format!("  {section}"))?;
    }
    output::line(&format!(
        "{} secrets were replaced by ***. Names of hosts, repositories and directories are in it: \
         read it before you send it.",
        bundle.redacted
    ))
}

/// Returns a name with the date and the time in UTC, such as
/// `cachewfs-report-2026-11-30T120000Z.txt`.
fn default_path() -> PathBuf {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    format!("cachewfs-report-{}.txt", now.replace(':', "")).into()
}
