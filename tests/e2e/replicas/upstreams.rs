//! Upstream repositories that change all the time: by pushes, forced pushes, branches and tags.
//!
//! They are also the oracle: they know each commit that HEAD has ever been at, and the files of
//! each commit.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use cachewfs_tests::{Dice, GitRepo, Site, git};

const FILES: usize = 40;

/// The repositories that the replicas mirror.
#[derive(Debug)]
pub(super) struct Upstreams {
    repos: Vec<Upstream>,
}

/// One repository. Its working copy keeps all commits that were ever made, also after forced
/// pushes.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) name: String,
    pub(super) work: PathBuf,
    pub(super) bare: PathBuf,
    repo: Mutex<GitRepo>,
    /// All commits that HEAD has been at, or will be at in a moment.
    heads: Mutex<HashSet<String>>,
}

impl Upstreams {
    pub(super) fn create(site: &Site, count: usize, dice: &mut Dice) -> Self {
        let create = |number| Upstream::create(site, format!("repo-{number:02}"), dice);
        Self {
            repos: (0..count).map(create).collect(),
        }
    }

    pub(super) fn all(&self) -> &[Upstream] {
        &self.repos
    }
}

impl Upstream {
    fn create(site: &Site, name: String, dice: &mut Dice) -> Self {
        let repo = site.repo(&name);
        git(&repo.work, &["config", "gc.auto", "0"]);
        git(&repo.upstream, &["config", "gc.auto", "0"]);
        let upstream = Self {
            name,
            work: repo.work.clone(),
            bare: repo.upstream.clone(),
            repo: Mutex::new(repo),
            heads: Mutex::default(),
        };
        upstream.repo.lock().unwrap().add_odd_files();
        for _ in 0..3 {
            upstream.advance(dice);
        }
        upstream
    }

    /// Returns the path of an archive of this repository, in a URL of a replica.
    pub(super) fn url(&self, archive: &str) -> String {
        format!("/git/local/{}/{archive}", self.name)
    }

    /// Makes a random change and pushes it. Returns the name of this kind of change, in the plural.
    pub(super) fn change(&self, dice: &mut Dice) -> &'static str {
        match dice.below(10) {
            0 => {
                git(&self.work, &["reset", "-q", "--hard", "HEAD~1"]);
                self.advance(dice);
                "pushes by force"
            }
            1 | 2 => {
                let branch = format!("topic-{}", dice.below(6));
                git(&self.work, &["checkout", "-q", "-B", &branch]);
                self.commit(dice);
                git(&self.work, &["checkout", "-q", "main"]);
                self.push(&branch);
                "pushes to a branch"
            }
            3 => {
                let listed = git(
                    &self.bare,
                    &["branch", "--list", "--format=%(refname:short)"],
                );
                let others: Vec<_> = listed.lines().filter(|name| *name != "main").collect();
                if !others.is_empty() {
                    let branch = *dice.pick(&others);
                    git(&self.work, &["push", "-q", "origin", "--delete", branch]);
                }
                "deletions of a branch"
            }
            4 => {
                let tag = format!("v{}", dice.below(1000));
                git(&self.work, &["tag", "-f", "-a", "-m", "a tag", &tag]);
                self.push(&tag);
                "pushes of a tag"
            }
            _ => {
                self.advance(dice);
                "pushes"
            }
        }
    }

    /// Commits a change of two files. Returns the commit's id.
    fn commit(&self, dice: &mut Dice) -> String {
        let mut repo = self.repo.lock().unwrap();
        let file = format!("dir-{}/file-{}", dice.below(5), dice.below(FILES));
        let len = 200 + dice.below(6000);
        repo.write(file, &dice.noise(len));
        repo.write("README.md", format!("{}\n", dice.below(1 << 30)).as_bytes());
        repo.commit("a change")
    }

    /// Commits to the main branch and pushes it.
    fn advance(&self, dice: &mut Dice) {
        let commit = self.commit(dice);
        // Before the push: a replica may show the commit as soon as upstream has it.
        self.heads.lock().unwrap().insert(commit);
        self.push("main");
    }

    fn push(&self, what: &str) {
        git(&self.work, &["push", "-q", "--force", "origin", what]);
    }

    /// Panics unless HEAD was at `commit` at some time.
    pub(super) fn assert_was_head(&self, commit: &str) {
        let was = self.heads.lock().unwrap().contains(commit);
        assert!(was, "HEAD of {} was never at {commit:?}", self.name);
    }

    /// Returns the commit of HEAD now.
    pub(super) fn head(&self) -> String {
        git(&self.bare, &["rev-parse", "main"]).trim().to_owned()
    }

    /// Returns all branches and tags as they are now.
    pub(super) fn refs(&self) -> String {
        refs(&self.bare)
    }

    /// Panics unless `clone`, which was extracted from an archive of `commit`, has all objects, and
    /// its files are those of the commit.
    pub(super) fn assert_clone(&self, clone: &PathBuf, commit: &str) {
        assert_eq!(git(clone, &["rev-parse", "HEAD"]).trim(), commit);
        git(clone, &["fsck", "--strict", "--no-progress"]);
        // Without an index, git has to read every file.
        fs::remove_file(clone.join(".git/index")).unwrap();
        git(clone, &["add", "--all", "--force"]);
        let tree = git(&self.work, &["rev-parse", &format!("{commit}^{{tree}}")]);
        assert_eq!(
            git(clone, &["write-tree"]),
            tree,
            "{} at {commit}",
            self.name
        );
    }
}

/// Returns the branches and tags of a repository.
pub(super) fn refs(bare: &PathBuf) -> String {
    let format = "--format=%(objectname) %(refname)";
    git(bare, &["for-each-ref", format, "refs/heads", "refs/tags"])
}
