//! Sends spans to the collector: OTLP over HTTP, in protobuf.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderValue, header};
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

use super::config::{SEND_LIMIT, TracingConfig};
use crate::error_chain::chain;

/// Sends batches, one at a time. One that can't be sent is lost: traces are worth no memory and no
/// retries that a busy collector would have to bear.
#[derive(Debug)]
pub(super) struct Exporter {
    client: reqwest::Client,
    url: Url,
    headers: HeaderMap,
    resource: ResourceAttributesWithSchema,
    /// The queue has a thread of its own; what talks to the network is the runtime's.
    runtime: Handle,
    /// The first failure is told, and the next success; not each.
    is_failing: AtomicBool,
    lost_spans: AtomicU64,
}

impl Exporter {
    /// Sends to `url` from the runtime that this is called in.
    pub(super) fn new(url: Url, config: &TracingConfig) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("cachewfsd/", env!("CARGO_PKG_VERSION")))
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
        // Its timers are the runtime's, so it has to begin there.
        let sent = self.runtime.spawn(async { request.send().await }).await;
        match sent.map_err(|_| "the daemon stops".to_owned())? {
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) => Err(format!("the collector answers {}", response.status())),
            Err(error) => Err(chain(&error.without_url())),
        }
    }

    fn note(&self, sent: &Result<(), String>, spans: u64) {
        match sent {
            Ok(()) if self.is_failing.swap(false, Ordering::Relaxed) => {
                let lost_spans = self.lost_spans.swap(0, Ordering::Relaxed);
                info!(lost_spans, "Traces are sent again");
            }
            Ok(()) => {}
            Err(error) => {
                self.lost_spans.fetch_add(spans, Ordering::Relaxed);
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    warn!(error, "Traces can't be sent, and are lost until they can");
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
