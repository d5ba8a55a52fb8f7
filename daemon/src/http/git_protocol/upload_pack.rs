//! Answers clients that read a repository with git: from its mirror, else from upstream.
//!
//! ```text
//! mirror ready? ─no─────────────────────────────► upstream
//!    │yes
//! depends on refs? ─no (ids only)─► mirror ─refuses, or git fails─► upstream
//!    │yes
//! checked within ref_check_interval, or now: unchanged ─► mirror
//!                                             moved ─────► upstream
//!                                             no answer ─► mirror, marked as stale
//! ```

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use tracing::{debug, warn};

use super::body::ReceivedBody;
use super::pass_on::{UpstreamRequest, build, pass_on_shared};
use super::running::RunningUploadPack;
use super::server::{GitCounters, GitServer};
use super::{headers, unmirrored};
use crate::base::chain;
use crate::http::error::{ApiError, GitHttpError, MovedTo};
use crate::http::request::client;
use crate::http::route::GitTarget;
use crate::mirror::{is_repository, pkt_line};
use crate::repository::{Freshness, MirrorState, Repository};

/// The bytes before an advertisement over HTTP, except in protocol version 2.
const SERVICE_LINE: &[u8] = b"001e# service=git-upload-pack\n0000";
/// The warning of a stale answer (RFC 7234 section 5.5.1).
const WARNING_STALE: HeaderValue = HeaderValue::from_static("110 cachewfsd \"Response is Stale\"");
/// The header of a stale answer. Its value is the code of the error that kept the daemon from
/// asking upstream.
const STALE: &str = "x-cachew-stale";

/// How much of a listing of refs is searched, in bytes. The client asked for a few names, so it is
/// short.
const MAX_GATHERED_LEN: usize = 256 << 10;

/// One request of a git client that reads a repository.
#[derive(Debug)]
pub(super) struct UploadPackRequest {
    server: Arc<GitServer>,
    target: GitTarget,
    repository: Arc<Repository>,
    protocol: Option<String>,
    headers: HeaderMap,
    client: IpAddr,
}

/// The source of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnswerSource {
    Mirror,
    /// The mirror, although upstream can't be asked whether it has changed.
    StaleMirror,
    Upstream,
}

/// The state that an answer depends on. Refs move, objects never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DependsOn {
    Refs,
    Objects,
}

/// The kind of an answer, which decides its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnswerKind {
    Advertisement,
    Result,
}

impl AnswerKind {
    fn of(body: Option<&Arc<ReceivedBody>>) -> Self {
        body.map_or(Self::Advertisement, |_| Self::Result)
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Advertisement => "application/x-git-upload-pack-advertisement",
            Self::Result => "application/x-git-upload-pack-result",
        })
    }
}

impl UploadPackRequest {
    /// Opens the repository, which starts to mirror it if it isn't mirrored yet.
    pub(super) fn open(
        server: Arc<GitServer>,
        target: GitTarget,
        parts: &Parts,
        protocol: Option<String>,
    ) -> Result<Self, ApiError> {
        let repository = server.registry.open(&target.repo)?;
        Ok(Self {
            server,
            target,
            repository,
            protocol,
            headers: parts.headers.clone(),
            client: client(parts),
        })
    }

    fn is_version_2(&self) -> bool {
        headers::is_version_2(self.protocol.as_deref())
    }

    /// Answers `info/refs`: the capabilities, and before protocol version 2 the refs too.
    pub(super) async fn info_refs(self) -> Result<Response, ApiError> {
        // In version 2, `info/refs` lists capabilities only.
        let depends_on = if self.is_version_2() {
            DependsOn::Objects
        } else {
            DependsOn::Refs
        };
        Ok(self.answer(None, depends_on).await?)
    }

    /// Answers a POST of `git-upload-pack`: a listing of refs, or a pack.
    pub(super) async fn rpc(self, body: ReceivedBody) -> Result<Response, ApiError> {
        let body = Arc::new(body);
        // Before version 2, the refs came with `info/refs`, and a POST names objects only.
        let depends_on = if self.is_version_2() && pkt_line::depends_on_refs(body.head()) {
            DependsOn::Refs
        } else {
            DependsOn::Objects
        };
        if depends_on == DependsOn::Refs && self.is_ready() {
            let unmirrored =
                unmirrored::prefixes(body.head(), &self.server.config().mirrors.namespaces);
            if !unmirrored.is_empty() {
                return Ok(self.list(&body, &unmirrored).await?);
            }
        }
        Ok(self.answer(Some(&body), depends_on).await?)
    }

    async fn answer(
        &self,
        body: Option<&Arc<ReceivedBody>>,
        depends_on: DependsOn,
    ) -> Result<Response, GitHttpError> {
        let source = self.source(depends_on).await;
        if source != AnswerSource::Upstream {
            return self.read_mirror(body, (depends_on, source)).await;
        }
        let passed = self.pass_on(body, depends_on).await;
        if is_answer(&passed) || !self.is_ready() {
            return passed;
        }
        let source = self.note_stale(passed.err());
        self.read_mirror(body, (depends_on, source)).await
    }

    /// Lists refs of which some are not mirrored.
    ///
    /// Upstream answers, unless the mirror has branches or tags with the short names. If upstream
    /// fails, the mirror answers with the refs that it has.
    async fn list(
        &self,
        body: &Arc<ReceivedBody>,
        unmirrored: &[String],
    ) -> Result<Response, GitHttpError> {
        let source = self.source(DependsOn::Refs).await;
        if source == AnswerSource::Upstream {
            return self.answer(Some(body), DependsOn::Refs).await;
        }
        let mut listing = self
            .start(&self.repository.mirror_path(), Some(body))
            .await?;
        let gathered = listing.gather(MAX_GATHERED_LEN).await;
        gathered.map_err(|error| GitHttpError::Git(Arc::new(error)))?;
        if !unmirrored::are_listed(listing.begun(), unmirrored) {
            let passed = self.pass_on(Some(body), DependsOn::Refs).await;
            if is_answer(&passed) {
                return passed;
            }
            let repo = &self.target.repo;
            debug!(%repo, "Listing only mirrored refs of {repo}: upstream gave no listing");
        }
        Ok(self.respond(listing, AnswerKind::Result, source))
    }

    /// Answers from the mirror. If the mirror refuses or git fails, passes the request on to
    /// upstream.
    async fn read_mirror(
        &self,
        body: Option<&Arc<ReceivedBody>>,
        (depends_on, source): (DependsOn, AnswerSource),
    ) -> Result<Response, GitHttpError> {
        let repo = &self.target.repo;
        match self.start(&self.repository.mirror_path(), body).await {
            // Usually the client wants an object that the mirror lacks. Upstream may have it.
            Ok(running) if pkt_line::is_refusal(running.begun()) => {
                running.end().await;
                debug!(%repo, "The mirror of {repo} refused a request; asking upstream");
            }
            Ok(running) => return Ok(self.respond(running, AnswerKind::of(body), source)),
            // A client may use a capability of upstream that the daemon's git lacks, if it asked
            // for capabilities before the mirror was ready. A broken mirror ends here too. In both
            // cases upstream can still answer.
            Err(GitHttpError::Git(error)) => {
                let error = chain(&*error);
                warn!(%repo, error, "Can't serve {repo} from its mirror; asking upstream");
            }
            Err(error) => return Err(error),
        }
        self.pass_on(body, depends_on).await
    }

    fn is_ready(&self) -> bool {
        self.repository.status().state == MirrorState::Ready
    }

    /// Returns whether upstream has moved the repository to another name.
    fn has_moved(&self) -> bool {
        let failure = self.repository.status().failure;
        failure.is_some_and(|failure| failure.error.moved_to().is_some())
    }

    async fn source(&self, depends_on: DependsOn) -> AnswerSource {
        if !self.is_ready() || self.has_moved() {
            return AnswerSource::Upstream;
        }
        if depends_on == DependsOn::Objects {
            return AnswerSource::Mirror;
        }
        let interval = self.server.config().ref_check_interval;
        match self.repository.fresh_within(interval).await {
            Ok(Freshness::Fresh) => AnswerSource::Mirror,
            Ok(Freshness::Behind) => AnswerSource::Upstream,
            // Passed on, so that upstream's redirect tells the client the other name.
            Err(error) if error.moved_to().is_some() => AnswerSource::Upstream,
            Err(error) => self.note_stale(Some(error)),
        }
    }

    /// Logs and counts a stale answer: it is better than none, and its headers say that it is
    /// stale.
    fn note_stale(&self, error: Option<impl std::error::Error>) -> AnswerSource {
        let repo = &self.target.repo;
        let stale_answers = GitCounters::count(&self.server.counters.stale);
        let error = error.map(|error| chain(&error));
        warn!(%repo, stale_answers, error, "Can't ask upstream; serving {repo} perhaps stale");
        AnswerSource::StaleMirror
    }

    /// Passes the request on to upstream, or serves it from upstream's directory on this machine.
    async fn pass_on(
        &self,
        body: Option<&Arc<ReceivedBody>>,
        depends_on: DependsOn,
    ) -> Result<Response, GitHttpError> {
        let upstream = self.repository.upstream();
        if let Some(directory) = upstream.directory() {
            return self.read_directory(&directory, body).await;
        }
        let mut request = UpstreamRequest::to_read(
            &upstream,
            &self.target,
            (&self.headers, self.client),
            body.cloned(),
        )?;
        // The client's own credentials come first. The daemon's are for clients that send none.
        if !self.headers.contains_key(header::AUTHORIZATION) {
            let authorization = upstream.authorization().await;
            request.own_authorization =
                authorization.map_err(|error| GitHttpError::Credentials(Arc::new(error)))?;
        }
        // Refs move, so an old listing can't be joined. A pack for given objects stays correct.
        let is_listing = depends_on == DependsOn::Refs;
        let max_age = is_listing.then_some(self.server.config().ref_check_interval);
        pass_on_shared(&self.server, request, max_age).await
    }

    async fn read_directory(
        &self,
        directory: &Path,
        body: Option<&Arc<ReceivedBody>>,
    ) -> Result<Response, GitHttpError> {
        let running = match self.start(directory, body).await {
            Err(GitHttpError::Git(error))
                if error.exit_code().is_some() && !is_repository(directory) =>
            {
                let url = self.repository.upstream().url().to_owned();
                return Err(GitHttpError::NotFound { url });
            }
            running => running?,
        };
        GitCounters::count(&self.server.counters.passed_on);
        Ok(self.respond(running, AnswerKind::of(body), AnswerSource::Upstream))
    }

    async fn start(
        &self,
        repository: &Path,
        body: Option<&Arc<ReceivedBody>>,
    ) -> Result<RunningUploadPack, GitHttpError> {
        let from = (self.client, self.protocol.as_deref());
        RunningUploadPack::start(&self.server, repository, from, body).await
    }

    fn respond(
        &self,
        running: RunningUploadPack,
        kind: AnswerKind,
        source: AnswerSource,
    ) -> Response {
        let repo = &self.target.repo;
        debug!(%repo, ?source, ?kind, "Answering a git client that reads {repo}");
        let mut headers = headers::no_cache();
        if source != AnswerSource::Upstream {
            GitCounters::count(&self.server.counters.from_mirror);
        }
        if source == AnswerSource::StaleMirror {
            headers.insert(header::WARNING, WARNING_STALE);
            headers.insert(STALE, HeaderValue::from_static("upstream_failed"));
        }
        let needs_service_line = kind == AnswerKind::Advertisement && !self.is_version_2();
        headers.insert(header::CONTENT_TYPE, kind.content_type());
        let service_line = needs_service_line.then(|| Bytes::from_static(SERVICE_LINE));
        let body = running.into_body(&self.server.relay, service_line);
        build(StatusCode::OK, headers, body)
    }
}

/// Returns whether upstream has answered with success, or named the repository to ask instead.
fn is_answer(passed: &Result<Response, GitHttpError>) -> bool {
    passed.as_ref().is_ok_and(|response| {
        let names_another = response.extensions().get::<MovedTo>().is_some();
        response.status().is_success() || names_another
    })
}
