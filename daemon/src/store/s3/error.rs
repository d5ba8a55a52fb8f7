//! Why a bucket doesn't do what is asked of it.

use std::error::Error;
use std::path::PathBuf;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

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
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the certificates in {path} can't be used")]
    Certificates {
        path: PathBuf,
        source: Box<dyn Error + Send + Sync>,
    },
    #[error(
        "the service of the bucket ignores {condition}: two daemons could overwrite each other's \
         snapshots. Use one that honours conditional writes (AWS S3, SeaweedFS 4.48, MinIO, Ceph), or \
         the store on disk"
    )]
    Unconditional { condition: &'static str },
    #[error("whether the bucket honours conditional writes is not known yet")]
    NotProbed,
    #[error("the daemon stops")]
    Stopping,
}

impl S3Error {
    /// Whether the same may go well a moment later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::TimedOut | Self::Cut => true,
            Self::Answered { status, code, .. } => {
                *status >= 500
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
            | Self::Unconditional { .. }
            | Self::NotProbed
            | Self::Stopping => false,
        }
    }

    /// Whether the bucket, or the way to it, is to blame, and not what was asked.
    pub(in crate::store) fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::TimedOut | Self::Cut | Self::Down | Self::Stopping => true,
            Self::Answered { status, .. } => *status >= 500,
            _ => false,
        }
    }

    /// How a request ended; `None` if none was sent.
    pub(super) fn outcome<T>(result: &Result<T, Self>) -> Option<S3Outcome> {
        let Err(error) = result else {
            return Some(S3Outcome::Ok);
        };
        match error {
            Self::Unreachable(_) | Self::TimedOut | Self::Cut => Some(S3Outcome::Network),
            Self::Answered { .. } if error.is_transient() => Some(S3Outcome::Server),
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

    /// Whether a person has to change something before it can go well.
    pub(crate) fn is_lasting(&self) -> bool {
        matches!(
            self,
            Self::NoBucket
                | Self::Denied { .. }
                | Self::NoCredentials(_)
                | Self::File { .. }
                | Self::Certificates { .. }
                | Self::Unconditional { .. }
        )
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
            SdkError::DispatchFailure(ref failure)
                if is_of_credentials(failure.as_connector_error()) =>
            {
                Self::NoCredentials(error.into())
            }
            SdkError::DispatchFailure(failure) if failure.is_timeout() => Self::TimedOut,
            SdkError::DispatchFailure(_) => Self::Unreachable(error.into()),
            // Credentials are looked for before anything is sent.
            SdkError::ConstructionFailure(_) => Self::NoCredentials(error.into()),
            _ if status >= 300 => of_status(status, String::new(), String::new()),
            error => Self::Unreachable(error.into()),
        }
    }
}

/// The SDK hands on that there are no credentials as if sending had failed.
fn is_of_credentials(error: Option<&aws_sdk_s3::error::ConnectorError>) -> bool {
    let mut source = error.and_then(Error::source);
    while let Some(error) = source {
        if error.is::<CredentialsError>() {
            return true;
        }
        source = error.source();
    }
    false
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
        (401 | 403, _) => S3Error::Denied { code, message },
        _ => S3Error::Answered {
            status,
            code,
            message,
        },
    }
}
