//! Creates the client of the SDK: which service to ask, and with which credentials.

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Builder, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};

use super::files::{certificates, check_credentials};
use super::{S3Config, S3Error};

/// The region for services other than AWS, which accept any.
const DEFAULT_REGION: &str = "us-east-1";

/// Creates a client. Sends nothing yet.
pub(super) async fn client(config: &S3Config) -> Result<Client, S3Error> {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(config.connect_timeout)
        .operation_attempt_timeout(config.timeout)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client(config)?)
        .timeout_config(timeouts)
        // `Bucket` retries, in one place for all layers.
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(profile) = &config.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(path) = &config.credentials_file {
        // The provider would treat a missing file as an empty one.
        check_credentials(config)?;
        let files = EnvConfigFiles::builder()
            .with_file(EnvConfigFileKind::Credentials, path)
            .build();
        let profile = config.profile.as_deref().unwrap_or("default");
        let provider = ProfileFileCredentialsProvider::builder()
            .profile_files(files)
            .profile_name(profile);
        loader = loader.credentials_provider(provider.build());
    }
    let region = config.region.clone();
    let other = || config.endpoint.as_ref().map(|_| DEFAULT_REGION.to_owned());
    if let Some(region) = region.or_else(other) {
        loader = loader.region(Region::new(region));
    }
    let mut builder = Builder::from(&loader.load().await);
    if let Some(endpoint) = &config.endpoint {
        // Other services support AWS's newer checksums only in part. Requests are signed with a
        // digest anyway.
        builder = builder
            .endpoint_url(endpoint)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    }
    let path_style = config.path_style.unwrap_or(config.endpoint.is_some());
    Ok(Client::from_conf(
        builder.force_path_style(path_style).build(),
    ))
}

fn http_client(config: &S3Config) -> Result<aws_sdk_s3::config::SharedHttpClient, S3Error> {
    let mut trusted = TrustStore::default();
    let mut tls = TlsContext::builder();
    if let Some(pem) = certificates(config)? {
        trusted = trusted.with_pem_certificate(pem);
    }
    tls = tls.with_trust_store(trusted);
    let context = tls.build().map_err(|error| S3Error::Certificates {
        path: config.ca_file.clone().unwrap_or_default(),
        source: error.into(),
    })?;
    Ok(aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(context)
        .pool_max_idle_per_host(config.max_requests)
        .build_https())
}
