//! Builds HTTP clients, also on a machine without certificate authorities.

use reqwest::{Client, ClientBuilder};

/// Builds a client with the settings that `configure` adds.
///
/// If this machine has no certificate authorities, the client knows none: plain HTTP needs none.
pub(crate) fn http_client(
    configure: impl Fn(ClientBuilder) -> ClientBuilder,
) -> Result<Client, reqwest::Error> {
    let built = configure(Client::builder()).build();
    built.or_else(|error| {
        let without_authorities = configure(Client::builder().tls_certs_only([])).build();
        without_authorities.map_err(|_| error)
    })
}
