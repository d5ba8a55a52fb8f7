//! [`GitSecrets`]: the settings and secrets of one git command that talks to upstream.

/// How git talks to an upstream: with which credentials, and to no other server. All of it is
/// passed through the environment.
pub(crate) struct GitSecrets {
    /// Keys and values of git's configuration, none of them secret.
    pub(super) config: Vec<(String, String)>,
    pub(super) variables: Vec<(&'static str, String)>,
}
