//! Tests of failed runs and their backoff.

use std::time::Duration;

use super::{World, is_failed_fetch};
use crate::repository::{MirrorState, Status};

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_fetch_is_retried_until_it_succeeds() {
    let world = World::new(|config| {
        config.mirrors.retry_first = Duration::from_millis(10);
        config.mirrors.retry_max = Duration::from_millis(20);
    });
    let mirror = world.add_mirror("a.org/x");
    world.git.answers("fetch", "exit 128");

    let repository = world.open("a.org/x");
    let has_failed_thrice = |status: &Status| {
        let failure = status.failure.as_ref();
        failure.is_some_and(|failure| failure.tries >= 3)
    };
    let failed = repository.status_when(has_failed_thrice).await;
    world.git.answers("fetch", "");
    let is_fresh = |status: &Status| status.updated_at.is_some();
    let status = repository.status_when(is_fresh).await;

    assert!(is_failed_fetch(&failed.failure.unwrap().error));
    assert!(world.git.calls("fetch").len() >= 4);
    // The mirror was examined, and found to be sound.
    assert_eq!(world.git.calls("clone"), [""; 0]);
    assert!(status.state == MirrorState::Ready && mirror.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_backoff_only_an_explicit_request_gets_to_upstream() {
    let world = World::new(|config| {
        config.mirrors.retry_first = Duration::from_hours(1);
        config.mirrors.retry_max = Duration::from_hours(2);
    });
    world.add_mirror("a.org/x");
    world.git.answers("fetch", "exit 128");

    let repository = world.open("a.org/x");
    let failed = repository.status_when(|status| status.failure.is_some());
    failed.await;
    let update = repository.update().await;
    let fetches_of_update = world.git.calls("fetch").len();
    let refresh = repository.refresh().await;
    let fetches_of_refresh = world.git.calls("fetch").len();
    world.git.answers("fetch", "");
    drop(repository.refresh().await);

    assert!(is_failed_fetch(&update.unwrap_err()));
    assert!(is_failed_fetch(&refresh.unwrap_err()));
    assert_eq!((fetches_of_update, fetches_of_refresh), (1, 2));
    // The explicit request reset the backoff, and the last one ended the failure of the fetch.
    repository.update().await.unwrap();
}
