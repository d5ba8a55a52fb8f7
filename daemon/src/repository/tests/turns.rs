//! Tests of jobs that wait for their turns.

use super::World;
use crate::metrics::JobClass;
use crate::repository::Status;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_waits_for_the_limit_of_its_host_and_delays_no_other_host() {
    let world = World::new(|config| config.jobs.updates_per_host = 1);
    for repo in ["a.org/x", "a.org/y", "b.org/z"] {
        world.add_mirror(repo);
    }
    world
        .git
        .answers("fetch", "case $repository in */a.org/x.git) hold ;; esac");

    let x = world.open("a.org/x");
    world.git.has_arrived().await;
    let y = world.open("a.org/y");
    let waits = |status: &Status| {
        status
            .current_job
            .as_ref()
            .is_some_and(|job| !job.is_running)
    };
    let waiting = y.status_when(waits).await.current_job.unwrap();
    world.open("b.org/z").update().await.unwrap();
    let is_still_waiting = waits(&y.status()) && world.git.is_held();
    let fetched = world.git.calls("fetch");
    world.git.release();
    y.update().await.unwrap();

    assert_eq!(waiting.class, JobClass::Update);
    assert!(is_still_waiting);
    let of = |calls: &[String], repo: &str| calls.iter().filter(|it| it.contains(repo)).count();
    assert_eq!(of(&fetched, "/a.org/x.git"), 1);
    assert_eq!(of(&fetched, "/a.org/y.git"), 0);
    assert!(of(&fetched, "/b.org/z.git") >= 1);
    assert!(of(&world.git.calls("fetch"), "/a.org/y.git") >= 1);
    x.status_when(|status| status.updated_at.is_some()).await;
}
