//! [`Login`]: a user name and a secret for upstream.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

/// The user name and secret that the daemon sends to upstream.
#[derive(Clone, PartialEq)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) secret: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Login({})", self.user)
    }
}

impl Login {
    /// Returns the login as the value of an `Authorization` header.
    pub(crate) fn to_header(&self) -> Option<HeaderValue> {
        let pair = STANDARD.encode(format!("{}:{}", self.user, self.secret));
        let mut value = HeaderValue::from_str(&format!("Basic {pair}")).ok()?;
        // A sensitive value is not printed with the other headers of a request.
        value.set_sensitive(true);
        Some(value)
    }
}
