//! `git upload-pack`: what serves a repository to git clients.

use std::fs::File;
use std::path::Path;

use super::{Git, GitError, GitStream};
use crate::config::GitConfig;

/// What clients may ask for, whatever the repository's own configuration says: parts of the history
/// and of the objects, and any object that there is. Our own refs are not shown; what they keep can
/// be asked for all the same. No `allowRefInWant`: with it, git 2.47 sends `wanted-refs` before
/// `shallow-info` and expects them the other way round, so that each shallow clone fails.
const SERVED: &[(&str, &str)] = &[
    ("uploadpack.allowFilter", "true"),
    ("uploadpack.allowAnySHA1InWant", "true"),
    // git visits each path for this filter, and a few trees can have any number of paths. Upstream
    // may have it.
    ("uploadpackfilter.sparse:oid.allow", "false"),
    ("uploadpack.hideRefs", "refs/cachewfs"),
    ("uploadpack.advertiseBundleURIs", "false"),
    // From several packs at once, versions before 2.47 send damaged ones.
    ("pack.allowPackReuse", "true"),
];

/// What of a `Git-Protocol` header goes to git.
const KNOWN_PROTOCOLS: &[&str] = &["version=0", "version=1", "version=2"];

/// Which repository is served, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UploadPack<'a> {
    pub(crate) git: &'a Git,
    pub(crate) config: &'a GitConfig,
    pub(crate) repository: &'a Path,
    /// A checked `Git-Protocol` header.
    pub(crate) protocol: Option<&'a str>,
}

impl UploadPack<'_> {
    /// Starts the answer to `info/refs`.
    pub(crate) fn advertise(&self) -> Result<GitStream, GitError> {
        self.run(&["--advertise-refs"], None)
    }

    /// Starts the answer to one request, which is in `body` from its present position on.
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
            // Nearly all deltas are there already, and many of these run at once.
            .config("pack.threads", 1)
            .config("pack.windowMemory", &self.config.pack_window_memory);
        for (key, value) in SERVED {
            command = command.config(key, value);
        }
        if let Some(protocol) = self.protocol {
            // What git doesn't know it has no use for.
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
