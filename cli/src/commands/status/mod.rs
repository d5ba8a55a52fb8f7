//! `cachewfs status`: the state of one or several mounts as text or JSON.

mod details;
mod layout;
mod mount_text;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use cachewfs_format::RepoName;
use cachewfs_fuse::control::ConnectError;
use cachewfs_fuse::control::protocol::{ControlAnswer, ControlRequest, StatusReport};
use serde::Serialize;

use self::watch::{Rates, Screen};
use crate::borrowing::{BorrowedObjects, borrowed_by};
use crate::chosen_repo::NamedRepo;
use crate::error::CliError;
use crate::mount_table::{MountTable, is_mounted};
use crate::mounts::{MountChoice, MountState, ask_for_states, block_on, mount_here};
use crate::{output, report};

/// Show the state of the mounts: caches, traffic, and how much of each repository is cached
///
///   cachewfs status
///   cachewfs status --watch                  again and again, with rates
///   cachewfs status github.com/org/repo      which parts of a repository are cached
///
/// In a mount, and in a clone that borrows from one, the command shows that mount only. In a clone
/// whose mount is missing, it says which mount that is.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// Show this repository in detail: its URL, its name, or a path in a mount or in a clone.
    #[arg(value_name = "URL")]
    url: Option<String>,

    /// Print JSON, for programs: an object with a list `mounts`.
    #[arg(long)]
    json: bool,

    /// Show the status again every two seconds, with rates, until Ctrl-C.
    #[arg(long)]
    watch: bool,

    #[command(flatten)]
    choice: MountChoice,
}

const WATCH_PERIOD: Duration = Duration::from_secs(2);
/// How long one of several mounts may take to answer before the others are shown without it.
const PATIENCE: Duration = Duration::from_secs(4);

/// The mounts that the command shows.
#[derive(Debug)]
enum Scope {
    /// One mount, which has to answer.
    One(MountChoice),
    /// A repository of one mount.
    Repo(MountChoice, RepoName),
    /// All mounts that this user may use.
    All,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let scope = Scope::choose(args)?;
    let mut rates = Rates::default();
    let mut screen = Screen::default();
    loop {
        let states = scope.ask(args.watch)?;
        if args.watch {
            rates.note(&states);
        }
        if args.json {
            output::json(&Shown::of(&states))?;
        } else {
            let width = output::terminal_size().map(|(width, _)| width);
            let lines = match &scope {
                Scope::Repo(_, repo) => details::lines(&states, repo, width),
                Scope::One(_) | Scope::All => mount_text::lines(&states, &rates, width),
            };
            if args.watch {
                screen.show(&lines)?;
            } else {
                lines.iter().try_for_each(|line| output::line(line))?;
            }
        }
        if !args.watch {
            let is_any_well = states.iter().any(|state| state.status.is_ok());
            return is_any_well
                .then_some(())
                .ok_or_else(|| CliError::NoMountAnswers.into());
        }
        block_on(async {
            tokio::time::sleep(WATCH_PERIOD).await;
            Ok(())
        })?;
    }
}

impl Scope {
    fn choose(args: &Args) -> Result<Self> {
        if let Some(url) = &args.url {
            let chosen = NamedRepo::find(url)?.choose(&args.choice, None)?;
            return Ok(Self::Repo(chosen.mount, chosen.name));
        }
        if args.choice.mount.is_some() {
            return Ok(Self::One(args.choice.clone()));
        }
        check_objects_here()?;
        let table = MountTable::read()?;
        let here = mount_here(&table);
        let points = table.points_for_this_user();
        match (here, points.as_slice()) {
            (Some(point), _) => Ok(Self::One(MountChoice::of(point))),
            (None, []) => Err(CliError::NoMount.into()),
            (None, [point]) => Ok(Self::One(MountChoice::of(point.clone()))),
            (None, _) => Ok(Self::All),
        }
    }

    /// Asks the mounts. A progress bar would draw over the text of `--watch`.
    fn ask(&self, is_quiet: bool) -> Result<Vec<MountState>> {
        let (choice, repo) = match self {
            Self::One(choice) => (choice, None),
            Self::Repo(choice, repo) => (choice, Some(repo)),
            Self::All => {
                // Read again each time: mounts come and go.
                let points = MountTable::read()?.points_for_this_user();
                return Ok(ask_for_states(&points, PATIENCE));
            }
        };
        let answer = block_on(async {
            if is_quiet {
                return choice.ask_quietly(&ControlRequest::Status).await;
            }
            choice.ask(&ControlRequest::Status).await
        })?;
        let ControlAnswer::Status(mut status) = answer else {
            anyhow::bail!("the mount's answer is not of the requested kind");
        };
        if let Some(name) = repo {
            status.repos.retain(|report| report.repo == *name);
            if status.repos.is_empty() {
                let mount_point = status.mount_point.display().to_string();
                let repo = name.to_string();
                return Err(CliError::NotOpened { repo, mount_point }.into());
            }
        }
        Ok(vec![MountState {
            mount_point: status.mount_point.clone(),
            status: Ok(status),
        }])
    }
}

/// Fails if the repository around the current directory borrows objects that aren't there. git then
/// speaks only of missing objects, and nothing else tells the user why.
fn check_objects_here() -> Result<()> {
    match borrowed_by(None) {
        Some(BorrowedObjects::OfMounted(repository)) if !is_mounted(&repository)? => {
            let repository = repository.display().to_string();
            Err(CliError::CloneWithoutMount { repository }.into())
        }
        Some(BorrowedObjects::Own(objects)) if !objects.is_dir() => {
            Err(CliError::CopyWithoutObjects.into())
        }
        _ => Ok(()),
    }
}

/// The JSON of the command.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    mounts: Vec<ShownMount<'a>>,
}

/// A mount in the JSON of the command.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum ShownMount<'a> {
    Answer {
        state: State,
        #[serde(flatten)]
        status: &'a StatusReport,
    },
    Failure {
        state: State,
        mount_point: &'a PathBuf,
        error: String,
        next_step: Option<&'static str>,
    },
}

/// Whether a mount works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// Its process has answered.
    Running,
    /// It has no process.
    Dead,
    /// Its process does not answer.
    Silent,
    /// It answers another user, or can't be asked for another reason.
    Inaccessible,
}

impl State {
    fn of(state: &MountState) -> Self {
        let Err(error) = &state.status else {
            return Self::Running;
        };
        match error.downcast_ref() {
            Some(CliError::SilentMount { .. }) => Self::Silent,
            Some(CliError::CantConnect {
                source: ConnectError::Dead(_),
                ..
            }) => Self::Dead,
            _ => Self::Inaccessible,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Dead => "dead",
            Self::Silent => "silent",
            Self::Inaccessible => "inaccessible",
        }
    }
}

impl<'a> Shown<'a> {
    fn of(states: &'a [MountState]) -> Self {
        let mounts = states.iter().map(|state| match &state.status {
            Ok(status) => ShownMount::Answer {
                state: State::Running,
                status,
            },
            Err(error) => ShownMount::Failure {
                state: State::of(state),
                mount_point: &state.mount_point,
                error: format!("{error:#}"),
                next_step: report::hint(error),
            },
        });
        Self {
            mounts: mounts.collect(),
        }
    }
}

/// Returns the sentence about a mount that doesn't answer, and the next step.
fn failure_lines(state: &MountState, error: &anyhow::Error) -> Vec<String> {
    let point = state.mount_point.display();
    let word = State::of(state).word();
    let mut lines = vec![format!("{point} is {word}: {error:#}")];
    lines.extend(report::hint(error).map(|hint| format!("  {hint}")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::status_of;

    #[test]
    fn json_has_one_shape_for_all_mounts() {
        let states = [
            MountState {
                mount_point: "/mnt".into(),
                status: Ok(Box::new(status_of(""))),
            },
            MountState {
                mount_point: "/silent".into(),
                status: Err(CliError::SilentMount {
                    mount_point: "/silent".to_owned(),
                    seconds: 6,
                }
                .into()),
            },
        ];

        let text = serde_json::to_string_pretty(&Shown::of(&states)).unwrap();

        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let [running, silent] = [&json["mounts"][0], &json["mounts"][1]];
        assert_eq!(
            (&running["state"], &running["pid"]),
            (&"running".into(), &7.into())
        );
        assert_eq!(silent["state"], "silent");
        assert_eq!(silent["mount_point"], "/silent");
        assert!(
            silent["next_step"].as_str().unwrap().contains("kill -CONT"),
            "{json}"
        );
        // Scripts take the first number of a name: the counters of the mount come before others.
        let (_, first) = text.split_once("\"fetched_bytes\": ").unwrap();
        assert!(first.starts_with("1000,"), "{text}");
    }
}
