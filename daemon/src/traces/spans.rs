//! Functions that make the daemon's spans and set their attributes. They cost next to nothing while
//! traces are off.
//!
//! The fields of a span are its attributes; those that begin with `otel.` are its name, kind and
//! status. A field that isn't declared when the span is made can't be set later.

use http::{HeaderMap, Method};
use tracing::field::Empty;
use tracing::{Span, info_span};

use super::Cause;
use super::links::set_parent;
use super::target::{TRACE_TARGET, is_on};

/// The header of W3C's Trace Context in which a client names its own span that the request belongs
/// to.
const TRACEPARENT: &str = "traceparent";

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
        target: TRACE_TARGET,
        parent: None,
        "request",
        otel.name = Empty,
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = Empty,
        http.route = Empty,
        http.response.status_code = Empty,
        http.response.body.size = Empty,
        error.type = Empty,
        cachewfs.repository = Empty,
        cachewfs.request_id = request.id,
        cachewfs.tier = Empty,
    );
    if span.is_disabled() {
        return span;
    }
    if request.headers.contains_key(TRACEPARENT) {
        set_parent(&span, request.headers);
    }
    let method = method_name(request.method);
    match request.pattern {
        Some(pattern) => span.record("otel.name", format!("{method} {pattern}")),
        None => span.record("otel.name", method),
    };
    span.record("http.request.method", method);
    if let Some(pattern) = request.pattern {
        span.record("http.route", pattern);
    }
    if let Some(repo) = request.repo {
        span.record("cachewfs.repository", repo);
    }
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
    span.record("http.response.status_code", i64::from(status));
    span.record("http.response.body.size", count(sent_bytes));
    if !is_whole {
        span.record("error.type", "broken_off");
    }
    if status >= 500 || !is_whole {
        mark_failed(span);
    }
}

/// Notes the tier of the store that the answer to the present request comes from.
pub(crate) fn note_tier(tier: &'static str) {
    if is_on() {
        Span::current().record("cachewfs.tier", tier);
    }
}

/// Returns the span of a job, which has the name of the job's class.
pub(crate) fn job_span(job: &'static str, repo: &str, cause: &Cause) -> Span {
    let span = info_span!(
        target: TRACE_TARGET,
        parent: None,
        "job",
        otel.name = job,
        otel.status_code = Empty,
        error.type = Empty,
        cachewfs.repository = repo,
        cachewfs.waited_ms = Empty,
        cachewfs.outcome = Empty,
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
    span.record("cachewfs.waited_ms", count(millis(waited)));
}

/// Notes the outcome of a job, and the kind of its failure if it failed.
pub(crate) fn end_job(span: &Span, outcome: &'static str, failure: Option<&'static str>) {
    span.record("cachewfs.outcome", outcome);
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
    let span = info_span!(
        target: TRACE_TARGET,
        "git",
        otel.name = Empty,
        otel.status_code = Empty,
        error.type = Empty,
        process.exit.code = Empty,
    );
    if !span.is_disabled() {
        span.record("otel.name", format!("git {subcommand}"));
    }
    span
}

/// Notes that a git process ended with a code other than 0, or was killed (`None`).
pub(crate) fn note_exit(span: &Span, code: Option<i32>) {
    match code {
        // Not an error of the span: for some commands the code is the answer to a question.
        Some(code) => {
            span.record("process.exit.code", i64::from(code));
        }
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
        otel.status_code = Empty,
        http.response.status_code = Empty,
        error.type = Empty,
        server.address = host,
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
    span.record("http.response.status_code", i64::from(status));
    if status >= 400 {
        mark_failed(span);
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
    span.record("error.type", kind);
    mark_failed(span);
}

fn mark_failed(span: &Span) {
    // Without a description: the text of an error may contain a secret.
    span.record("otel.status_code", "error");
}

/// Returns the number as attributes have it.
fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
