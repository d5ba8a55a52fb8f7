//! Upstreams that hang, die, fail or lie. The daemon still serves other repositories and published
//! snapshots, and reports the failure in its state.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use crate::support::http_upstream::*;
use crate::support::liar::Lie;
use crate::support::test_daemon::*;

const HEALTHY: &str = "git.example.com/org/healthy";
/// The repository of the bad upstream under a second name, which is never published.
const FRESH: &str = "git.example.com/org/fresh";

/// A published repository whose upstream turns bad, and a healthy repository beside it.
struct BadUpstream {
    daemon: TestDaemon,
    upstream: HttpUpstream,
    work: PathBuf,
    healthy: PathBuf,
    published: String,
}

impl BadUpstream {
    async fn start() -> Self {
        let (daemon, upstream) = start_behind_http(|config| {
            config.mirrors.retry_first = Duration::from_hours(1);
            config.mirrors.stop_timeout = Duration::from_millis(100);
            config.ref_check_interval = Duration::ZERO;
        })
        .await;
        let work = daemon.create_upstream();
        let healthy = daemon.create_upstream_at("org/healthy", "healthy");
        write_file(&work.join("file"), "one");
        let published = commit_and_push(&work, "one");
        daemon.refresh().await;
        let bare = daemon.upstream();
        std::os::unix::fs::symlink(&bare, bare.with_file_name("fresh.git")).unwrap();
        Self {
            daemon,
            upstream,
            work,
            healthy,
            published,
        }
    }

    /// Pushes a commit that is not published yet.
    fn push(&self) -> String {
        write_file(&self.work.join("file"), format!("after {}", self.published));
        commit_and_push(&self.work, "more")
    }

    /// Requests a publish of `repo`. Returns the status and code of the error.
    async fn refresh_error(&self, repo: &str) -> (u16, String) {
        let path = format!("/git/{repo}/refresh");
        code(self.daemon.post(&path, "").await).await
    }

    async fn state_of(&self, repo: &str) -> Value {
        let path = format!("/api/v1/repos/{repo}");
        self.daemon.get(&path, &[]).await.json().await.unwrap()
    }

    /// Checks that another repository can be mirrored, updated, published, cloned and fetched.
    async fn assert_others_are_served(&self) {
        let daemon = &self.daemon;
        let to = tempfile::tempdir_in(daemon.root.path()).unwrap();
        write_file(&self.healthy.join("file"), to.path().display().to_string());
        let first = commit_and_push(&self.healthy, "one");
        let archive = format!("/git/{HEALTHY}/snapshot.tar.zst");
        let refresh = format!("/git/{HEALTHY}/refresh");
        assert_eq!(daemon.post(&refresh, "").await.status(), 200);
        let url = daemon.url(&format!("/git/{HEALTHY}"));
        let clone = to.path().join("clone");
        git(to.path(), ["clone", "-q", &url, clone.to_str().unwrap()]);
        assert_eq!(git(&clone, ["rev-parse", "HEAD"]), first);
        let second = commit_and_push(&self.healthy, "two");
        git(&clone, ["fetch", "-q"]);
        assert_eq!(git(&clone, ["rev-parse", "origin/main"]), second);
        assert_eq!(daemon.post(&refresh, "").await.status(), 200);
        let published = daemon.get(&archive, &[]).await;
        assert_eq!(header(&published, "x-cachew-snapshot-commit"), second);
        let files = untar(&published.bytes().await.unwrap(), to.path());
        assert_eq!(git(&files, ["rev-parse", "HEAD"]), second);
        assert_eq!(self.state_of(HEALTHY).await["failure"], Value::Null);
    }

    /// Checks that the published snapshot is still served and complete.
    async fn assert_still_served(&self) {
        let clone = self.daemon.extract("snapshot.tar.zst").await;
        assert_eq!(git(&clone, ["rev-parse", "HEAD"]), self.published);
        assert_good_clone(&clone);
        self.assert_still_current().await;
    }

    /// Checks that the snapshot is still current and that its mirror still exists.
    async fn assert_still_current(&self) {
        let head = self.daemon.request(Method::HEAD, &stable(), &[]).await;
        assert_eq!(header(&head, "x-cachew-snapshot-commit"), self.published);
        let status = self.state_of(REPO).await;
        assert_eq!(status["state"], "ready");
        let snapshot = status["published"]["snapshot"].as_str().unwrap();
        assert!(snapshot.starts_with(&self.published));
    }

    /// Checks that the daemon finds the mirror equal to upstream, so that no update follows.
    async fn assert_check_finds_no_change(&self) {
        let fetches = || self.upstream.seen(&["GET /org/repo/info/refs"]).len();
        let before = fetches();
        let path = format!("/git/{REPO}/info/refs?service=git-upload-pack");
        assert_eq!(self.daemon.get(&path, &[]).await.status(), 200);
        assert_eq!(fetches(), before);
    }

    /// Checks that the pushed commit is published once upstream works again.
    async fn assert_recovers(&mut self, pushed: &str) {
        self.upstream.set(UpstreamMode::Good);
        let snapshot = self.daemon.refresh().await["snapshot"].clone();
        assert!(snapshot.as_str().unwrap().starts_with(pushed));
        assert_eq!(self.state_of(REPO).await["failure"], Value::Null);
        pushed.clone_into(&mut self.published);
        self.assert_still_current().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_hangs_harms_no_other() {
    let mut bad = BadUpstream::start().await;
    let pushed = bad.push();
    bad.upstream.set(UpstreamMode::Hangs);
    let seen = bad.upstream.seen(&["/org/repo/"]).len();
    let ask = |path: String| {
        let request = reqwest::Client::new().post(bad.daemon.url(&path));
        tokio::spawn(async move { request.send().await.map(|response| response.status()) })
    };
    let hanging = [REPO, FRESH].map(|repo| ask(format!("/git/{repo}/refresh")));
    eventually(|| bad.upstream.seen(&["/org/repo/"]).len() > seen).await;
    eventually(|| !bad.upstream.seen(&["/org/fresh/"]).is_empty()).await;

    bad.assert_others_are_served().await;
    bad.assert_still_served().await;
    let path = format!("/git/{FRESH}/mirror.tar.zst");
    let fresh = bad.daemon.get(&path, &[("range", "bytes=-1")]).await;
    assert_eq!(code(fresh).await, (503, "snapshot_not_ready".to_owned()));
    assert_eq!(bad.state_of(FRESH).await["state"], "cloning");
    assert!(hanging.iter().all(|task| !task.is_finished()));
    hanging.iter().for_each(tokio::task::JoinHandle::abort);

    // Again with short timeouts.
    let url = bad.upstream.url();
    let root = bad.daemon.stop().await;
    bad.daemon = TestDaemon::start_in(root, |config| {
        config.upstreams = [("git.example.com".to_owned(), url.into())].into();
        config.mirrors.retry_first = Duration::from_hours(1);
        config.git.ls_remote_timeout = Duration::from_millis(500);
        config.git.clone_timeout = Duration::from_millis(500);
    })
    .await;
    for repo in [REPO, FRESH] {
        assert_eq!(
            bad.refresh_error(repo).await,
            (504, "upstream_timeout".to_owned())
        );
        assert_eq!(
            bad.state_of(repo).await["failure"]["code"],
            "upstream_timeout"
        );
    }
    bad.assert_still_served().await;
    assert_eq!(bad.state_of(FRESH).await["state"], "failed");
    let root = {
        bad.upstream.set(UpstreamMode::Good);
        bad.daemon.stop().await
    };
    let url = bad.upstream.url();
    bad.daemon = TestDaemon::start_in(root, |config| {
        config.upstreams = [("git.example.com".to_owned(), url.into())].into();
    })
    .await;
    bad.assert_recovers(&pushed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_dies_in_the_middle_of_a_pack_harms_no_other() {
    let mut bad = BadUpstream::start().await;
    let pushed = bad.push();
    bad.upstream.set(UpstreamMode::Breaks);
    let base = bad.daemon.url("/git");
    let asked = |repo| {
        let line = format!("POST /org/{repo}/git-upload-pack");
        bad.upstream.seen(&[&line]).len()
    };
    let before = ["repo", "fresh"].map(asked);
    let hanging = [REPO, FRESH].map(|repo| {
        let request = reqwest::Client::new().post(format!("{base}/{repo}/refresh"));
        tokio::spawn(async move { code(request.send().await.unwrap()).await })
    });
    for (repo, before) in ["repo", "fresh"].into_iter().zip(before) {
        // An update lists refs twice, a clone once; then both request the pack.
        let requests = if repo == "repo" { 3 } else { 2 };
        eventually(|| asked(repo) >= before + requests).await;
    }

    bad.assert_others_are_served().await;
    bad.upstream.set(UpstreamMode::Fails);
    for task in hanging {
        assert_eq!(task.await.unwrap(), (502, "upstream_failed".to_owned()));
    }

    for (repo, state) in [(REPO, "ready"), (FRESH, "failed")] {
        let status = bad.state_of(repo).await;
        assert_eq!(status["failure"]["code"], "upstream_failed", "{status}");
        assert_eq!(status["state"], state);
    }
    let tmp = bad.daemon.root.path().join("data/tmp");
    let is_clone = |entry: std::io::Result<fs::DirEntry>| {
        entry
            .unwrap()
            .file_name()
            .to_str()
            .unwrap()
            .starts_with("clone-")
    };
    assert!(!fs::read_dir(tmp).unwrap().any(is_clone));
    bad.assert_still_served().await;
    bad.assert_recovers(&pushed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_answers_500_harms_no_other() {
    let mut bad = BadUpstream::start().await;
    let pushed = bad.push();
    bad.upstream.set(UpstreamMode::Fails);

    for (repo, state) in [(REPO, "ready"), (FRESH, "failed")] {
        assert_eq!(
            bad.refresh_error(repo).await,
            (502, "upstream_failed".to_owned())
        );
        let status = bad.state_of(repo).await;
        assert_eq!(status["state"], state);
        assert_eq!(status["failure"]["code"], "upstream_failed");
        assert!(
            status["failure"]["message"]
                .as_str()
                .unwrap()
                .contains("500")
        );
    }
    bad.assert_others_are_served().await;
    bad.assert_still_served().await;
    bad.assert_recovers(&pushed).await;
}

/// Adds all files called `name` below `directory` to `found`.
fn find(directory: &Path, name: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() == name {
            found.push(entry.path());
        }
        if entry.file_type().unwrap().is_dir() {
            find(&entry.path(), name, found);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_lies_about_refs_harms_no_other() {
    check_lies(Lie::OF_REFS).await;
}

/// `git fetch` succeeds in this case. Without a comparison of refs, the daemon would take the
/// mirror for fresh.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_whose_fetches_contradict_its_listing_is_not_taken_for_a_busy_one() {
    check_lies(Lie::OF_FETCHES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_lies_about_head_harms_no_other() {
    check_lies(Lie::OF_HEAD).await;
}

async fn check_lies(lies: &[Lie]) {
    let mut bad = BadUpstream::start().await;
    for &lie in lies {
        let pushed = bad.push();
        bad.upstream.set(UpstreamMode::Lies(lie));
        let expected = match lie {
            Lie::Ghost
            | Lie::LacksObjects
            | Lie::HidesFromFetches
            | Lie::IsOldForFetches
            | Lie::HeadEscapes
            | Lie::HeadIsOption
            | Lie::HeadLoops => "upstream_failed",
            Lie::HidesBranch => "repository_empty",
            Lie::BadNames | Lie::NeverStandsStill | Lie::HeadAtNothing => "",
        };
        for repo in [REPO, FRESH] {
            let answer = bad.daemon.post(&format!("/git/{repo}/refresh"), "").await;
            let failure = bad.state_of(repo).await["failure"].clone();
            if expected.is_empty() {
                assert_eq!(answer.status(), 200, "{lie:?}");
                assert_eq!(failure, Value::Null);
            } else {
                assert_eq!(code(answer).await.1, expected, "{lie:?}");
                assert_eq!(failure["code"], expected, "{lie:?}: {failure}");
                if matches!(lie, Lie::HidesFromFetches | Lie::IsOldForFetches) {
                    let message = failure["message"].as_str().unwrap();
                    assert!(message.contains("refs/heads/main"), "{message}");
                }
            }
        }
        if matches!(lie, Lie::BadNames | Lie::NeverStandsStill) {
            pushed.clone_into(&mut bad.published);
        }
        if lie == Lie::BadNames {
            bad.assert_check_finds_no_change().await;
        }
        // If HEAD names no branch, a snapshot without a work tree becomes current.
        if lie != Lie::HeadAtNothing {
            bad.assert_still_current().await;
        }
        let forget = format!("/api/v1/repos/{FRESH}/forget?store=true");
        assert_eq!(bad.daemon.post(&forget, "").await.status(), 200);
        let mut found = Vec::new();
        find(bad.daemon.root.path(), "escaped", &mut found);
        assert_eq!(found, [] as [PathBuf; 0], "{lie:?}");
        bad.assert_recovers(&pushed).await;
    }
    bad.assert_still_served().await;
    bad.assert_others_are_served().await;
}
