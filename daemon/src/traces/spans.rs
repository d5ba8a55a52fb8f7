//! Functions that make the daemon's spans and set their attributes. They cost next to nothing while
//! traces are off.

use http::{HeaderMap, Method};
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::Status;
use opentelemetry::{Context, Value};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::field::Empty;
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::Cause;
use super::start::{TRACE_TARGET, is_on};

/// The header of W3C's Trace Context in which a client names its own span that the request belongs
/// to.
const TRACEPARENT: &str = "traceparent";

/// The headers of a request, in the form that the propagator reads.
struct HeaderCarrier<'a>(&'a HeaderMap);

impl Extractor for HeaderCarrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// The parts of a request that its span is made of.
#[derive(Debug)]
pub(crate) struct RequestParts<'a> {
    pub(crate) method: &'a Method,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) id: &'a str,
    /// The pattern of the path, or `None` if the path is unknown.
    pub(crate) pattern: Option<&'static str>,
    /// The repository in the path.
    pub(crate) repo: Option<&'a str>,
}

/// Returns the span of a request. If the client sends a `traceparent`, it is a child of the
/// client's span.
pub(crate) fn request_span(request: &RequestParts<'_>) -> Span {
    let span = info_span!(
        target: TRACE_TARGET, parent: None, "request", otel.name = Empty, otel.kind = "server"
    );
    if span.is_disabled() {
        return span;
    }
    if request.headers.contains_key(TRACEPARENT) {
        let propagator = TraceContextPropagator::new();
        let caller =
            propagator.extract_with_context(&Context::new(), &HeaderCarrier(request.headers));
        // Fails only if traces are off, and they are on here.
        span.set_parent(caller).ok();
    }
    let method = method_name(request.method);
    match request.pattern {
        Some(pattern) => span.record("otel.name", format!("{method} {pattern}")),
        None => span.record("otel.name", method),
    };
    span.set_attribute("http.request.method", method);
    if let Some(pattern) = request.pattern {
        span.set_attribute("http.route", pattern);
    }
    if let Some(repo) = request.repo {
        span.set_attribute("cachewfs.repository", repo.to_owned());
    }
    span.set_attribute("cachewfs.request_id", request.id.to_owned());
    span
}

/// Returns the name of a method. A client may send any word as a method: words that aren't known
/// become `_OTHER`, as OpenTelemetry's conventions say.
fn method_name(method: &Method) -> &'static str {
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

/// Sets the attributes that are known when the answer to a request has ended.
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

/// Notes the tier of the store that the answer to the present request comes from.
pub(crate) fn note_tier(tier: &'static str) {
    if is_on() {
        Span::current().set_attribute("cachewfs.tier", tier);
    }
}

/// Returns the span of a job, which has the name of the job's class.
pub(crate) fn job_span(job: &'static str, repo: &str, cause: &Cause) -> Span {
    let span = info_span!(
        target: TRACE_TARGET, parent: None, "job", otel.name = job, cachewfs.repository = repo
    );
    cause.adopt(&span);
    span
}

/// Returns the span of a check whether upstream has changed, as a child of the current span.
pub(crate) fn check_span(repo: &str) -> Span {
    job_span("check", repo, &Cause::current())
}

/// Notes how long a job waited for its turn.
pub(crate) fn note_wait(span: &Span, waited: std::time::Duration) {
    span.set_attribute("cachewfs.waited_ms", count(millis(waited)));
}

/// Notes the outcome of a job, and the kind of its failure if it failed.
pub(crate) fn end_job(span: &Span, outcome: &'static str, failure: Option<&'static str>) {
    span.set_attribute("cachewfs.outcome", outcome);
    if let Some(kind) = failure {
        note_error(span, kind);
    }
}

/// Returns the span of one step of a job, as a child of the current span.
pub(crate) fn step_span(step: &'static str) -> Span {
    info_span!(target: TRACE_TARGET, "part", otel.name = step)
}

/// Returns the span of a git process.
pub(crate) fn git_span(subcommand: &str) -> Span {
    // Only the subcommand: the arguments may contain anything, also a URL.
    let span = info_span!(target: TRACE_TARGET, "git", otel.name = Empty);
    if !span.is_disabled() {
        span.record("otel.name", format!("git {subcommand}"));
    }
    span
}

/// Notes that a git process ended with a code other than 0, or was killed (`None`).
pub(crate) fn note_exit(span: &Span, code: Option<i32>) {
    match code {
        // Not an error of the span: for some commands the code is the answer to a question.
        Some(code) => span.set_attribute("process.exit.code", i64::from(code)),
        None => note_error(span, "killed"),
    }
}

/// Returns the span of a request to an upstream, which lasts up to the head of the answer.
pub(crate) fn upstream_span(name: &'static str, host: &str) -> Span {
    info_span!(
        target: TRACE_TARGET,
        "upstream",
        otel.name = name,
        otel.kind = "client",
        server.address = host
    )
}

/// Returns the span of a request that is passed on to upstream, as a child of `cause`: of the first
/// client that sent this request, if several share the answer.
pub(crate) fn pass_on_span(host: &str, cause: &Cause) -> Span {
    let span = upstream_span("pass on", host);
    cause.adopt(&span);
    span
}

/// Notes the status that upstream answered with.
pub(crate) fn note_status(span: &Span, status: u16) {
    span.set_attribute("http.response.status_code", i64::from(status));
    if status >= 400 {
        span.set_status(Status::error(""));
    }
}

/// Notes the outcome of a request to upstream.
pub(crate) fn note_answer(span: &Span, answer: &reqwest::Result<reqwest::Response>) {
    match answer {
        Ok(response) => note_status(span, response.status().as_u16()),
        Err(error) if error.is_timeout() => note_error(span, "timed_out"),
        Err(_) => note_error(span, "unreachable"),
    }
}

/// Marks the span as failed. `kind` is one fixed word.
pub(crate) fn note_error(span: &Span, kind: &'static str) {
    span.set_attribute("error.type", kind);
    // Without a description: the text of an error may contain a secret.
    span.set_status(Status::error(""));
}

fn count(value: u64) -> Value {
    i64::try_from(value).unwrap_or(i64::MAX).into()
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
