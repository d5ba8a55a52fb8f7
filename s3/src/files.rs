//! Reads the files that the configuration of a bucket names.

use std::fs::File;

use super::{S3Config, S3Error};

/// Returns the certificates of `ca_file`, or `None` if it isn't configured.
pub(super) fn certificates(config: &S3Config) -> Result<Option<Vec<u8>>, S3Error> {
    let Some(path) = &config.ca_file else {
        return Ok(None);
    };
    let pem = std::fs::read(path).map_err(|source| S3Error::File {
        path: path.clone(),
        source,
    })?;
    check_certificates(&pem).map_err(|source| S3Error::Certificates {
        path: path.clone(),
        source,
    })?;
    Ok(Some(pem))
}

/// Checks that `credentials_file` can be read, if it is configured.
pub(super) fn check_credentials(config: &S3Config) -> Result<(), S3Error> {
    let Some(path) = &config.credentials_file else {
        return Ok(());
    };
    let opened = File::open(path).and_then(|file| file.metadata());
    let read = opened.and_then(|metadata| {
        let is_directory = std::io::ErrorKind::IsADirectory;
        let is_file = !metadata.is_dir();
        is_file.then_some(()).ok_or(is_directory.into())
    });
    read.map_err(|source| S3Error::File {
        path: path.clone(),
        source,
    })
}

/// Refuses files with which the client would panic at its first request.
fn check_certificates(pem: &[u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let certificates = reqwest::Certificate::from_pem_bundle(pem)?;
    if certificates.is_empty() {
        return Err("it has no certificates".into());
    }
    Ok(())
}
