//! Errors of a bucket, and what they mean for the caller.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use cachewfs_store::{BucketError, BucketOutcome};
use tokio_rustls::rustls::CertificateError;

use super::bucket::WriteCondition;

/// Why a request to a bucket failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum S3Error {
    #[error("can't reach the bucket")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
    #[error("the bucket did not answer in time")]
    TimedOut,
    #[error("the bucket is unreachable; the daemon tries it again in a moment")]
    Down,
    #[error("the response of the bucket ended early")]
    Cut,
    #[error("unexpected response of the bucket: {what}")]
    BadAnswer { what: &'static str },
    #[error("the bucket doesn't exist")]
    NoBucket,
    #[error("the object doesn't exist")]
    NoObject,
    #[error("the object is shorter than the range")]
    NoRange,
    #[error("precondition failed: the object exists already, or has changed")]
    Precondition,
    #[error("the bucket refuses the daemon's credentials or permissions: {code} ({message})")]
    Denied { code: String, message: String },
    #[error("no credentials for the bucket")]
    NoCredentials(#[source] Box<dyn Error + Send + Sync>),
    #[error("the bucket answered {status} {code} ({message})")]
    Answered {
        status: u16,
        code: String,
        message: String,
    },
    #[error("can't read {path}")]
    File { path: PathBuf, source: io::Error },
    #[error("can't use the certificates in {path}")]
    Certificates {
        path: PathBuf,
        source: Box<dyn Error + Send + Sync>,
    },
    #[error(
        "the certificate of the bucket's service is not trusted; if an authority of your own has \
         signed it, set `ca_file` in [store.s3] to a file with that authority's certificate"
    )]
    Untrusted(#[source] tokio_rustls::rustls::Error),
    #[error(
        "the service of the bucket doesn't honour {condition} in writes, so two daemons could \
         overwrite each other's snapshots; use a service with conditional writes (AWS S3, \
         SeaweedFS 4.48, MinIO, Ceph), or a store on disk"
    )]
    Unconditional { condition: &'static str },
    #[error("the bucket has not been checked for conditional writes yet")]
    NotProbed,
    #[error("the daemon is stopping")]
    Stopping,
}

/// The status of a service that knows the request and doesn't support it.
const NOT_IMPLEMENTED: u16 = 501;

/// Returns whether a service with this answer is out of order, and not just overloaded.
fn is_failure(status: u16) -> bool {
    status >= 500 && status != NOT_IMPLEMENTED
}

impl S3Error {
    /// Returns whether the same request may succeed a moment later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::TimedOut | Self::Cut => true,
            Self::Answered { status, code, .. } => {
                is_failure(*status)
                    // 409: conditional writes of one object at the same time.
                    || matches!(status, 408 | 409 | 425 | 429)
                    || matches!(&**code, "RequestTimeout" | "SlowDown" | "Throttling")
                    // The bytes were changed on the way.
                    || matches!(&**code, "BadDigest" | "XAmzContentSHA256Mismatch")
            }
            Self::Down
            | Self::BadAnswer { .. }
            | Self::NoBucket
            | Self::NoObject
            | Self::NoRange
            | Self::Precondition
            | Self::Denied { .. }
            | Self::NoCredentials(_)
            | Self::File { .. }
            | Self::Certificates { .. }
            | Self::Untrusted(_)
            | Self::Unconditional { .. }
            | Self::NotProbed
            | Self::Stopping => false,
        }
    }

    /// Returns whether the bucket or the network is to blame, and not the request.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable(_)
            | Self::TimedOut
            | Self::Cut
            | Self::Down
            // A reachable bucket would have been checked.
            | Self::NotProbed
            | Self::Stopping => true,
            Self::Answered { status, .. } => is_failure(*status),
            Self::BadAnswer { .. }
            | Self::NoBucket
            | Self::NoObject
            | Self::NoRange
            | Self::Precondition
            | Self::Denied { .. }
            | Self::NoCredentials(_)
            | Self::File { .. }
            | Self::Certificates { .. }
            | Self::Untrusted(_)
            | Self::Unconditional { .. } => false,
        }
    }

    /// Returns how a request ended, or `None` if none was sent.
    pub(super) fn outcome<T>(result: &Result<T, Self>) -> Option<BucketOutcome> {
        match result {
            Ok(_) => Some(BucketOutcome::Ok),
            Err(error) => error.failed_outcome(),
        }
    }

    fn failed_outcome(&self) -> Option<BucketOutcome> {
        match self {
            Self::Unreachable(_) | Self::TimedOut | Self::Cut | Self::Untrusted(_) => {
                Some(BucketOutcome::Network)
            }
            Self::Answered { .. } if self.is_transient() => Some(BucketOutcome::Server),
            Self::NoObject => Some(BucketOutcome::Absent),
            Self::Precondition => Some(BucketOutcome::Condition),
            Self::Answered { .. }
            | Self::BadAnswer { .. }
            | Self::NoBucket
            | Self::NoRange
            | Self::Denied { .. }
            | Self::Unconditional { .. } => Some(BucketOutcome::Refused),
            Self::Down
            | Self::NoCredentials(_)
            | Self::File { .. }
            | Self::Certificates { .. }
            | Self::NotProbed
            | Self::Stopping => None,
        }
    }

    /// Returns whether the error is an answer of the service.
    pub(super) fn is_answer(&self) -> bool {
        !matches!(self.failed_outcome(), None | Some(BucketOutcome::Network))
    }

    /// Returns whether a person has to change something before the request can succeed.
    pub(crate) fn is_lasting(&self) -> bool {
        match self {
            Self::NoBucket
            | Self::Denied { .. }
            | Self::NoCredentials(_)
            | Self::File { .. }
            | Self::Certificates { .. }
            | Self::Untrusted(_)
            | Self::Unconditional { .. } => true,
            Self::Answered { status, .. } => *status == NOT_IMPLEMENTED,
            _ => false,
        }
    }

    /// Returns [`Self::Unconditional`] if the service doesn't support the header of `condition`,
    /// else the error itself.
    pub(super) fn of_write(self, condition: WriteCondition<'_>) -> Self {
        match (&self, condition.header()) {
            (Self::Answered { status, code, .. }, Some(condition))
                if *status == NOT_IMPLEMENTED || code == "NotImplemented" =>
            {
                Self::Unconditional { condition }
            }
            _ => self,
        }
    }
}

impl From<S3Error> for BucketError {
    fn from(error: S3Error) -> Self {
        if error.is_outage() {
            Self::Outage(error.into())
        } else {
            Self::Refusal(error.into())
        }
    }
}

impl<E> From<SdkError<E>> for S3Error
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    fn from(error: SdkError<E>) -> Self {
        let status = error.raw_response().map_or(0, |raw| raw.status().as_u16());
        let text = |text: Option<&str>| text.unwrap_or_default().chars().take(200).collect();
        match error {
            SdkError::TimeoutError(_) => Self::TimedOut,
            SdkError::ServiceError(context) => {
                let error = context.err();
                of_status(status, text(error.code()), text(error.message()))
            }
            SdkError::DispatchFailure(ref failure) => {
                let cause = failure.as_connector_error();
                // The SDK reports missing credentials as a failure to send.
                if cause.and_then(find::<CredentialsError>).is_some() {
                    Self::NoCredentials(error.into())
                } else if let Some(tls) = cause.and_then(find).filter(|tls| is_untrusted(tls)) {
                    Self::Untrusted(tls.clone())
                } else if failure.is_timeout() {
                    Self::TimedOut
                } else {
                    Self::Unreachable(error.into())
                }
            }
            // Credentials are looked for before anything is sent.
            SdkError::ConstructionFailure(_) => Self::NoCredentials(error.into()),
            _ if status >= 300 => of_status(status, String::new(), String::new()),
            error => Self::Unreachable(error.into()),
        }
    }
}

/// Returns the error of type `T` in the chain of `error`.
fn find<T: Error + 'static>(error: &aws_sdk_s3::error::ConnectorError) -> Option<&T> {
    let mut next: Option<&(dyn Error + 'static)> = error.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // The source of an I/O error is the source of the error inside it, so the inner one would
        // be skipped.
        let within = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        next = match within {
            Some(within) => Some(within),
            None => error.source(),
        };
    }
    None
}

/// Returns whether a certificate is not trusted for good. An expired one doesn't count, because the
/// service may replace it.
fn is_untrusted(error: &tokio_rustls::rustls::Error) -> bool {
    match error {
        tokio_rustls::rustls::Error::InvalidCertificate(why) => !matches!(
            why,
            CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. }
        ),
        _ => false,
    }
}

fn of_status(status: u16, code: String, message: String) -> S3Error {
    match (status, &*code) {
        (404, "NoSuchBucket") => S3Error::NoBucket,
        (404, _) => S3Error::NoObject,
        (412 | 304, _) => S3Error::Precondition,
        (416, _) => S3Error::NoRange,
        (401 | 403, "RequestTimeTooSkewed") => S3Error::Denied {
            code,
            message: "this machine's clock is wrong".to_owned(),
        },
        (401 | 403, _) | (400, "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired") => {
            S3Error::Denied { code, message }
        }
        _ => S3Error::Answered {
            status,
            code,
            message,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_daemon_is_no_outage() {
        let refusals = [
            S3Error::NoCredentials("they have expired".into()),
            S3Error::Denied {
                code: "InvalidAccessKeyId".to_owned(),
                message: String::new(),
            },
            // The response to HEAD has no body, so no code.
            of_status(400, String::new(), String::new()),
            S3Error::NoBucket,
            of_status(429, "SlowDown".to_owned(), "later".to_owned()),
        ];
        for error in refusals {
            let error = BucketError::from(error);
            assert!(matches!(error, BucketError::Refusal(_)), "{error:?}");
        }
        for error in [S3Error::Down, S3Error::NotProbed, S3Error::Cut] {
            let error = BucketError::from(error);
            assert!(matches!(error, BucketError::Outage(_)), "{error:?}");
        }
    }
}
