//! `GET /metrics`: counters and gauges in the text format of Prometheus.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use axum::http::header;
use axum::response::{IntoResponse as _, Response};

use super::app::App;
use crate::metrics::{MetricsPage, names, render_bucket};
use crate::repository::MirrorState;

/// The content type that Prometheus expects.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers `GET /metrics`. Reads no files, so that a scrape is cheap.
pub(super) fn metrics(app: &App) -> Response {
    let mut page = MetricsPage::default();
    page.metric(&names::BUILD)
        .push(&[env!("CARGO_PKG_VERSION")], 1);
    page.metric(&names::UPTIME)
        .push(&[], app.began.elapsed().as_secs_f64());
    app.context.metrics.render(&mut page);
    git(app, &mut page);
    store(app, &mut page);
    repositories(app, &mut page);
    disk(app, &mut page);
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], page.finish()).into_response()
}

fn git(app: &App, page: &mut MetricsPage) {
    let counters = &app.git.counters;
    let mut samples = page.metric(&names::GIT_REQUESTS);
    for (from, counter) in [
        ("mirror", &counters.from_mirror),
        ("passed_on", &counters.passed_on),
        ("shared", &counters.shared),
        ("stale", &counters.stale),
    ] {
        samples.push(&[from], counter.load(Ordering::Relaxed));
    }
}

fn store(app: &App, page: &mut MetricsPage) {
    let reads = app.store.reads();
    let mut samples = page.metric(&names::STORE_READS);
    for (tier, reads) in reads.all() {
        samples.push(&[tier], reads.count.value());
    }
    let mut samples = page.metric(&names::STORE_READ_BYTES);
    for (tier, reads) in reads.all() {
        samples.push(&[tier], reads.bytes.value());
    }
    if let Some(requests) = app.store.bucket_metrics() {
        render_bucket(&requests, page);
    }
}

fn repositories(app: &App, page: &mut MetricsPage) {
    let mut states: BTreeMap<&str, usize> =
        MirrorState::ALL.map(|state| (state.as_str(), 0)).into();
    let mut failing = 0;
    let mut lags = Vec::new();
    for repository in app.registry.all() {
        let status = repository.status();
        *states.entry(status.state.as_str()).or_default() += 1;
        failing += usize::from(status.is_failing());
        if let Some(lag) = repository.lag() {
            lags.push((lag, repository));
        }
    }
    let mut samples = page.metric(&names::REPOSITORIES);
    for (state, count) in states {
        samples.push(&[state], count);
    }
    page.metric(&names::REPOSITORIES_FAILING).push(&[], failing);
    lags.sort_by_key(|(lag, _)| std::cmp::Reverse(*lag));
    let max = lags.first().map(|(lag, _)| lag.as_secs_f64());
    page.metric(&names::MIRROR_LAG_MAX)
        .push(&[], max.unwrap_or(0.0));
    let mut samples = page.metric(&names::MIRROR_LAG);
    for (lag, repository) in lags.iter().take(names::MAX_REPOSITORIES) {
        samples.push(&[repository.name().as_str()], lag.as_secs_f64());
    }
}

fn disk(app: &App, page: &mut MetricsPage) {
    let disk = &app.context.disk;
    if let Some(used) = disk.used() {
        let mut samples = page.metric(&names::DISK_USED);
        samples.push(&["mirrors"], used.mirrors);
        samples.push(&["store"], used.store);
    }
    if let Some(free) = disk.free() {
        page.metric(&names::DISK_FREE).push(&[], free);
    }
}
