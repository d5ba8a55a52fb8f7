//! The `[auth]` section of the configuration.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The `[auth]` section. Both files are read again when they change. If the new content can't be
/// used, that is logged, and the earlier content stays in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// The file with the known tokens, one a line: `name:sha256-of-the-token[:group,…]`, as
    /// `cachewfsd new-token` prints them. Without it, every caller is anonymous.
    pub tokens_file: Option<PathBuf>,
    /// The file with a policy in Rego. Without it, the built-in policy
    /// `packaging/default.rego` decides.
    pub policy: Option<PathBuf>,
}
