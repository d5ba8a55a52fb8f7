//! What an operator writes about who may do what.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The `[auth]` section. Both files are read again when they change; one that can't be used then is
/// logged, and what was read before stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// A file of the tokens that are known, one a line: `name:sha256-of-the-token[:group,…]`, as
    /// `cachewfsd new-token` prints them. Default none: everyone is anonymous.
    pub tokens_file: Option<PathBuf>,
    /// A policy in Rego. Default: the one that is built in, `daemon/src/auth/default.rego`.
    pub policy: Option<PathBuf>,
}
