//! `git upload-pack`: serves a repository to git clients.

use std::fs::File;
use std::path::Path;

use super::{Git, GitError, GitStream, PACK_WINDOW_MEMORY};

/// Settings that override the repository's own configuration, because an upstream that is a
/// directory may be served directly.
///
/// Clients may ask for parts of the history, for parts of the objects, and for any object by its
/// id. The daemon's own refs are hidden, but clients may ask for the objects that they keep.
///
/// `allowRefInWant` is left out. With it, git 2.47 sends `wanted-refs` before `shallow-info` but
/// expects the opposite order, so each shallow clone would fail.
const UPLOAD_PACK_CONFIG: &[(&str, &str)] = &[
    ("uploadpack.allowFilter", "true"),
    ("uploadpack.allowAnySHA1InWant", "true"),
    // For this filter git visits each path, and a few trees can have any number of paths. The
    // setting overrides upstream's.
    ("uploadpackfilter.sparse:oid.allow", "false"),
    ("uploadpack.hideRefs", "refs/cachewfs"),
    ("uploadpack.advertiseBundleURIs", "false"),
    // git before 2.47 sends damaged packs if it reuses several packs at once.
    ("pack.allowPackReuse", "true"),
];

/// The parts of a `Git-Protocol` header that are passed to git.
const KNOWN_PROTOCOLS: &[&str] = &["version=0", "version=1", "version=2"];

/// One run of `git upload-pack`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UploadPack<'a> {
    pub(crate) git: &'a Git,
    pub(crate) repository: &'a Path,
    /// A `Git-Protocol` header whose characters were checked.
    pub(crate) protocol: Option<&'a str>,
}

impl UploadPack<'_> {
    /// Starts the response to `info/refs`.
    pub(crate) fn advertise(&self) -> Result<GitStream, GitError> {
        self.run(&["--advertise-refs"], None)
    }

    /// Starts the response to one request. Reads the request from the present position of `body`.
    pub(crate) fn answer(&self, body: File) -> Result<GitStream, GitError> {
        self.run(&[], Some(body))
    }

    fn run(&self, arguments: &[&str], body: Option<File>) -> Result<GitStream, GitError> {
        let io = |source| GitError::Spawn {
            command: "upload-pack".to_owned(),
            source,
        };
        let repository = std::path::absolute(self.repository).map_err(io)?;
        let mut command = self
            .git
            .command("upload-pack")
            // Nearly all deltas exist already, and many of these processes run at once.
            .config("pack.threads", 1)
            .config("pack.windowMemory", PACK_WINDOW_MEMORY);
        for (key, value) in UPLOAD_PACK_CONFIG {
            command = command.config(key, value);
        }
        if let Some(protocol) = self.protocol {
            // The header comes from a client: only values that git knows reach its environment.
            let is_known = |item: &&str| KNOWN_PROTOCOLS.contains(item);
            let known: Vec<_> = protocol.split(':').filter(is_known).collect();
            command = command.variable("GIT_PROTOCOL", known.join(":"));
        }
        if let Some(body) = body {
            command = command.input_file(body);
        }
        command
            .args(["--stateless-rpc"])
            .args(arguments)
            .args(["--"])
            .args([repository])
            .stream()
    }
}
