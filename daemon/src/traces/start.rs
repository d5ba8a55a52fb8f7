//! The layer that makes traces of spans, and their end.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider,
};
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;

use super::TracingConfig;
use super::config::parse_url;
use super::export::Exporter;

/// The target of all spans that are sent; no layer but the one for traces should take it.
pub const TRACE_TARGET: &str = "cachewfsd::traces";

/// Spans that wait to be sent, some 1 KiB each: with more, the newest are lost.
const MAX_QUEUED: usize = 8192;
/// Spans that are sent at once.
const MAX_BATCH: usize = 512;
/// How long spans wait for more at most.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// How long what is left may take to be sent at the daemon's end.
const FLUSH_LIMIT: Duration = Duration::from_secs(3);

/// Why traces can't be sent.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The endpoint is no URL.
    #[error("tracing.endpoint is no URL")]
    Endpoint,
    /// The client can't be made.
    #[error("can't prepare requests to the collector")]
    Client(#[source] reqwest::Error),
}

/// Sends traces, from a thread of its own.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Starts sending, in the current tokio runtime; `None` without an endpoint.
    pub fn start(config: &TracingConfig) -> Result<Option<Self>, TracesError> {
        let Some(endpoint) = &config.endpoint else {
            return Ok(None);
        };
        let url = parse_url(endpoint).ok_or(TracesError::Endpoint)?;
        let exporter = Exporter::new(url, config).map_err(TracesError::Client)?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(MAX_QUEUED)
            .with_max_export_batch_size(MAX_BATCH)
            .with_scheduled_delay(BATCH_DELAY)
            .build();
        let batches = BatchSpanProcessor::builder(exporter).with_batch_config(batches);
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder_empty()
            .with_service_name(config.service_name.clone())
            .with_attribute(version)
            .build();
        let sampler = Sampler::TraceIdRatioBased(config.sample_ratio);
        let provider = SdkTracerProvider::builder()
            .with_span_processor(batches.build())
            .with_sampler(Sampler::ParentBased(Box::new(sampler)))
            .with_resource(resource)
            .build();
        Ok(Some(Self(provider)))
    }

    /// What makes traces of spans; to be filtered by [`TRACE_TARGET`].
    pub fn layer<S>(&self) -> OpenTelemetryLayer<S, SdkTracer>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        tracing_opentelemetry::layer()
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false)
            .with_tracer(self.0.tracer("cachewfsd"))
    }

    /// Sends what is left, for a short time.
    pub async fn finish(self) {
        let finish = move || self.0.shutdown_with_timeout(FLUSH_LIMIT);
        // That it fails was told, or is no news.
        drop(tokio::task::spawn_blocking(finish).await);
    }
}
