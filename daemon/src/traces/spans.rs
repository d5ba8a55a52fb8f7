//! Every span that there is. Each function is next to free where nothing is traced.

use axum::http::{HeaderMap, Method};
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::Status;
use opentelemetry::{Context, Value};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::field::Empty;
use tracing::{Level, Span, enabled, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::Cause;
use super::start::TRACE_TARGET;

/// W3C's header in which a caller says which span of its own the request belongs to.
const TRACEPARENT: &str = "traceparent";

/// Whether anything is traced: a look at an atomic.
pub(super) fn is_on() -> bool {
    enabled!(target: TRACE_TARGET, Level::INFO)
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}

/// What a request is, as far as traces say it.
#[derive(Debug)]
pub(crate) struct RequestParts<'a> {
    pub(crate) method: &'a Method,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) id: &'a str,
}

/// Where a request goes: the pattern of its path, and the repository in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) pattern: Option<&'static str>,
    pub(crate) repo: Option<String>,
}

/// The span of a request; below the caller's, if it sends one. `route` is called only if it is of use.
pub(crate) fn request_span(request: &RequestParts<'_>, route: impl FnOnce() -> Route) -> Span {
    let span = info_span!(
        target: TRACE_TARGET, parent: None, "request", otel.name = Empty, otel.kind = "server"
    );
    if span.is_disabled() {
        return span;
    }
    if request.headers.contains_key(TRACEPARENT) {
        let propagator = TraceContextPropagator::new();
        let caller = propagator.extract_with_context(&Context::new(), &Headers(request.headers));
        span.set_parent(caller).ok();
    }
    let Route { pattern, repo } = route();
    let method = known(request.method);
    match pattern {
        Some(pattern) => span.record("otel.name", format!("{method} {pattern}")),
        None => span.record("otel.name", method),
    };
    span.set_attribute("http.request.method", method);
    if let Some(pattern) = pattern {
        span.set_attribute("http.route", pattern);
    }
    if let Some(repo) = repo {
        span.set_attribute("cachewfs.repository", repo);
    }
    span.set_attribute("cachewfs.request_id", request.id.to_owned());
    span
}

/// A method; whatever a client makes up is one.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "PATCH" => "PATCH",
        "OPTIONS" => "OPTIONS",
        _ => "_OTHER",
    }
}

/// Notes how a request was answered, once its answer has ended.
pub(crate) fn end_request(span: &Span, status: u16, (sent_bytes, is_whole): (u64, bool)) {
    if span.is_disabled() {
        return;
    }
    span.set_attribute("http.response.status_code", i64::from(status));
    span.set_attribute("http.response.body.size", count(sent_bytes));
    if !is_whole {
        span.set_attribute("error.type", "broken_off");
    }
    if status >= 500 || !is_whole {
        span.set_status(Status::error(""));
    }
}

/// Notes which tier of the store the answer to the present request comes from.
pub(crate) fn note_tier(tier: &'static str) {
    if is_on() {
        Span::current().set_attribute("cachewfs.tier", tier);
    }
}

/// The span of a job, of those that are named after what it does.
pub(crate) fn job_span(job: &'static str, repo: &str, cause: &Cause) -> Span {
    let span = info_span!(
        target: TRACE_TARGET, parent: None, "job", otel.name = job, cachewfs.repository = repo
    );
    cause.adopt(&span);
    span
}

/// The span of a check whether upstream has moved, for who asks now.
pub(crate) fn check_span(repo: &str) -> Span {
    job_span("check", repo, &Cause::current())
}

/// Notes how long a job waited for its turn.
pub(crate) fn note_wait(span: &Span, waited: std::time::Duration) {
    span.set_attribute("cachewfs.waited_ms", count(millis(waited)));
}

/// Notes how a job ended; a failure has a kind.
pub(crate) fn end_job(span: &Span, outcome: &'static str, failure: Option<&'static str>) {
    span.set_attribute("cachewfs.outcome", outcome);
    if let Some(kind) = failure {
        note_error(span, kind);
    }
}

/// The span of a part of what is under way on this thread.
pub(crate) fn part_span(part: &'static str) -> Span {
    info_span!(target: TRACE_TARGET, "part", otel.name = part)
}

/// The span of a git process. Its arguments may name anything.
pub(crate) fn git_span(subcommand: &str) -> Span {
    let span = info_span!(target: TRACE_TARGET, "git", otel.name = Empty);
    if !span.is_disabled() {
        span.record("otel.name", format!("git {subcommand}"));
    }
    span
}

/// Notes that a git process says no: which can be the answer to a question, or a failure of the job.
pub(crate) fn note_exit(span: &Span, code: Option<i32>) {
    match code {
        Some(code) => span.set_attribute("process.exit.code", i64::from(code)),
        None => note_error(span, "killed"),
    }
}

/// The span of a request to `host`, up to the head of its answer.
pub(crate) fn upstream_span(what: &'static str, host: &str) -> Span {
    info_span!(
        target: TRACE_TARGET, "upstream", otel.name = what, otel.kind = "client", server.address = host
    )
}

/// The span of a request that is passed on, for who asked first.
pub(crate) fn pass_on_span(host: &str, cause: &Cause) -> Span {
    let span = upstream_span("pass on", host);
    cause.adopt(&span);
    span
}

/// Notes what upstream answered.
pub(crate) fn note_status(span: &Span, status: u16) {
    span.set_attribute("http.response.status_code", i64::from(status));
    if status >= 400 {
        span.set_status(Status::error(""));
    }
}

/// Notes what came of a request.
pub(crate) fn note_answer(span: &Span, answer: &reqwest::Result<reqwest::Response>) {
    match answer {
        Ok(response) => note_status(span, response.status().as_u16()),
        Err(error) if error.is_timeout() => note_error(span, "timed_out"),
        Err(_) => note_error(span, "unreachable"),
    }
}

/// Notes that something failed, and how, in a word.
pub(crate) fn note_error(span: &Span, kind: &'static str) {
    span.set_attribute("error.type", kind);
    span.set_status(Status::error(""));
}

fn count(value: u64) -> Value {
    i64::try_from(value).unwrap_or(i64::MAX).into()
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
