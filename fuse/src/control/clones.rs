//! The clones that borrow objects of a mount, as `cachewfs clone` registers them.
//!
//! They are hints for people: `cachewfs status` and `cachewfs umount` list them. The mount never
//! looks at the directories, because it may run as root. A look at a path on behalf of one user
//! would reveal whether another user's path exists, and it could hang.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use cachewfs_format::RepoName;
use parking_lot::Mutex;

use super::connections::Peer;
use crate::saved_state::CloneState;

/// At most this many bytes in the path of a clone: the limit of Linux itself.
const MAX_PATH_LEN: usize = 4096;
/// At most this many clones of one user. Beyond that, the user's oldest is forgotten.
const MAX_OF_ONE: usize = 256;
/// At most this many clones of all users. Beyond that, the user with the most loses the oldest.
const MAX: usize = 2048;

/// The registered clones, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Clones(Mutex<Vec<RegisteredClone>>);

#[derive(Debug)]
struct RegisteredClone {
    owner: Peer,
    repo: RepoName,
    directory: PathBuf,
}

impl Clones {
    /// Registers that the clone at `directory` borrows objects of `repo`. An error is the reason.
    pub(super) fn register(
        &self,
        owner: Peer,
        repo: RepoName,
        directory: PathBuf,
    ) -> Result<(), &'static str> {
        if !directory.is_absolute() {
            return Err("can't register the clone: its path must be absolute");
        }
        if directory.as_os_str().len() > MAX_PATH_LEN {
            return Err("can't register the clone: its path is longer than 4096 bytes");
        }
        let mut clones = self.0.lock();
        // A clone that is registered again counts as the newest.
        clones.retain(|known| {
            known.owner != owner
                || known.directory.as_os_str() != directory.as_os_str()
                || known.repo != repo
        });
        let own = clones.iter().filter(|known| known.owner == owner).count();
        // The user with too many clones loses one of them: otherwise one user could make the mount
        // forget the clones of the others.
        if own >= MAX_OF_ONE {
            forget_oldest(&mut clones, owner);
        } else if clones.len() >= MAX
            && let Some(user_with_most_clones) = user_with_most_clones(&clones)
        {
            forget_oldest(&mut clones, user_with_most_clones);
        }
        clones.push(RegisteredClone {
            owner,
            repo,
            directory,
        });
        Ok(())
    }

    /// Forgets the clone at `directory` that `owner` registered.
    pub(super) fn unregister(&self, owner: Peer, directory: &Path) {
        let mut clones = self.0.lock();
        clones.retain(|known| {
            known.owner != owner || known.directory.as_os_str() != directory.as_os_str()
        });
    }

    /// Returns the clones of `repo` that `viewer` may see.
    ///
    /// The owner of the mount and root see all. Another user sees only the clones of that user.
    pub(super) fn of(&self, repo: &RepoName, viewer: Peer) -> Vec<PathBuf> {
        let clones = self.0.lock();
        let visible = clones.iter().filter(|known| {
            known.repo == *repo && (viewer == Peer::Owner || known.owner == viewer)
        });
        visible
            .map(|known| Path::to_owned(&known.directory))
            .collect()
    }

    /// Returns all clones, for another process.
    pub(crate) fn save(&self) -> Vec<CloneState> {
        let save = |known: &RegisteredClone| CloneState {
            uid: match known.owner {
                Peer::Owner => None,
                Peer::Other { uid } => Some(uid),
            },
            repo: known.repo.clone(),
            directory: known.directory.clone(),
        };
        self.0.lock().iter().map(save).collect()
    }

    /// Takes over the clones that another process knew.
    pub(crate) fn restore(&self, clones: Vec<CloneState>) {
        for CloneState {
            uid,
            repo,
            directory,
        } in clones
        {
            let owner = uid.map_or(Peer::Owner, |uid| Peer::Other { uid });
            // One that this version refuses is forgotten: clones are only hints for people.
            self.register(owner, repo, directory).ok();
        }
    }
}

fn forget_oldest(clones: &mut Vec<RegisteredClone>, owner: Peer) {
    if let Some(at) = clones.iter().position(|known| known.owner == owner) {
        clones.remove(at);
    }
}

/// Returns the user with the most clones, or `None` if there are no clones.
fn user_with_most_clones(clones: &[RegisteredClone]) -> Option<Peer> {
    let mut counts: HashMap<Peer, usize> = HashMap::new();
    for known in clones {
        *counts.entry(known.owner).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|&(_, count)| count);
    most.map(|(owner, _)| owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repo() -> RepoName {
        RepoName::parse("host/org/repo").unwrap()
    }

    fn register(clones: &Clones, owner: Peer, directory: impl Into<PathBuf>) -> bool {
        clones.register(owner, repo(), directory.into()).is_ok()
    }

    #[test]
    fn one_user_fills_only_his_own_share() {
        let clones = Clones::default();
        register(&clones, Peer::Owner, "/home/owner/clone");

        for uid in 1..12 {
            for number in 0..MAX_OF_ONE + 10 {
                register(
                    &clones,
                    Peer::Other { uid },
                    format!("/home/{uid}/{number}"),
                );
            }
        }

        assert_eq!(clones.0.lock().len(), MAX);
        let own = clones.of(&repo(), Peer::Other { uid: 11 });
        assert!(own.len() <= MAX_OF_ONE, "{}", own.len());
        assert_eq!(own.last().unwrap(), Path::new("/home/11/265"));
        assert_eq!(
            clones.of(&repo(), Peer::Owner)[0],
            Path::new("/home/owner/clone")
        );
    }

    #[test]
    fn a_relative_or_long_path_is_refused_and_a_clone_is_listed_once() {
        let clones = Clones::default();
        let other = Peer::Other { uid: 1 };

        assert!(!register(&clones, other, "relative"));
        assert!(!register(
            &clones,
            other,
            format!("/{}", "x".repeat(MAX_PATH_LEN))
        ));
        assert!(register(&clones, other, "/clone"));
        assert!(register(&clones, other, "/clone"));

        assert_eq!(clones.of(&repo(), other), [Path::new("/clone")]);
        assert!(clones.of(&repo(), Peer::Other { uid: 2 }).is_empty());

        clones.unregister(Peer::Other { uid: 2 }, Path::new("/clone"));
        assert_eq!(clones.of(&repo(), other), [Path::new("/clone")]);
        clones.unregister(other, Path::new("/clone"));
        assert!(clones.of(&repo(), other).is_empty());
    }
}
