//! Tests of lookups: which of them ask the daemon, and what the others answer.

use std::time::{Duration, Instant};

use cachewfs_format::RepoName;

use super::{RepoError, ResolvedName};
use crate::ino::Ino;
use crate::saved_state::Saver;
use crate::testing::scripted::DaemonState;
use crate::testing::{Bench, REPO, archive, bench};
use crate::traffic::Purpose;

fn sample() -> Bench {
    bench(archive("main", b"pack", &[("file", 0o100_644, b"content")]))
}

async fn find(bench: &Bench, name: &str) -> Result<ResolvedName, RepoError> {
    let name = RepoName::parse(name).unwrap();
    bench.repositories.find(&name).await
}

fn is_directory(found: &Result<ResolvedName, RepoError>) -> bool {
    matches!(found, Ok(ResolvedName::Directory))
}

fn is_repository(found: &Result<ResolvedName, RepoError>) -> bool {
    matches!(found, Ok(ResolvedName::Repository(_)))
}

impl Bench {
    /// Lets more time pass than any answer or failure is remembered for.
    fn wait_long(&self) {
        let by = Duration::from_secs(31);
        self.repositories.slots.age(by);
        self.repositories.hosts.age(by);
        self.repositories.reachability.age(by);
    }
}

/// Waits for a condition that background tasks bring about.
async fn until(mut is_met: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_met() {
        assert!(started.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_beginning_of_a_known_name_is_a_directory_without_a_request() {
    let bench = sample();
    assert!(is_directory(&find(&bench, "host/org").await));
    assert!(is_repository(&find(&bench, REPO).await));
    assert_eq!(bench.source.take_asked(), ["host/org", REPO]);
    // Also for the status: nothing failed.
    let reports = bench.repositories.report();
    let reported: Vec<_> = reports.iter().map(|report| report.repo.as_str()).collect();
    assert_eq!(reported, [REPO]);

    for state in [DaemonState::Well, DaemonState::Away, DaemonState::Silent] {
        bench.source.set_daemon(state);
        bench.wait_long();
        assert!(is_directory(&find(&bench, "host/org").await), "{state:?}");
        assert!(is_repository(&find(&bench, REPO).await), "{state:?}");
    }

    assert!(bench.source.take_asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_outlives_errors_and_is_checked_behind_its_lookups() {
    let bench = sample();
    assert!(is_directory(&find(&bench, "host/other").await));
    assert_eq!(bench.source.take_asked(), ["host/other"]);

    for state in [DaemonState::Failing, DaemonState::Away, DaemonState::Silent] {
        bench.source.set_daemon(state);
        bench.wait_long();
        for _ in 0..10 {
            assert!(is_directory(&find(&bench, "host/other").await), "{state:?}");
        }
        let mut asked = Vec::new();
        until(|| {
            asked.extend(bench.source.take_asked());
            !asked.is_empty()
        })
        .await;
        assert_eq!(asked, ["host/other"], "{state:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_not_asked_for_again_within_half_a_minute() {
    let bench = sample();
    for (state, name) in [
        (DaemonState::Well, "host/org/absent"),
        (DaemonState::Failing, "host/org/failing"),
    ] {
        bench.source.set_daemon(state);
        for _ in 0..2 {
            for _ in 0..100 {
                find(&bench, name).await.unwrap_err();
            }
            assert_eq!(bench.source.take_asked(), [name], "{state:?}");
            bench.wait_long();
        }
    }
    find(&bench, "host/org/failing").await.unwrap_err();
    bench.source.take_asked();
    // For a person who asks by name, the daemon is asked again.
    let name = RepoName::parse("host/org/failing").unwrap();
    bench.repositories.forget_failure(&name);
    bench.repositories.resolve(&name).await.unwrap_err();
    assert_eq!(bench.source.take_asked(), [name.as_str()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_programs_probe_are_not_asked_for() {
    let bench = sample();
    for name in [
        "host/.envrc",
        "host/.hg",
        "host/package.json",
        "host/org/.hg",
        "host/org/HEAD",
        "github.com/.anything",
        "github.com/org/repo/deep",
    ] {
        let found = find(&bench, name).await;
        assert!(matches!(found, Err(RepoError::NotFound { .. })), "{name}");
    }
    for name in [".git", ".hg", ".envrc", "package.json", "HEAD"] {
        bench
            .fs
            .lookup(Ino::ROOT, name.as_bytes())
            .await
            .unwrap_err();
    }
    assert!(is_directory(&find(&bench, "github.com/org").await));

    assert!(bench.source.take_asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_shown_soon_after_it_is_published() {
    let bench = sample();
    bench.source.set_daemon(DaemonState::Preparing(5));
    let started = Instant::now();

    assert!(is_repository(&find(&bench, REPO).await));

    assert_eq!(bench.source.take_asked().len(), 6);
    assert!(started.elapsed() < Duration::from_millis(900));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_waits_only_for_the_first_list_of_hosts() {
    let bench = sample();
    bench.repositories.hosts().await.unwrap();
    assert_eq!(bench.source.take_asked(), ["hosts (Demand)"]);
    bench.wait_long();

    bench.repositories.hosts().await.unwrap();

    let mut asked = Vec::new();
    until(|| {
        asked.extend(bench.source.take_asked());
        !asked.is_empty()
    })
    .await;
    assert_eq!(asked, ["hosts (Background)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_one_silence_unknown_names_fail_at_once() {
    let bench = sample();
    assert!(is_repository(&find(&bench, REPO).await));
    let hosts = bench.repositories.hosts().await.unwrap();
    bench.source.set_daemon(DaemonState::Silent);
    bench.wait_long();
    bench.source.take_asked();

    let reachability = &bench.repositories.reachability;
    let first = find(&bench, "host/org/unknown");
    let noted = until(|| reachability.outage().is_some());
    tokio::select! {
        found = first => panic!("the daemon is silent: {found:?}"),
        () = noted => {}
    }
    assert_eq!(bench.source.take_asked(), ["host/org/unknown"]);
    for name in [
        "host/org/unknown",
        "host/org/unknown2",
        "host/x",
        "host/x/y",
    ] {
        let found = find(&bench, name).await;
        assert!(matches!(found, Err(RepoError::Offline { .. })), "{found:?}");
    }
    assert!(!bench.repositories.has_host("unknown").await.unwrap());
    assert_eq!(bench.repositories.hosts().await.unwrap(), hosts);
    assert!(is_repository(&find(&bench, REPO).await));
    assert!(bench.source.take_asked().is_empty());

    bench.source.set_daemon(DaemonState::Well);
    bench.wait_long();
    let found = find(&bench, "host/org/unknown").await;
    assert!(
        matches!(found, Err(RepoError::NotFound { .. })),
        "{found:?}"
    );
    assert!(bench.repositories.reachability.outage().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_starts_without_a_daemon_shows_what_the_last_one_showed() {
    let mut bench = sample();
    assert!(is_repository(&find(&bench, REPO).await));
    bench.repositories.hosts().await.unwrap();
    let generation = bench.repositories.resolved().remove(0).view().generation;
    generation.work_tree(Purpose::Demand).await.unwrap();
    for state in [DaemonState::Silent, DaemonState::Away] {
        bench.source.set_daemon(state);
        bench = bench.restart();
        bench.source.take_requests();

        assert_eq!(*bench.repositories.hosts().await.unwrap(), ["host"]);
        assert_eq!(bench.repositories.names_below("host"), ["org"]);
        let org = bench.fs.lookup(Ino::ROOT, b"host").await.unwrap();
        let org = bench.fs.lookup(org.ino, b"org").await.unwrap();
        let handle = bench.fs.opendir(org.ino).unwrap();
        let listing = bench.fs.listing((org.ino, handle), 0).await.unwrap();
        let entry = listing.entries.last().unwrap();
        assert_eq!(entry.name, b"repo");
        // The kernel uses an entry of a listing without a lookup of its own.
        bench.fs.remember(entry);
        let file = bench.fs.lookup(entry.attr.ino, b"file").await.unwrap();
        let git = bench.fs.lookup(entry.attr.ino, b".git").await.unwrap();
        bench.fs.lookup(git.ino, b"index").await.unwrap();
        assert_eq!(file.size, 7);
        let repository = bench.fs.lookup(org.ino, b"repo").await.unwrap();
        assert_eq!(repository.ino, entry.attr.ino);

        let shown = bench.repositories.resolved().remove(0);
        assert_eq!(shown.view().generation.snapshot, generation.snapshot);
        until(|| bench.repositories.reachability.is_doubtful()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_starts_with_a_daemon_shows_the_newest() {
    let bench = sample();
    assert!(is_repository(&find(&bench, REPO).await));
    let bench = bench.restart();
    let new = archive("next", b"new pack", &[("file", 0o100_644, b"new")]);
    let newest = new.snapshot;
    bench.source.publish(new);

    assert!(is_repository(&find(&bench, REPO).await));

    let shown = |bench: &Bench| {
        let repository = bench.repositories.resolved().remove(0);
        repository.view().generation.snapshot
    };
    assert_eq!(shown(&bench), newest);

    // The first request fails, the poll behind it may succeed.
    bench.source.set_daemon(DaemonState::Away);
    let bench = bench.restart();
    let last = archive("last", b"last pack", &[("file", 0o100_644, b"last")]);
    let last_snapshot = last.snapshot;
    bench.source.publish(last);
    assert!(is_repository(&find(&bench, REPO).await));
    assert_eq!(shown(&bench), newest);
    bench.source.set_daemon(DaemonState::Well);
    let repository = bench.repositories.resolved().remove(0);
    bench.repositories.catch_up(&repository).await.unwrap();
    assert_eq!(shown(&bench), last_snapshot);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_gone_is_not_shown_by_the_next_mount() {
    let bench = sample();
    assert!(is_repository(&find(&bench, REPO).await));
    bench.source.set_daemon(DaemonState::Gone);
    let repository = bench.repositories.resolved().remove(0);

    let outcome = bench.repositories.catch_up(&repository).await;

    assert!(matches!(outcome, Err(RepoError::NotFound { .. })));
    // This one goes on.
    assert!(is_repository(&find(&bench, REPO).await));
    bench.source.set_daemon(DaemonState::Away);
    let bench = bench.restart();
    let found = find(&bench, REPO).await;
    assert!(matches!(found, Err(RepoError::Unreachable(_))), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_takes_over_asks_for_nothing_that_the_old_one_knew() {
    let (old, new) = (sample(), sample());
    assert!(is_directory(&find(&old, "host/other").await));
    let hosts = old.repositories.hosts().await.unwrap();
    for bench in [&old, &new] {
        bench.source.set_daemon(DaemonState::Silent);
    }
    let unanswered = find(&old, "host/org/unknown");
    let patience = Duration::from_secs(1);
    drop(tokio::time::timeout(patience, unanswered).await);
    let mut saver = Saver::default();
    old.repositories.save(&mut saver).unwrap();

    new.repositories.restore_names(saver.state.names);

    assert!(is_directory(&find(&new, "host/other").await));
    assert_eq!(new.repositories.hosts().await.unwrap(), hosts);
    let unknown = find(&new, "host/org/unknown").await;
    assert!(matches!(unknown, Err(RepoError::Offline { .. })));
    assert!(new.source.take_asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_leaves_out_names_that_were_only_walked_through() {
    let bench = sample();
    let reported = || {
        let reports = bench.repositories.report().into_iter();
        let reports = reports.map(|report| (report.repo.to_string(), report.last_error.is_some()));
        reports.collect::<Vec<_>>()
    };
    // The daemon has no repository of these names.
    bench.source.set_daemon(DaemonState::Gone);
    for name in ["host/walked", "host/org/absent"] {
        find(&bench, name).await.ok();
    }
    assert_eq!(reported(), []);
    // Upstream may have a repository, and shows it to others only.
    bench.source.set_daemon(DaemonState::Denied);
    find(&bench, "host/denied/repo").await.unwrap_err();
    find(&bench, "host/denied").await.ok();
    assert_eq!(reported(), [("host/denied/repo".to_owned(), true)]);
    bench.wait_long();

    // An organisation and a repository, while no daemon answers.
    bench.source.set_daemon(DaemonState::Away);
    for name in ["host/away", "host/away/repo"] {
        let name = RepoName::parse(name).unwrap();
        bench.repositories.resolve(&name).await.unwrap_err();
    }
    assert_eq!(reported(), [("host/away/repo".to_owned(), true)]);

    // The daemon can't fetch a repository.
    bench.source.set_daemon(DaemonState::Failing);
    let name = RepoName::parse("host/broken").unwrap();
    bench.repositories.resolve(&name).await.unwrap_err();
    let expected = ["host/away/repo", "host/broken"].map(|name| (name.to_owned(), true));
    assert_eq!(reported(), expected);
}
