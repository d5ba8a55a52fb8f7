//! Tests of how the task of a repository ends.

use std::time::Duration;

use futures_util::FutureExt as _;

use super::{World, name};
use crate::repository::{RepositoryError, Snapshots, Status};

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_repository_ends_its_task_and_can_be_opened_again() {
    let world = World::new(|_| {});
    let mirror = world.add_mirror("a.org/x");

    let repository = world.open("a.org/x");
    repository.update().await.unwrap();
    repository.forget(Snapshots::Kept).await.unwrap();

    assert!(!mirror.exists() && !world.has_leftovers());
    assert!(world.registry.find(&name("a.org/x")).is_none());
    let late = repository.refresh().await;
    assert!(matches!(late, Err(RepositoryError::Forgotten)), "{late:?}");
    world.open("a.org/x").update().await.unwrap();
    assert!(mirror.exists());
    assert_eq!(world.git.calls("clone").len(), 1);
    world.stop.cancel();
    world.join().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_no_longer_configured_ends_its_tasks_and_keeps_its_mirrors() {
    let world = World::new(|_| {});
    let mirror = world.add_mirror("a.org/x");
    world.open("a.org/x").update().await.unwrap();

    let mut config = (*world.context.config.now()).clone();
    config.upstreams.remove("a.org");
    world.context.config.replace(config);

    // No daemon stops here, so `join` ends only because the task does.
    world.join().await;
    assert!(world.registry.find(&name("a.org/x")).is_none());
    assert!(mirror.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_upstream_does_not_have_is_forgotten() {
    let world = World::new(|config| config.mirrors.retry_first = Duration::from_millis(10));
    world.git.answers("clone", "exit 128");

    let repository = world.open("a.org/guessed");

    world.join().await;
    assert!(repository.status().is_unknown());
    assert!(world.registry.find(&name("a.org/guessed")).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_a_fetch_end_and_begins_no_publish() {
    let world = World::new(|_| {});
    let mirror = world.add_mirror("a.org/x");
    world.git.answers("fetch", "hold");

    let repository = world.open("a.org/x");
    world.git.has_arrived().await;
    let mut request = std::pin::pin!(repository.refresh());
    assert!(request.as_mut().now_or_never().is_none());
    world.stop.cancel();
    world.git.release();
    world.join().await;

    let refused = request.await;
    assert!(
        matches!(refused, Err(RepositoryError::Stopping)),
        "{refused:?}"
    );
    assert!(repository.status().updated_at.is_some());
    assert_eq!(world.git.calls("show-ref"), [""; 0]);
    // The time of the last use survives the restart.
    assert!(mirror.join("cachewfs-used").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_outlasts_the_stop_is_killed() {
    let world = World::new(|_| {});
    world.add_mirror("a.org/x");
    world.git.answers("fetch", "hold");

    let repository = world.open("a.org/x");
    world.git.has_arrived().await;
    world.stop.cancel();
    let is_kept = world.git.is_held();
    world.kill.cancel();
    world.join().await;

    assert!(is_kept);
    assert!(repository.status().updated_at.is_none());
    while world.git.is_held() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_kills_a_clone_at_once() {
    let world = World::new(|_| {});
    world.add_upstream("a.org/x");
    world.git.answers("clone", "hold");

    let repository = world.open("a.org/x");
    world.git.has_arrived().await;
    world.stop.cancel();
    world.join().await;

    let has_mirror = |status: &Status| status.updated_at.is_some();
    assert!(!has_mirror(&repository.status()) && !world.mirror("a.org/x").exists());
    assert!(!world.has_leftovers());
    while world.git.is_held() {
        tokio::task::yield_now().await;
    }
}
