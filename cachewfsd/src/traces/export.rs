//! Sends batches of spans to the collector, as OTLP over HTTP in protobuf.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cachewfs_base::chain;
use cachewfs_daemon::TracingConfig;
use http::{HeaderMap, HeaderValue, header};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use prost::Message as _;
use reqwest::Url;
use tokio::runtime::Handle;
use tracing::{info, warn};

/// How long sending one batch may take before it counts as failed.
const SEND_LIMIT: Duration = Duration::from_secs(10);

/// A sender of batches, one at a time.
///
/// A batch that can't be sent is lost. Keeping it would take memory, and a retry would add to the
/// load of a busy collector; traces are worth neither.
#[derive(Debug)]
pub(super) struct Exporter {
    client: reqwest::Client,
    url: Url,
    headers: HeaderMap,
    resource: ResourceAttributesWithSchema,
    /// The runtime that sends. The queue of spans calls from a thread of its own, outside of any
    /// runtime.
    runtime: Handle,
    /// Whether the last batch failed. Only a change is logged, not every failure.
    is_failing: AtomicBool,
    lost_spans: AtomicU64,
}

impl Exporter {
    /// Makes a sender to `url` that uses the current tokio runtime.
    pub(super) fn new(url: Url, config: &TracingConfig) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("cachewfsd/", env!("CARGO_PKG_VERSION")))
            // A redirect could carry the headers, and the secret in them, to another host.
            .redirect(reqwest::redirect::Policy::none())
            .timeout(SEND_LIMIT)
            .build()?;
        let mut headers = config.headers.map();
        let protobuf = HeaderValue::from_static("application/x-protobuf");
        headers.insert(header::CONTENT_TYPE, protobuf);
        Ok(Self {
            client,
            url,
            headers,
            resource: ResourceAttributesWithSchema::default(),
            runtime: Handle::current(),
            is_failing: AtomicBool::new(false),
            lost_spans: AtomicU64::new(0),
        })
    }

    async fn send(&self, body: Vec<u8>) -> Result<(), String> {
        let request = self.client.post(self.url.clone());
        let request = request.headers(self.headers.clone()).body(body);
        // The request needs the timers and sockets of a runtime, and this thread has none.
        let sent = self.runtime.spawn(async { request.send().await }).await;
        match sent.map_err(|_| "the daemon stops".to_owned())? {
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) => Err(format!("the collector answered {}", response.status())),
            // The URL may have credentials in it.
            Err(error) => Err(chain(&error.without_url())),
        }
    }

    /// Logs the first failure, and the first success after failures.
    fn note(&self, sent: &Result<(), String>, spans: u64) {
        match sent {
            Ok(()) if self.is_failing.swap(false, Ordering::Relaxed) => {
                let lost_spans = self.lost_spans.swap(0, Ordering::Relaxed);
                info!(
                    lost_spans,
                    "Traces are sent again; {lost_spans} spans were lost"
                );
            }
            Ok(()) => {}
            Err(error) => {
                self.lost_spans.fetch_add(spans, Ordering::Relaxed);
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    warn!(
                        error,
                        "Traces can't be sent; spans are lost until they can: {error}"
                    );
                }
            }
        }
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let sent = self.send(body).await;
        self.note(&sent, spans);
        sent.map_err(OTelSdkError::InternalFailure)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}
