//! Chooses a mount, and sends it requests.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Result;
use cachewfs_fuse::control::protocol::{ControlAnswer, ControlRequest, Progress, StatusReport};
use cachewfs_fuse::control::{Client, ClientError, ConnectError};
use cachewfs_fuse::{TableEntry, is_dead};

use crate::borrowing::{BorrowedObjects, borrowed_by};
use crate::error::CliError;
use crate::mount_table::{MountTable, absolute, is_ours};
use crate::progress::Bar;

/// How often a command tries to connect to a mount that works and doesn't listen.
const RECOVERY_TRIES: usize = 10;

/// The arguments that choose a mount.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct MountChoice {
    /// The mount to use. The default is the mount that contains the current directory, or else the
    /// one that the clone there borrows from, or else the only mount. If there are several, a
    /// command for a repository first looks which of them serve it.
    #[arg(long, value_name = "MOUNTPOINT", global = true)]
    pub(crate) mount: Option<PathBuf>,
}

/// A mount, and the answer of its process.
#[derive(Debug)]
pub(crate) struct MountState {
    pub(crate) mount_point: PathBuf,
    pub(crate) status: Result<Box<StatusReport>>,
}

/// Returns the mount around the current directory, or the one that the clone there borrows from.
pub(crate) fn mount_here(table: &MountTable) -> Option<PathBuf> {
    let here = std::env::current_dir().ok();
    if let Some(mount) = here.and_then(|here| table.mount_around(&here)) {
        return Some(mount);
    }
    match borrowed_by(None)? {
        BorrowedObjects::OfMounted(repository) => table.mount_around(&repository),
        BorrowedObjects::Own(_) => None,
    }
}

/// Returns the error of a command that can't choose between mounts.
pub(crate) fn several_mounts(points: &[PathBuf]) -> CliError {
    let points: Vec<_> = points
        .iter()
        .map(|point| point.display().to_string())
        .collect();
    CliError::SeveralMounts {
        mounts: points.join(", "),
    }
}

impl MountChoice {
    /// Chooses the mount at `mount_point`.
    pub(crate) fn of(mount_point: PathBuf) -> Self {
        let mount = Some(mount_point);
        Self { mount }
    }

    /// Returns the chosen mount point: the argument, the mount around the current directory, the
    /// mount that the clone there borrows from, or the only mount that this user may use.
    pub(crate) fn mount_point(&self) -> Result<PathBuf> {
        if let Some(chosen) = &self.mount {
            return Ok(absolute(chosen));
        }
        let table = MountTable::read()?;
        if let Some(mount) = mount_here(&table) {
            return Ok(mount);
        }
        let points = table.points_for_this_user();
        match points.as_slice() {
            [point] => Ok(point.clone()),
            [] => Err(CliError::NoMount.into()),
            several => Err(several_mounts(several).into()),
        }
    }

    /// Connects to the control socket of the chosen mount. A bind mount stands for the mount of
    /// which it shows a part.
    pub(crate) async fn connect(&self) -> Result<Client> {
        let chosen = self.mount_point()?;
        let table = MountTable::read()?;
        let entry = table.at(&chosen);
        let mount = entry.and_then(|entry| table.original(entry));
        let mount_point = mount.map_or(&chosen, |mount| &mount.mount_point);
        let connected = connect(mount_point).await;
        Ok(connected.map_err(|source| {
            let text = |path: &Path| path.display().to_string();
            let mount_point = text(mount_point);
            // A mount looks dead from here if its socket is in a directory that only its owner
            // finds. Then telling this user to unmount it would be wrong.
            match (source, entry) {
                (ConnectError::NotMounted, _) => CliError::NotAMount {
                    path: text(&chosen),
                },
                (ConnectError::Dead(_), Some(TableEntry { uid: Some(uid), .. }))
                    if !entry.is_some_and(is_ours) =>
                {
                    CliError::ForeignMount {
                        mount_point,
                        uid: *uid,
                    }
                }
                (ConnectError::Dead(_), Some(_)) if mount.is_none() => CliError::BindMount {
                    mount_point: text(&chosen),
                },
                (ConnectError::Dead(_), Some(_)) if !is_dead(&chosen) => {
                    CliError::HiddenSocket { mount_point }
                }
                (source, _) => CliError::CantConnect {
                    mount_point,
                    source,
                },
            }
        })?)
    }

    /// Sends one request, and shows a progress bar until the answer arrives. If this process ends
    /// first, the mount stops working on the request.
    pub(crate) async fn ask(&self, request: &ControlRequest) -> Result<ControlAnswer> {
        let bar = Bar::new();
        let outcome = self.ask_with(request, |progress| bar.show(&progress)).await;
        bar.finish();
        outcome
    }

    /// Sends one request without a progress bar.
    pub(crate) async fn ask_quietly(&self, request: &ControlRequest) -> Result<ControlAnswer> {
        self.ask_with(request, |_| ()).await
    }

    async fn ask_with(
        &self,
        request: &ControlRequest,
        mut on_progress: impl FnMut(Progress),
    ) -> Result<ControlAnswer> {
        let call = async |client: &mut Client| client.call(request, &mut on_progress).await;
        Ok(self.connect_and(call).await??)
    }

    /// Connects, and makes a call. If the mount's process was killed meanwhile, repeats the call
    /// with the process that follows it: each request may be repeated.
    pub(crate) async fn connect_and<T>(
        &self,
        mut call: impl AsyncFnMut(&mut Client) -> Result<T, ClientError>,
    ) -> Result<Result<T, ClientError>> {
        let mut outcome = call(&mut self.connect().await?).await;
        for _ in 0..RECOVERY_TRIES {
            // The kernel takes a moment to close the socket of a killed process. Until then, a
            // client can connect to it in vain. `is_dead` waits for the process that follows.
            if !matches!(outcome, Err(ClientError::Lost(_))) || is_dead(&self.mount_point()?) {
                break;
            }
            let Ok(mut client) = self.connect().await else {
                break;
            };
            outcome = call(&mut client).await;
        }
        Ok(outcome)
    }
}

/// Connects to the mount at `mount_point`.
///
/// If its process was killed, nobody listens until another one serves the mount. `is_dead` waits
/// for the first answer of that process, which listens by then, but at most a second.
async fn connect(mount_point: &Path) -> Result<Client, ConnectError> {
    for _ in 0..RECOVERY_TRIES {
        match Client::connect(mount_point).await {
            Err(ConnectError::Dead(_)) if !is_dead(mount_point) => {}
            connected => return connected,
        }
    }
    Client::connect(mount_point).await
}

/// Runs `work` on a runtime of one thread.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work)
}

/// Asks several mounts for their state at once. A mount that hasn't answered after `patience` gets
/// an error.
pub(crate) fn ask_for_states(points: &[PathBuf], patience: Duration) -> Vec<MountState> {
    let (sender, answers) = mpsc::channel();
    for (index, point) in points.iter().enumerate() {
        let (sender, point) = (sender.clone(), point.clone());
        // On threads that nobody joins: to connect to a stopped mount may take long, too.
        std::thread::spawn(move || sender.send((index, ask_for_state(point))).ok());
    }
    drop(sender);
    let deadline = Instant::now() + patience;
    let mut states: Vec<_> = points.iter().map(|_| None).collect();
    while let Ok((index, state)) =
        answers.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    {
        if let Some(slot) = states.get_mut(index) {
            *slot = Some(state);
        }
    }
    let states = points.iter().zip(states).map(|(point, state)| {
        let status = state.unwrap_or_else(|| {
            let mount_point = point.display().to_string();
            let seconds = patience.as_secs();
            Err(CliError::SilentMount {
                mount_point,
                seconds,
            }
            .into())
        });
        MountState {
            mount_point: point.clone(),
            status,
        }
    });
    states.collect()
}

fn ask_for_state(mount_point: PathBuf) -> Result<Box<StatusReport>> {
    let choice = MountChoice::of(mount_point);
    block_on(async {
        match choice.ask_quietly(&ControlRequest::Status).await? {
            ControlAnswer::Status(status) => Ok(status),
            _ => anyhow::bail!("the mount's answer is not of the requested kind"),
        }
    })
}
