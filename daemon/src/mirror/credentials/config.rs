//! The configuration of credentials for upstream.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One `[upstream_auth."<host>"]` section. It has exactly one of `token_env`, `token_file` and
/// `app_id`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamAuthConfig {
    /// An environment variable of the daemon that contains a token.
    pub token_env: Option<String>,
    /// A file that contains a token. It is read for each use.
    pub token_file: Option<PathBuf>,
    /// The user name that is sent with the token. Default `x-access-token`.
    pub username: String,
    /// The number or the client id of a GitHub App.
    pub app_id: Option<String>,
    /// A PEM file with the private key of the App. It is read for each use.
    pub private_key_file: Option<PathBuf>,
    /// The App's installation. Default: looked up for each owner of a repository.
    pub installation_id: Option<u64>,
    /// The URL of GitHub's API. Default `https://api.github.com`.
    pub api_url: String,
}

impl Default for UpstreamAuthConfig {
    fn default() -> Self {
        Self {
            token_env: None,
            token_file: None,
            username: "x-access-token".to_owned(),
            app_id: None,
            private_key_file: None,
            installation_id: None,
            api_url: "https://api.github.com".to_owned(),
        }
    }
}
