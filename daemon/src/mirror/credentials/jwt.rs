//! The JSON web token that identifies a GitHub App (RFC 7519, RS256).

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use super::CredentialError;

/// How long a token is valid, in seconds. GitHub accepts ten minutes at most, and clocks differ.
const LIFETIME: u64 = 9 * 60;
/// How far GitHub's clock may be behind this machine's, in seconds.
const CLOCK_SKEW: u64 = 60;

/// Reads a private RSA key from a PEM file, in PKCS #1 (as GitHub issues it) or PKCS #8.
pub(super) fn read_key(path: &Path) -> Result<KeyPair, CredentialError> {
    let key = match PrivateKeyDer::from_pem_file(path) {
        Ok(PrivateKeyDer::Pkcs1(key)) => KeyPair::from_der(key.secret_pkcs1_der()).ok(),
        Ok(PrivateKeyDer::Pkcs8(key)) => KeyPair::from_pkcs8(key.secret_pkcs8_der()).ok(),
        Ok(_) | Err(_) => None,
    };
    let path = path.to_owned();
    key.ok_or(CredentialError::Key { path })
}

/// Returns a signed token that proves that the App itself sends the request.
pub(super) fn sign(app_id: &str, key: &KeyPair) -> Result<String, CredentialError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_err(|_| CredentialError::Signature)?.as_secs();
    let claims = serde_json::json!({
        "iat": now.saturating_sub(CLOCK_SKEW),
        "exp": now + LIFETIME,
        "iss": app_id,
    });
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#);
    let claims = URL_SAFE_NO_PAD.encode(claims.to_string());
    let signed = format!("{header}.{claims}");
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        signed.as_bytes(),
        &mut signature,
    )
    .map_err(|_| CredentialError::Signature)?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}
