//! Why a bucket doesn't do what is asked of it.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use tokio_rustls::rustls::CertificateError;

use super::bucket::Condition;
use crate::metrics::S3Outcome;

/// Why a bucket doesn't do what is asked of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum S3Error {
    #[error("the bucket can't be reached")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
    #[error("the bucket did not answer in time")]
    TimedOut,
    #[error("the bucket can't be reached; it is tried again in a moment")]
    Down,
    #[error("the answer of the bucket ended early")]
    Cut,
    #[error("the answer of the bucket is not what was asked for: {what}")]
    BadAnswer { what: &'static str },
    #[error("there is no such bucket")]
    NoBucket,
    #[error("there is no such object")]
    NoObject,
    #[error("the object ends before what was asked for")]
    NoRange,
    #[error("the object is not in the state that was expected")]
    Precondition,
    #[error("the bucket refuses the daemon's credentials, or what they may do: {code} ({message})")]
    Denied { code: String, message: String },
    #[error("there are no credentials for the bucket")]
    NoCredentials(#[source] Box<dyn Error + Send + Sync>),
    #[error("the bucket answered {status} {code} ({message})")]
    Answered {
        status: u16,
        code: String,
        message: String,
    },
    #[error("can't use {path}")]
    File { path: PathBuf, source: io::Error },
    #[error("the certificates in {path} can't be used")]
    Certificates {
        path: PathBuf,
        source: Box<dyn Error + Send + Sync>,
    },
    #[error(
        "the certificate of the bucket's service is not trusted; if an authority of your own has signed it, \
         `ca_file` in [store.s3] has to name a file with that authority's certificate"
    )]
    Untrusted(#[source] tokio_rustls::rustls::Error),
    #[error(
        "the service of the bucket doesn't honour {condition} when something is written: two daemons could \
         overwrite each other's snapshots. Use one that honours conditional writes (AWS S3, SeaweedFS 4.48, MinIO, Ceph), or \
         the store on disk"
    )]
    Unconditional { condition: &'static str },
    #[error("whether the bucket honours conditional writes is not known yet")]
    NotProbed,
    #[error("the daemon stops")]
    Stopping,
}

/// The service knows what is wanted, and doesn't do it.
const NOT_IMPLEMENTED: u16 = 501;

/// Whether a service that answers so is out of order, and not asked too much.
fn is_failure(status: u16) -> bool {
    status >= 500 && status != NOT_IMPLEMENTED
}

impl S3Error {
    /// Whether the same may go well a moment later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::TimedOut | Self::Cut => true,
            Self::Answered { status, code, .. } => {
                is_failure(*status)
                    || matches!(status, 408 | 409 | 425 | 429)
                    || matches!(&**code, "RequestTimeout" | "SlowDown" | "Throttling")
                    // It was changed on its way.
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

    /// Whether the bucket, or the way to it, is to blame, and not what was asked.
    pub(in crate::store) fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable(_)
            | Self::TimedOut
            | Self::Cut
            | Self::Down
            // If it could be asked, it would be known.
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

    /// How a request ended; `None` if none was sent.
    pub(super) fn outcome<T>(result: &Result<T, Self>) -> Option<S3Outcome> {
        match result {
            Ok(_) => Some(S3Outcome::Ok),
            Err(error) => error.failed_outcome(),
        }
    }

    fn failed_outcome(&self) -> Option<S3Outcome> {
        match self {
            Self::Unreachable(_) | Self::TimedOut | Self::Cut | Self::Untrusted(_) => {
                Some(S3Outcome::Network)
            }
            Self::Answered { .. } if self.is_transient() => Some(S3Outcome::Server),
            Self::NoObject => Some(S3Outcome::Absent),
            Self::Precondition => Some(S3Outcome::Condition),
            Self::Answered { .. }
            | Self::BadAnswer { .. }
            | Self::NoBucket
            | Self::NoRange
            | Self::Denied { .. }
            | Self::Unconditional { .. } => Some(S3Outcome::Refused),
            Self::Down
            | Self::NoCredentials(_)
            | Self::File { .. }
            | Self::Certificates { .. }
            | Self::NotProbed
            | Self::Stopping => None,
        }
    }

    /// Whether the service said so.
    pub(super) fn is_answer(&self) -> bool {
        !matches!(self.failed_outcome(), None | Some(S3Outcome::Network))
    }

    /// Whether a person has to change something before it can go well.
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

    /// The same error, or that the service refuses the header with `condition`, if it is that.
    pub(super) fn of_write(self, condition: Condition<'_>) -> Self {
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
                // The SDK hands on that there are no credentials as if sending had failed.
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

/// An error of this type among what `error` was made of.
fn find<T: Error + 'static>(error: &aws_sdk_s3::error::ConnectorError) -> Option<&T> {
    let mut next: Option<&(dyn Error + 'static)> = error.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // Its source is that of the error in it.
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

/// Whether a certificate will not do, and not just now: one that expired may be replaced where it is.
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
