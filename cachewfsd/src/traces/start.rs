//! Starts and ends the sending of traces.

use std::time::Duration;

use cachewfs_daemon::TracingConfig;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider,
};
use reqwest::Url;
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;

use super::export::Exporter;

/// At most this many spans wait to be sent, about 1 KiB each. If the queue is full, new spans are
/// lost.
const MAX_QUEUED: usize = 8192;
/// At most this many spans are sent in one batch.
const MAX_BATCH: usize = 512;
/// How long a span waits at most for a batch to fill.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// How long the remaining spans may take to be sent when the daemon stops.
const FLUSH_LIMIT: Duration = Duration::from_secs(3);

/// The reason why sending of traces can't start.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The endpoint isn't a URL.
    #[error("tracing.endpoint isn't a URL")]
    Endpoint,
    /// The HTTP client can't be created.
    #[error("can't create the HTTP client for traces")]
    Client(#[source] reqwest::Error),
}

/// The sending of traces, which has a thread of its own.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Starts sending in the current tokio runtime. Returns `None` if no endpoint is configured.
    pub fn start(config: &TracingConfig) -> Result<Option<Self>, TracesError> {
        let Some(endpoint) = &config.endpoint else {
            return Ok(None);
        };
        let url = Url::parse(endpoint).map_err(|_| TracesError::Endpoint)?;
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

    /// Returns the layer that turns spans into traces. The caller must filter it by
    /// [`TRACE_TARGET`](cachewfs_daemon::TRACE_TARGET).
    pub fn layer<S>(&self) -> OpenTelemetryLayer<S, SdkTracer>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        // Without the attributes that only cost bytes: every span would carry its file, line and
        // thread.
        tracing_opentelemetry::layer()
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false)
            .with_tracer(self.0.tracer("cachewfsd"))
    }

    /// Sends the remaining spans, for at most [`FLUSH_LIMIT`].
    pub async fn finish(self) {
        let finish = move || self.0.shutdown_with_timeout(FLUSH_LIMIT);
        // The exporter has logged its failures. If the time was too short, the rest is lost.
        drop(tokio::task::spawn_blocking(finish).await);
    }
}
