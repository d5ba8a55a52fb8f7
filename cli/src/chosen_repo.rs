//! Finds the repository that a person named, by its URL, its name or a path, and the mount for it.
//!
//! The mount is, in this order:
//!
//! ```text
//! the argument --mount
//! the mount that the path is in, or that the clone there borrows from
//! the only mount of this machine
//! the only one whose daemons mirror from the repository's host
//! of these, or else of all: the one that the directory suggests, or the only one that shows the
//! repository already
//! ```
//!
//! The directory is the target of a new clone, or else the current one. If several mounts are
//! running, a line on standard error says which was chosen.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Result;
use cachewfs_format::RepoName;
use cachewfs_fuse::control::protocol::{ControlAnswer, ControlRequest, StatusReport};

use crate::borrowing::{BorrowedObjects, borrowed_by};
use crate::error::CliError;
use crate::mount_table::{MountTable, Place};
use crate::mounts::{
    MountChoice, MountState, ask_for_states, block_on, mount_here, several_mounts,
};
use crate::{output, remote};

/// How long a mount may take to answer before it is left out of the choice.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many parts of a path are the name of a repository if nothing tells: host, owner, repository.
const USUAL_PARTS: usize = 3;

/// Something that holds or not of a mount that answers.
type Rule<'a> = &'a dyn Fn(&StatusReport) -> bool;

/// The arguments that choose a repository and a mount.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RepoChoice {
    /// The repository, as https://github.com/org/repo or github.com/org/repo, or as a path in a
    /// mount or in a clone.
    #[arg(value_name = "URL")]
    url: String,

    #[command(flatten)]
    mount: MountChoice,
}

impl RepoChoice {
    /// Finds the repository and its mount.
    pub(crate) fn choose(&self) -> Result<ChosenRepo> {
        NamedRepo::find(&self.url)?.choose(&self.mount, None)
    }
}

/// A repository as a person named it.
#[derive(Clone, Debug)]
pub(crate) struct NamedRepo {
    pub(crate) name: RepoName,
    /// The URL or the name that the person typed, or the name if it was a path.
    pub(crate) url: String,
    /// The mount point of the mount that the path is in.
    mount_point: Option<PathBuf>,
}

/// A repository, and the mount for it.
#[derive(Clone, Debug)]
pub(crate) struct ChosenRepo {
    pub(crate) name: RepoName,
    pub(crate) mount: MountChoice,
}

impl NamedRepo {
    /// Finds the repository that `text` names.
    pub(crate) fn find(text: &str) -> Result<Self> {
        if let Some(found) = Self::of_path(text)? {
            return Ok(found);
        }
        Ok(Self {
            name: remote::repo_name(text)?,
            url: text.to_owned(),
            mount_point: None,
        })
    }

    /// Finds the repository at a path, or returns `None` if `text` is none.
    fn of_path(text: &str) -> Result<Option<Self>> {
        if text.contains("://") {
            return Ok(None);
        }
        let table = MountTable::read()?;
        if let Some(place) = table.place(Path::new(text)) {
            // In a mount, `org/repo` may be the end of a path or the whole name.
            let may_be_name = !remote::is_path(text) && table.place(Path::new(".")).is_some();
            let found = find_repo(&place);
            if may_be_name && found.is_none() && remote::repo_name(text).is_ok() {
                return Ok(None);
            }
            return Self::at(&place, found, text).map(Some);
        }
        let clone = remote::is_path(text).then_some(Path::new(text));
        let Some(BorrowedObjects::OfMounted(repository)) =
            clone.and_then(|path| borrowed_by(Some(path)))
        else {
            return Ok(None);
        };
        let Some(place) = table.place(&repository) else {
            let repository = repository.display().to_string();
            return Err(CliError::CloneWithoutMount { repository }.into());
        };
        let len = place.below.iter().count();
        Self::at(&place, Some(len), text).map(Some)
    }

    /// Returns the repository whose name has the first `len` parts of a path in a mount.
    fn at(place: &Place, len: Option<usize>, text: &str) -> Result<Self> {
        let parts = parts(place);
        let len = len.unwrap_or_else(|| likely_len(&parts));
        let name = parts.get(..len).unwrap_or_default().join("/");
        let name = RepoName::parse(&name).map_err(|_| CliError::NoRepositoryAtPath {
            path: text.to_owned(),
            mount_point: place.mount_point.display().to_string(),
        })?;
        Ok(Self {
            url: name.to_string(),
            name,
            mount_point: Some(place.mount_point.clone()),
        })
    }

    /// Chooses the mount, and says which if there are several. `target` is the directory of a new
    /// clone.
    pub(crate) fn choose(&self, choice: &MountChoice, target: Option<&Path>) -> Result<ChosenRepo> {
        let mount_point = match (&choice.mount, &self.mount_point) {
            (Some(_), _) => choice.mount_point()?,
            (None, Some(point)) => point.clone(),
            (None, None) => choose_mount(&self.name, target)?,
        };
        let mount = MountChoice::of(mount_point);
        let name = self.name.clone();
        Ok(ChosenRepo { name, mount })
    }
}

/// Returns the parts of a path in a mount. A part that isn't UTF-8 is in no repository's name.
fn parts(place: &Place) -> Vec<String> {
    let parts = place.below.iter();
    parts
        .map(|part| part.to_string_lossy().into_owned())
        .collect()
}

/// Returns how many parts of a path in a mount are the name of a repository, or `None` if no
/// repository is there, or if the mount doesn't answer.
fn find_repo(place: &Place) -> Option<usize> {
    let parts = parts(place);
    let states = ask_for_states(std::slice::from_ref(&place.mount_point), PATIENCE);
    // Nothing below a mount is looked at before its process has answered: it might take for ever.
    let status = states.into_iter().next()?.status.ok()?;
    let is_shown = |len: &usize| {
        let name = parts.get(..*len).map(|parts| parts.join("/"));
        let name = name.and_then(|name| RepoName::parse(&name).ok());
        name.is_some_and(|name| shows(&status, &name))
    };
    if let Some(len) = (2..=parts.len()).find(is_shown) {
        return Some(len);
    }
    let (sender, answer) = mpsc::channel();
    let (visible, root) = (place.visible.clone(), place.visible_root.clone());
    // On a thread that nobody joins: the daemon may clone the repository for the first time.
    std::thread::spawn(move || {
        let mut prefixes: Vec<&Path> = visible.ancestors().collect();
        prefixes.retain(|prefix| prefix.starts_with(&root));
        let found = prefixes.iter().rev().find(|prefix| {
            let is_bare = prefix.extension().is_some_and(|end| end == "git");
            let inside = if is_bare { "HEAD" } else { ".git" };
            prefix.join(inside).symlink_metadata().is_ok()
        });
        let behind = found.and_then(|found| visible.strip_prefix(found).ok());
        sender.send(behind.map(|path| path.iter().count())).ok();
    });
    let behind = answer.recv_timeout(PATIENCE).ok()??;
    parts.len().checked_sub(behind)
}

/// Returns how many parts of a path are the name of a repository, if no mount tells.
fn likely_len(parts: &[String]) -> usize {
    let len = parts.len().min(USUAL_PARTS);
    match parts.iter().position(|part| part == ".git") {
        Some(before) => len.min(before),
        None => len,
    }
}

/// Returns whether a mount shows the repository already.
fn shows(status: &StatusReport, name: &RepoName) -> bool {
    let mut repos = status.repos.iter();
    repos.any(|repo| repo.repo == *name && repo.snapshot.is_some())
}

/// Chooses a mount for a repository of which only the name is known.
fn choose_mount(name: &RepoName, target: Option<&Path>) -> Result<PathBuf> {
    let table = MountTable::read()?;
    let suggested = match target {
        Some(target) => mount_of_target(&table, target).or_else(|| mount_here(&table)),
        None => mount_here(&table),
    };
    let mut points = table.points_for_this_user();
    if let Some(suggested) = &suggested
        && !points.contains(suggested)
    {
        points.push(suggested.clone());
    }
    match points.as_slice() {
        [] => return Err(CliError::NoMount.into()),
        [point] => return Ok(point.clone()),
        _ => {}
    }
    let states = ask_for_states(&points, PATIENCE);
    let (point, reason) = choose_of(&states, name, suggested.as_deref(), target)?;
    let shown = point.display();
    output::error(&format!("cachewfs: using the mount at {shown}: {reason}"));
    Ok(point)
}

/// Chooses one of several mounts. Returns its mount point, and why it is that one.
fn choose_of(
    states: &[MountState],
    name: &RepoName,
    suggested: Option<&Path>,
    target: Option<&Path>,
) -> Result<(PathBuf, String), CliError> {
    let answers = |state: &&MountState, holds: Rule<'_>| {
        state.status.as_ref().is_ok_and(|status| holds(status))
    };
    let serves = |status: &StatusReport| {
        status.hosts.iter().any(|host| host == name.host()) || shows(status, name)
    };
    let serving: Vec<_> = states
        .iter()
        .filter(|state| answers(state, &serves))
        .collect();
    let candidates = match serving.as_slice() {
        [only] => {
            let reason = format!("of all mounts, only this one serves {}", name.host());
            return Ok((only.mount_point.clone(), reason));
        }
        [] => states.iter().collect(),
        _ => serving,
    };
    if let Some(suggested) = suggested
        && candidates
            .iter()
            .any(|state| state.mount_point == suggested)
    {
        let reason = "the directory belongs to it".to_owned();
        return Ok((suggested.to_owned(), reason));
    }
    let parent = target.and_then(Path::parent);
    let has_neighbours = |status: &StatusReport| {
        let mut clones = status.repos.iter().flat_map(|repo| &repo.clones);
        parent.is_some() && clones.any(|clone| clone.parent() == parent)
    };
    let shows_it = |status: &StatusReport| shows(status, name);
    let rules: [(Rule<'_>, String); 2] = [
        (
            &has_neighbours,
            "the clones beside the new one borrow from it".to_owned(),
        ),
        (&shows_it, format!("it shows {name} already")),
    ];
    for (holds, reason) in rules {
        let mut found = candidates.iter().filter(|state| answers(state, holds));
        if let (Some(only), None) = (found.next(), found.next()) {
            return Ok((only.mount_point.clone(), reason));
        }
    }
    let points = candidates.iter().map(|state| state.mount_point.clone());
    Err(several_mounts(&points.collect::<Vec<_>>()))
}

/// Returns the mount that the clone around the directory of a new clone borrows from.
fn mount_of_target(table: &MountTable, target: &Path) -> Option<PathBuf> {
    if let Some(place) = table.place(target) {
        return Some(place.mount_point);
    }
    let existing = target.ancestors().find(|above| above.is_dir())?;
    match borrowed_by(Some(existing))? {
        BorrowedObjects::OfMounted(repository) => table.mount_around(&repository),
        BorrowedObjects::Own(_) => None,
    }
}

impl ChosenRepo {
    /// Has the mount fetch what `request` names. Returns the number of bytes that it fetched. Fails
    /// if the cache doesn't have all of it then.
    pub(crate) fn fetch(&self, request: &ControlRequest) -> Result<u64> {
        match self.ask(request)? {
            ControlAnswer::Fetched { fetched_bytes } => Ok(fetched_bytes),
            ControlAnswer::Incomplete {
                kept_bytes,
                total_bytes,
                reason,
            } => Err(CliError::Incomplete {
                repo: self.name.to_string(),
                kept: output::bytes(kept_bytes),
                total: output::bytes(total_bytes),
                reason,
                is_pinned: matches!(request, ControlRequest::Pin { .. }),
            }
            .into()),
            _ => anyhow::bail!("the mount's answer is not of the requested kind"),
        }
    }

    /// Returns how many bytes of the repository the mount has fetched since it started. The mount
    /// looks at its whole cache.
    pub(crate) async fn fetched_bytes(&self) -> Result<u64> {
        let ControlAnswer::Status(status) = self.mount.ask(&ControlRequest::Status).await? else {
            anyhow::bail!("the mount's answer is not of the requested kind");
        };
        let mut repos = status.repos.iter();
        let report = repos.find(|report| report.repo == self.name);
        Ok(report.map_or(0, |report| report.traffic.fetched_bytes))
    }

    /// Sends `request` to the mount, and shows its progress until the answer arrives.
    pub(crate) fn ask(&self, request: &ControlRequest) -> Result<ControlAnswer> {
        block_on(self.mount.ask(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{repo_json, status_of};

    fn state(point: &str, hosts: &[&str], repos: &str) -> MountState {
        let mut status = status_of(repos);
        status.hosts = hosts.iter().map(|&host| host.to_owned()).collect();
        MountState {
            mount_point: point.into(),
            status: Ok(Box::new(status)),
        }
    }

    #[test]
    fn of_several_mounts_one_serves_the_repository_or_is_near() {
        let repo = |name: &str, snapshot: &str, clones: &str| {
            let rest = format!(
                r#""snapshot":{snapshot},"parts":[],"clones":[{clones}],"last_error":null"#
            );
            repo_json(name, &rest)
        };
        let with_clone = repo("two.example/org/repo", "null", r#""/work/near""#);
        let commit = format!(r#""{}""#, "0".repeat(40));
        let shown = repo("two.example/org/shown", &commit, "");
        let states = [
            state("/a", &["one.example", "two.example"], &shown),
            state("/b", &["two.example"], &with_clone),
            MountState {
                mount_point: "/dead".into(),
                status: Err(CliError::NoMount.into()),
            },
        ];
        let chosen = |name: &str, suggested: Option<&str>, target: Option<&str>| {
            let name = RepoName::parse(name).unwrap();
            let chosen = choose_of(
                &states,
                &name,
                suggested.map(Path::new),
                target.map(Path::new),
            );
            chosen
                .map(|(point, _)| point.display().to_string())
                .map_err(|error| error.to_string())
        };

        let all = Err("several mounts are running: /a, /b, /dead".to_owned());
        let two = Err("several mounts are running: /a, /b".to_owned());
        let ok = |point: &str| Ok(point.to_owned());
        assert_eq!(chosen("one.example/org/repo", None, None), ok("/a"));
        assert_eq!(chosen("one.example/org/repo", Some("/b"), None), ok("/a"));
        assert_eq!(chosen("two.example/org/repo", Some("/b"), None), ok("/b"));
        assert_eq!(
            chosen("two.example/org/x", None, Some("/work/new")),
            ok("/b")
        );
        assert_eq!(chosen("two.example/org/x", None, Some("/else/new")), two);
        assert_eq!(
            chosen("two.example/org/shown", None, Some("/else/new")),
            ok("/a")
        );
        assert_eq!(chosen("three.example/org/repo", None, None), all);
        assert_eq!(
            chosen("three.example/org/repo", Some("/dead"), None),
            ok("/dead")
        );
    }

    #[test]
    fn the_likely_name_at_a_path_ends_before_the_git_directory() {
        let likely = |path: &str| {
            let parts: Vec<_> = path.split('/').map(str::to_owned).collect();
            likely_len(&parts)
        };

        assert_eq!(likely("github.com/org/repo/src/lib.rs"), 3);
        assert_eq!(likely("host/repo/.git/objects"), 2);
        assert_eq!(likely("host"), 1);
    }
}
