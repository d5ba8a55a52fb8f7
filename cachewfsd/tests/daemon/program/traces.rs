//! Traces as a collector receives them: OTLP over HTTP.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use cachewfs_tests::wait_up_to;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::runtime::Runtime;

use crate::support::systemd_daemon::{
    SystemdDaemon, TEST_TIMEOUT, check_config, socket_without_listener, upstream,
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
const REPO: &str = "git.example.com/org/repo";

/// The state of a collector: its received batches and its next response.
#[derive(Debug)]
struct CollectorState {
    batches: Mutex<Vec<(HeaderMap, ExportTraceServiceRequest)>>,
    /// The status of its responses.
    status: AtomicU16,
}

struct Collector {
    endpoint: String,
    state: Arc<CollectorState>,
    _runtime: Runtime,
}

impl Collector {
    fn start(status: u16) -> Self {
        let runtime = Runtime::new().unwrap();
        let state = Arc::new(CollectorState {
            batches: Mutex::default(),
            status: status.into(),
        });
        let router = Router::new()
            .route("/v1/traces", post(collect))
            .with_state(Arc::clone(&state));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            endpoint,
            state,
            _runtime: runtime,
        }
    }

    fn count(&self) -> usize {
        self.state.batches.lock().unwrap().len()
    }

    fn spans(&self) -> Vec<SeenSpan> {
        let batches = self.state.batches.lock().unwrap();
        let resources = batches.iter().flat_map(|(_, batch)| &batch.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes
            .flat_map(|scope| &scope.spans)
            .map(SeenSpan::of)
            .collect()
    }
}

async fn collect(
    State(state): State<Arc<CollectorState>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let batch = ExportTraceServiceRequest::decode(body).unwrap();
    state.batches.lock().unwrap().push((headers, batch));
    StatusCode::from_u16(state.status.load(Ordering::Relaxed)).unwrap()
}

/// A received span in a form that is easy to compare.
#[derive(Clone, Debug)]
struct SeenSpan {
    name: String,
    trace: String,
    id: String,
    parent: String,
    kind: i32,
    is_error: bool,
    attributes: BTreeMap<String, String>,
}

impl SeenSpan {
    fn of(span: &Span) -> Self {
        Self {
            name: span.name.clone(),
            trace: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            kind: span.kind,
            is_error: span.status.as_ref().is_some_and(|status| status.code == 2),
            attributes: span.attributes.iter().map(attribute).collect(),
        }
    }

    fn assert_has(&self, expected: &[(&str, &str)]) {
        for (key, value) in expected {
            assert_eq!(
                self.attributes.get(*key).map(String::as_str),
                Some(*value),
                "{key}: {self:?}"
            );
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let write = |text: String, byte: &u8| text + &format!("{byte:02x}");
    bytes.iter().fold(String::new(), write)
}

fn attribute(pair: &KeyValue) -> (String, String) {
    let value = pair.value.as_ref().and_then(|value| value.value.clone());
    let value = match value.unwrap() {
        any_value::Value::StringValue(text) => text,
        any_value::Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    (pair.key.clone(), value)
}

fn find_span<'a>(spans: &'a [SeenSpan], name: &str) -> &'a SeenSpan {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    let names: Vec<_> = spans.iter().map(|span| &span.name).collect();
    assert_eq!(found.len(), 1, "{name} among {names:?}");
    found[0]
}

fn config(base: &str, endpoint: &str) -> String {
    format!("[upstreams]\n'git.example.com' = '{base}'\n[tracing]\nendpoint = '{endpoint}'\n")
}

#[test]
fn a_request_and_the_publish_that_it_caused_are_in_the_trace_of_the_caller() {
    let directory = tempfile::tempdir().unwrap();
    let (base, _) = upstream(directory.path(), "one");
    let collector = Collector::start(200);
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str()),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization=Bearer%20s3cret",
        ),
        ("OTEL_SERVICE_NAME", "replica-1"),
    ];
    let program =
        SystemdDaemon::start_with(&config(&base, "http://unused.invalid"), &[], &variables);

    let refresh = program.url(&format!("/git/{REPO}/refresh?token=s3cret"));
    let refresh = program.client.post(refresh);
    let traceparent = format!("00-{TRACE}-{CALLER}-01");
    let answer = program.send(refresh.header("traceparent", traceparent));
    assert_eq!(answer.0, 200, "{answer:?}");
    let range = program.url(&format!("/git/{REPO}/snapshot.tar.zst?x=s3cret"));
    let range = program.client.get(range).header("range", "bytes=0-99");
    let range = range.header("authorization", "Bearer s3cret");
    assert_eq!(program.send(range).0, 206);
    let log = program.log();
    assert!(
        !log.contains("otel.name") && !log.contains("s3cret"),
        "{log}"
    );
    program.end();

    let spans = collector.spans();
    let request = find_span(&spans, "POST /git/{repo}/refresh");
    assert_eq!(
        (request.trace.as_str(), request.parent.as_str()),
        (TRACE, CALLER)
    );
    // The kind of spans of a server.
    assert_eq!(request.kind, 2);
    request.assert_has(&[
        ("http.request.method", "POST"),
        ("http.route", "/git/{repo}/refresh"),
        ("http.response.status_code", "200"),
        ("cachewfs.repository", REPO),
    ]);
    for job in ["clone", "publish"] {
        let job = find_span(&spans, job);
        assert_eq!((&job.trace, &job.parent), (&request.trace, &request.id));
        job.assert_has(&[("cachewfs.outcome", "done"), ("cachewfs.repository", REPO)]);
        assert!(job.attributes.contains_key("cachewfs.waited_ms"));
    }
    let publish = find_span(&spans, "publish");
    for phase in ["pack", "index", "store"] {
        assert_eq!(find_span(&spans, phase).parent, publish.id, "{phase}");
    }
    let pack = find_span(&spans, "pack");
    let is_below = |span: &SeenSpan| span.name == "git pack-objects" && span.parent == pack.id;
    let names: Vec<_> = spans
        .iter()
        .map(|span| (&span.name, &span.parent))
        .collect();
    assert!(spans.iter().any(is_below), "{names:?} {pack:?}");
    let range = find_span(&spans, "GET /git/{repo}/snapshot.tar.zst");
    assert_ne!(range.trace, TRACE);
    range.assert_has(&[
        ("http.response.status_code", "206"),
        ("http.response.body.size", "100"),
        ("cachewfs.tier", "disk"),
    ]);
    // Spans of maintenance are not checked: the end of the daemon may have stopped it.
    let mut caused = spans.iter().filter(|span| span.trace == TRACE);
    assert!(!caused.any(|span| span.is_error), "{spans:?}");
    let batches = collector.state.batches.lock().unwrap();
    for (headers, batch) in batches.iter() {
        assert_eq!(headers["authorization"], "Bearer s3cret");
        let text = format!("{batch:?}");
        assert!(text.contains("replica-1"), "{text}");
        assert!(!text.contains("s3cret") && !text.contains('?'), "{text}");
    }
}

#[test]
fn a_passed_on_request_is_in_the_trace_of_its_first_client() {
    let collector = Collector::start(200);
    // As an upstream, this server answers 404 to everything.
    let upstream = Collector::start(200);
    let endpoint = format!("{}/v1/traces", collector.endpoint);
    let program = SystemdDaemon::start(&config(&upstream.endpoint, &endpoint), &[]);

    let refs = program.url(&format!("/git/{REPO}/info/refs?service=git-upload-pack"));
    let traceparent = format!("00-{TRACE}-{CALLER}-01");
    let refs = program.client.get(refs).header("traceparent", traceparent);
    assert_eq!(program.send(refs).0, 404);
    program.end();

    let spans = collector.spans();
    let request = find_span(&spans, "GET /git/{repo}/info/refs");
    let passed_on = find_span(&spans, "pass on");
    assert_eq!((&*passed_on.trace, &passed_on.parent), (TRACE, &request.id));
    passed_on.assert_has(&[("http.response.status_code", "404")]);
}

#[test]
fn a_failing_collector_is_logged_once_and_a_failed_job_is_a_span() {
    let directory = tempfile::tempdir().unwrap();
    let (base, _) = upstream(directory.path(), "one");
    let collector = Collector::start(503);
    let endpoint = format!("{}/v1/traces", collector.endpoint);
    let program = SystemdDaemon::start(&config(&base, &endpoint), &[]);

    assert_eq!(program.refresh(REPO).0, 200);
    assert_eq!(program.refresh("git.example.com/org/missing").0, 404);
    wait_up_to(TEST_TIMEOUT, "traces are sent three times", || {
        assert_eq!(program.get("/healthz").0, 200);
        collector.count() >= 3
    });
    collector.state.status.store(200, Ordering::Relaxed);
    wait_up_to(TEST_TIMEOUT, "traces are sent again", || {
        assert_eq!(program.get("/healthz").0, 200);
        program.log().contains("Traces are sent again")
    });

    assert_eq!(program.log().matches("Traces can't be sent").count(), 1);
    program.end();
    let failed = collector.spans();
    let mut failed = failed.iter().filter(|span| span.is_error);
    let failed = failed.find(|span| span.name == "clone").unwrap();
    failed.assert_has(&[("error.type", "not_found"), ("cachewfs.outcome", "failed")]);
}

#[test]
fn an_unreachable_or_hanging_collector_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (base, _) = upstream(directory.path(), "one");
    // The kernel accepts connections, but nothing ever answers.
    let hanging = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hanging = hanging
        .local_addr()
        .map(|address| (hanging, address))
        .unwrap();
    for address in [socket_without_listener(), hanging.1.to_string()] {
        let program =
            SystemdDaemon::start(&config(&base, &format!("http://{address}/v1/traces")), &[]);

        assert_eq!(program.refresh(REPO).0, 200);
        assert_eq!(program.get(&format!("/git/{REPO}/snapshot.tar.zst")).0, 200);

        let began = Instant::now();
        program.end();
        // The daemon spends at most 3 s on the remaining spans.
        assert!(
            began.elapsed() < Duration::from_secs(8),
            "{:?}",
            began.elapsed()
        );
    }
}

#[test]
fn without_a_collector_no_thread_runs_for_traces() {
    let threads = |program: &SystemdDaemon| {
        let tasks = format!("/proc/{}/task", program.child.id());
        let name = |task: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default()
        };
        let names = std::fs::read_dir(tasks).unwrap().map(name);
        names
            .filter(|name| name.starts_with("OpenTelemetry"))
            .count()
    };
    let off = SystemdDaemon::start("", &[]);
    let on = SystemdDaemon::start("[tracing]\nendpoint = 'http://127.0.0.1:1'", &[]);

    assert_eq!((threads(&off), threads(&on)), (0, 1));
    off.end();
    on.end();
}

#[test]
fn check_config_shows_where_traces_go_without_secrets() {
    let variables = [
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "https://me:s3cret@collector.example.com",
        ),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=s3cret"),
    ];

    let good = check_config("", &variables);
    let bad = check_config("\n[tracing]\nendpoint = 'ftp://x'", &[]);

    let shown = String::from_utf8_lossy(&good.stdout);
    assert!(
        shown.contains("endpoint = \"https://***@collector.example.com/v1/traces\""),
        "{shown}"
    );
    assert!(!shown.contains("s3cret"), "{shown}");
    let error = String::from_utf8_lossy(&bad.stderr);
    assert!(!bad.status.success());
    for part in ["line 3: ", "tracing.endpoint"] {
        assert!(error.contains(part), "{error}");
    }
}
