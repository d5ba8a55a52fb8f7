//! `cachewfs pins`: lists the pinned repositories of a mount.

use anyhow::Result;
use cachewfs_format::RepoName;
use cachewfs_fuse::control::protocol::{ControlAnswer, ControlRequest, RepoReport};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use crate::json_choice::JsonChoice;
use crate::mounts::{MountChoice, block_on};
use crate::output;
use crate::speech::Speech;

/// List the pinned repositories, and how much of each the cache has
///
///   cachewfs pins
///   cachewfs pins --json | jq -r '.pins[].repo'
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    #[command(flatten)]
    json: JsonChoice,

    #[command(flatten)]
    choice: MountChoice,
}

/// The result, for programs.
#[derive(Debug, Serialize)]
struct PinsReport {
    pins: Vec<Pin>,
}

/// A pinned repository.
#[derive(Debug, Serialize)]
struct Pin {
    repo: RepoName,
    /// The stored bytes of its snapshot that the cache has, and all of them. Both are 0 until the
    /// mount has looked at the repository.
    cached_bytes: u64,
    total_bytes: u64,
    /// The last error, or `None` if a later attempt succeeded.
    last_error: Option<String>,
}

impl Pin {
    fn of(report: RepoReport) -> Self {
        Self {
            repo: report.repo,
            cached_bytes: report.parts.iter().map(|part| part.cached_bytes).sum(),
            total_bytes: report.parts.iter().map(|part| part.total_bytes).sum(),
            last_error: report.last_error,
        }
    }

    fn row(&self) -> [String; 4] {
        let state = match (&self.last_error, self.total_bytes) {
            (Some(error), _) => error.clone(),
            (None, 0) => "not opened since the mount started".to_owned(),
            (None, total) if self.cached_bytes < total => "incomplete".to_owned(),
            (None, _) => "complete".to_owned(),
        };
        let [cached, total] = [self.cached_bytes, self.total_bytes].map(output::bytes);
        [self.repo.to_string(), cached, total, state]
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let answer = block_on(args.choice.ask(&ControlRequest::Status))?;
    let ControlAnswer::Status(status) = answer else {
        anyhow::bail!("the mount's answer is not of the requested kind");
    };
    let pinned = status.repos.into_iter().filter(|report| report.is_pinned);
    let pins: Vec<Pin> = pinned.map(Pin::of).collect();
    if Speech::chosen().is_json {
        return args.json.print_json(&PinsReport { pins });
    }
    if pins.is_empty() {
        return output::line("No repository is pinned.");
    }
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["REPOSITORY", "CACHED", "OF", "STATE"]);
    for pin in &pins {
        table.add_row(pin.row().iter().map(|text| output::cell(text)));
    }
    for line in table.lines() {
        output::line(line.trim_end())?;
    }
    Ok(())
}
