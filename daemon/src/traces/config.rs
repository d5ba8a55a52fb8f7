//! The `[tracing]` section of the configuration, and OpenTelemetry's variables that override it.

use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::base::ConfigError;

/// The variables that OpenTelemetry defines for all programs and that the daemon follows.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const TRACES_HEADERS: &str = "OTEL_EXPORTER_OTLP_TRACES_HEADERS";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const TRACES_PROTOCOL: &str = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";
const DISABLED: &str = "OTEL_SDK_DISABLED";

/// The `[tracing]` section: traces for OpenTelemetry. Without an endpoint, traces are off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TracingConfig {
    /// The URL that batches of spans are posted to, as OTLP in protobuf. Default none.
    pub endpoint: Option<String>,
    /// The share of traces to keep, from 0 to 1, of those that begin in this daemon. If a client
    /// sends a `traceparent`, its flag decides instead. Only a variable sets it. Default `1.0`.
    #[serde(skip)]
    pub sample_ratio: f64,
    /// The name of this service in traces. Only a variable sets it. Default `cachewfsd`.
    #[serde(skip)]
    pub service_name: String,
    /// The headers that are sent with each batch. They may hold a token for the collector, so they
    /// come only from the environment.
    #[serde(skip)]
    pub headers: ExportHeaders,
}

/// Headers that may hold a secret. `Debug` prints only their names.
#[derive(Clone, Default, PartialEq)]
pub struct ExportHeaders(HeaderMap);

impl std::fmt::Debug for ExportHeaders {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.0.keys()).finish()
    }
}

impl ExportHeaders {
    /// Reads `name=value,name=value`, each value percent-encoded.
    fn parse(text: &str) -> Option<Self> {
        let mut headers = HeaderMap::new();
        for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
            let (name, value) = pair.split_once('=')?;
            let value = crate::base::decode_percent(value.trim())?;
            let mut value = HeaderValue::from_str(&value).ok()?;
            value.set_sensitive(true);
            headers.insert(name.trim().parse::<HeaderName>().ok()?, value);
        }
        Some(Self(headers))
    }

    /// Returns the headers.
    pub fn map(&self) -> HeaderMap {
        self.0.clone()
    }
}

impl Default for TracingConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            sample_ratio: 1.0,
            service_name: "cachewfsd".to_owned(),
            headers: ExportHeaders::default(),
        }
    }
}

impl TracingConfig {
    /// Returns whether a variable of this name may belong to OpenTelemetry.
    pub(crate) fn is_variable(variable: &str) -> bool {
        variable.starts_with("OTEL_")
    }

    /// Applies the standard variables among `variables`. They override the file.
    ///
    /// Other variables of OpenTelemetry are ignored. A value that can't work is an error, and so is
    /// a protocol that the daemon can't send: the collector would drop all traces.
    pub(crate) fn apply(&mut self, variables: &[(String, String)]) -> Result<(), ConfigError> {
        let variable = |wanted: &'static str| {
            let mut values = variables.iter().filter(|(name, _)| name == wanted);
            let value = values.next().map(|(_, value)| value.trim())?;
            (!value.is_empty()).then_some((wanted, value))
        };
        if let Some((name, base)) = variable(ENDPOINT) {
            parse_url(base).ok_or_else(|| refuse(name, NO_URL))?;
            // OpenTelemetry's specification: this variable is a base, the one below a whole URL.
            self.endpoint = Some(format!("{}/v1/traces", base.trim_end_matches('/')));
        }
        if let Some((name, url)) = variable(TRACES_ENDPOINT) {
            parse_url(url).ok_or_else(|| refuse(name, NO_URL))?;
            self.endpoint = Some(url.to_owned());
        }
        if let Some((name, headers)) = variable(TRACES_HEADERS).or_else(|| variable(HEADERS)) {
            let reason = "it must be NAME=VALUE,NAME=VALUE";
            self.headers = ExportHeaders::parse(headers).ok_or_else(|| refuse(name, reason))?;
        }
        if let Some((_, service_name)) = variable(SERVICE_NAME) {
            service_name.clone_into(&mut self.service_name);
        }
        if let Some((name, ratio)) = variable(SAMPLER_ARG) {
            let reason = "it must be between 0 and 1";
            let ratio = ratio.parse().ok();
            let ratio = ratio.filter(|ratio| (0.0..=1.0).contains(ratio));
            self.sample_ratio = ratio.ok_or_else(|| refuse(name, reason))?;
        }
        if variable(DISABLED).is_some_and(|(_, value)| value.eq_ignore_ascii_case("true")) {
            self.endpoint = None;
        }
        match variable(TRACES_PROTOCOL).or_else(|| variable(PROTOCOL)) {
            Some((name, protocol)) if self.endpoint.is_some() && protocol != "http/protobuf" => {
                Err(refuse(
                    name,
                    "it must be http/protobuf, the only protocol that the daemon sends",
                ))
            }
            _ => Ok(()),
        }
    }

    /// Returns an error for the first key whose value can't work.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if let Some(endpoint) = &self.endpoint {
            parse_url(endpoint).ok_or_else(|| ConfigError::Value {
                key: "tracing.endpoint",
                value: crate::base::redact(endpoint),
                reason: NO_URL,
            })?;
        }
        Ok(())
    }
}

const NO_URL: &str = "it must be a URL that starts with https:// or http://";

/// Parses the URL that spans are posted to. Returns `None` if it isn't an http or https URL.
pub(super) fn parse_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    ["https", "http"].contains(&url.scheme()).then_some(url)
}

fn refuse(variable: &str, reason: &'static str) -> ConfigError {
    let variable = variable.to_owned();
    ConfigError::Environment { variable, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_with(variables: &[(&str, &str)]) -> Result<TracingConfig, ConfigError> {
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        let variables: Vec<_> = variables.iter().map(owned).collect();
        let mut config = TracingConfig::default();
        config.apply(&variables)?;
        config.check().map(|()| config)
    }

    #[test]
    fn the_standard_variables_turn_traces_on_and_off() {
        let endpoint = |variables: &[(&str, &str)]| config_with(variables).unwrap().endpoint;

        assert_eq!(endpoint(&[]), None);
        let base = (ENDPOINT, "http://collector:4318/");
        let own = (TRACES_ENDPOINT, "https://other/x");
        assert_eq!(
            endpoint(&[base]).unwrap(),
            "http://collector:4318/v1/traces"
        );
        assert_eq!(endpoint(&[base, own]).unwrap(), "https://other/x");
        assert_eq!(endpoint(&[base, (DISABLED, "true")]), None);
        let rest = config_with(&[base, (SERVICE_NAME, "x"), (SAMPLER_ARG, "0.25")]).unwrap();
        assert_eq!(rest.service_name, "x");
        assert!((rest.sample_ratio - 0.25).abs() < 1e-9);
    }

    #[test]
    fn headers_are_read_and_never_shown() {
        let config =
            config_with(&[(HEADERS, "authorization=Bearer%20s3cret, x-scope = a")]).unwrap();

        let headers = config.headers.map();
        assert_eq!(headers["authorization"], "Bearer s3cret");
        assert_eq!(headers["x-scope"], "a");
        let shown = format!(
            "{config:?} {headers:?} {}",
            toml::to_string(&config).unwrap()
        );
        assert!(
            shown.contains("authorization") && !shown.contains("s3cret"),
            "{shown}"
        );
    }

    #[test]
    fn unusable_variables_are_refused_and_their_values_are_not_shown() {
        let base = (ENDPOINT, "http://collector:4318");
        for variables in [
            &[(ENDPOINT, "s3cret:4317")][..],
            &[(TRACES_ENDPOINT, "ftp://me:s3cret@x")],
            &[base, (HEADERS, "s3cret")],
            &[base, (HEADERS, "a b=s3cret")],
            &[base, (PROTOCOL, "grpc")],
            &[base, (SAMPLER_ARG, "7")],
        ] {
            let error = config_with(variables).unwrap_err().to_string();

            assert!(
                error.contains("OTEL_") && !error.contains("s3cret"),
                "{error}"
            );
        }
        // Without an endpoint the protocol doesn't matter.
        assert_eq!(
            config_with(&[(PROTOCOL, "grpc")]).unwrap(),
            TracingConfig::default()
        );
    }
}
