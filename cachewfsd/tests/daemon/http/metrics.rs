//! The samples of `/metrics` after known requests.

use std::collections::BTreeSet;

use reqwest::Method;

use cachewfs_tests::s3_bucket;

use crate::support::test_daemon::*;

async fn scrape(daemon: &TestDaemon) -> String {
    let response = daemon.get("/metrics", &[]).await;
    assert_eq!(response.status(), 200);
    let kind = response.headers()["content-type"].to_str().unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    response.text().await.unwrap()
}

fn value(page: &str, sample: &str) -> Option<f64> {
    let line = page.lines().find_map(|line| line.strip_prefix(sample));
    line.map(|value| value.trim().parse().unwrap())
}

/// Scrapes until the sample has the value. The daemon counts a response a moment after the client
/// has received it.
async fn expect(daemon: &TestDaemon, sample: &str, expected: f64) {
    until(async || {
        let value = value(&scrape(daemon).await, sample);
        let is_expected = value.is_some_and(|value| (value - expected).abs() < 1e-9);
        let otherwise = || format!("{sample} is {value:?}, not {expected}");
        is_expected.then_some(()).ok_or_else(otherwise)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_counts_the_requests_before_it() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    write_file(&work.join("noise"), noise(1, 300_000));
    commit_and_push(&work, "one");
    daemon.refresh().await;
    let stable = format!("/git/{REPO}/snapshot.tar.zst");

    for range in ["bytes=0-999", "bytes=5-1004"] {
        let part = daemon.get(&stable, &[("range", range)]).await;
        assert_eq!(part.bytes().await.unwrap().len(), 1000);
    }
    daemon.request(Method::HEAD, &stable, &[]).await;
    daemon.get("/git/other.org/a/snapshot.tar.zst", &[]).await;
    daemon.get("/nothing", &[]).await;

    for (sample, expected) in [
        (
            "cachewfsd_http_requests_total{route=\"archive\",status=\"206\"}",
            2.0,
        ),
        (
            "cachewfsd_http_requests_total{route=\"archive\",status=\"200\"}",
            1.0,
        ),
        (
            "cachewfsd_http_requests_total{route=\"archive\",status=\"404\"}",
            1.0,
        ),
        (
            "cachewfsd_http_requests_total{route=\"snapshot\",status=\"200\"}",
            1.0,
        ),
        (
            "cachewfsd_http_requests_total{route=\"other\",status=\"404\"}",
            1.0,
        ),
        (
            "cachewfsd_http_first_byte_seconds_count{route=\"archive\"}",
            3.0,
        ),
        ("cachewfsd_http_requests_under_way{route=\"archive\"}", 0.0),
        (
            "cachewfsd_http_responses_broken_total{route=\"archive\"}",
            0.0,
        ),
        (
            "cachewfsd_http_requests_under_way{route=\"operations\"}",
            1.0,
        ),
        ("cachewfsd_store_read_bytes_total{tier=\"disk\"}", 2000.0),
        (
            "cachewfsd_job_duration_seconds_count{class=\"clone\",end=\"done\"}",
            1.0,
        ),
        (
            "cachewfsd_job_duration_seconds_count{class=\"publish\",end=\"done\"}",
            1.0,
        ),
        ("cachewfsd_jobs_running{class=\"publish\"}", 0.0),
        ("cachewfsd_publish_phase_seconds_count{phase=\"pack\"}", 1.0),
        (
            "cachewfsd_publish_phase_seconds_count{phase=\"store\"}",
            1.0,
        ),
        ("cachewfsd_repositories{state=\"ready\"}", 1.0),
        ("cachewfsd_repositories_failing", 0.0),
    ] {
        expect(&daemon, sample, expected).await;
    }
    let page = scrape(&daemon).await;
    let sample = |name: &str| value(&page, name).unwrap_or_else(|| panic!("no {name} in {page}"));
    for phase in ["pack", "index", "checkout", "assemble", "store"] {
        let name = format!("cachewfsd_publish_written_bytes_total{{phase=\"{phase}\"}}");
        let least = if phase == "index" { 100.0 } else { 300_000.0 };
        assert!(sample(&name) > least, "{phase}");
    }
    assert!(sample(&format!("cachewfsd_mirror_lag_seconds{{repo=\"{REPO}\"}}")) < 60.0);
    assert!(sample("cachewfsd_disk_free_bytes") > 0.0);
    assert!(sample("cachewfsd_disk_used_bytes{area=\"store\"}") >= 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_is_counted_as_a_job() {
    let daemon = TestDaemon::start_with(|config| config.mirrors.repack_packs = 1).await;
    let work = daemon.create_upstream();

    // The first job indexes the packs, the second one repacks them.
    for (commit, jobs) in [("one", 1.0), ("two", 2.0)] {
        commit_and_push(&work, commit);
        daemon.refresh().await;

        let done = "cachewfsd_job_duration_seconds_count{class=\"maintain\",end=\"done\"}";
        expect(&daemon, done, jobs).await;
    }
    for sample in ["waiting", "running"] {
        let sample = format!("cachewfsd_jobs_{sample}{{class=\"maintain\"}}");
        expect(&daemon, &sample, 0.0).await;
    }
}

/// Compares the metrics of the page with those in `docs/operations/metrics.md`.
#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_has_each_metric_that_is_documented_and_no_other() {
    // The metrics of a bucket exist only if the daemon has one.
    let Some(bucket) = s3_bucket() else { return };
    let s3 = crate::support::bucket::config(&bucket);
    let daemon = TestDaemon::start_with(|config| config.store.s3 = Some(s3)).await;
    let work = daemon.create_upstream();
    commit_and_push(&work, "one");
    daemon.refresh().await;
    // The daemon measures its disk use in the background after the start.
    expect(&daemon, "cachewfsd_repositories{state=\"ready\"}", 1.0).await;
    until(async || {
        let page = scrape(&daemon).await;
        let used = value(&page, "cachewfsd_disk_used_bytes{area=\"store\"}");
        used.ok_or(page)
    })
    .await;

    let page = scrape(&daemon).await;

    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let types = types.filter_map(|line| line.split(' ').next());
    let exported: BTreeSet<&str> = types.collect();
    let rows = include_str!("../../../../docs/operations/metrics.md").lines();
    let rows = rows.filter(|line| line.matches(" | ").count() == 3);
    let names = rows.filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let documented: BTreeSet<&str> = names
        .filter(|name| name.starts_with("cachewfsd_"))
        .collect();
    assert_eq!(exported, documented);
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let suffixes = ["", "_bucket", "_sum", "_count"];
        let is_of_one = |suffix| {
            let name = name.strip_suffix(suffix);
            name.is_some_and(|name| exported.contains(name))
        };
        assert!(suffixes.into_iter().any(is_of_one), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_counted_by_kind() {
    let daemon = TestDaemon::start().await;
    let missing = "/git/git.example.com/org/missing/refresh";

    daemon.request(Method::POST, missing, &[]).await;

    for (sample, expected) in [
        (
            "cachewfsd_job_failures_total{class=\"clone\",kind=\"not_found\"}",
            1.0,
        ),
        (
            "cachewfsd_job_duration_seconds_count{class=\"clone\",end=\"failed\"}",
            1.0,
        ),
        ("cachewfsd_repositories_failing", 0.0),
    ] {
        expect(&daemon, sample, expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_a_client_abandons_counts_as_broken() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    write_file(&work.join("noise"), noise(1, 16_000_000));
    commit_and_push(&work, "one");
    daemon.refresh().await;

    let mut answer = daemon
        .get(&format!("/git/{REPO}/mirror.tar.zst"), &[])
        .await;
    answer.chunk().await.unwrap();
    let under_way = "cachewfsd_http_requests_under_way{route=\"archive\"}";
    expect(&daemon, under_way, 1.0).await;
    drop(answer);

    expect(&daemon, under_way, 0.0).await;
    let broken = "cachewfsd_http_responses_broken_total{route=\"archive\"}";
    expect(&daemon, broken, 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_response_has_the_id_of_its_request() {
    let daemon = TestDaemon::start().await;

    let own = daemon.get("/healthz", &[]).await;
    let given = daemon.get("/nothing", &[("x-request-id", "abc-1")]).await;

    assert!(!own.headers()["x-request-id"].is_empty());
    assert_eq!(given.headers()["x-request-id"], "abc-1");
}
