//! Reading a repository with git: from its mirror, else from upstream.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::body::{Received, receive};
use super::pass_on::{Passed, build, pass_on_shared};
use super::server::{Counters, GitServer};
use super::target::Target;
use super::{GitHttpError, headers, pkt_line};
use crate::error_chain::chain;
use crate::http::error::ApiError;
use crate::mirror::{GitError, GitStream, UploadPack, mirrored_namespaces};
use crate::repository::{Freshness, MirrorState, Repository};

/// What comes before an advertisement over HTTP, except in protocol version 2.
const SERVICE_LINE: &[u8] = b"001e# service=git-upload-pack\n0000";
/// RFC 7234 section 5.5.1.
const WARNING_STALE: HeaderValue = HeaderValue::from_static("110 cachewfsd \"Response is Stale\"");
/// Says, as the code of an error, why upstream could not be asked for a fresher answer.
const STALE: &str = "x-cachew-stale";

/// One request to read a repository.
#[derive(Debug)]
pub(super) struct Reader {
    server: Arc<GitServer>,
    target: Target,
    repository: Arc<Repository>,
    protocol: Option<String>,
    headers: HeaderMap,
}

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Mirror,
    /// The mirror, though upstream can't be asked whether it has moved.
    StaleMirror,
    Upstream,
}

/// What an answer depends on: refs move, objects don't.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Refs,
    Objects,
}

/// The two kinds of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Advertisement,
    Result,
}

impl Kind {
    fn of(body: Option<&Arc<Received>>) -> Self {
        body.map_or(Self::Advertisement, |_| Self::Result)
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Advertisement => "application/x-git-upload-pack-advertisement",
            Self::Result => "application/x-git-upload-pack-result",
        })
    }
}

/// A process whose first packet is here.
#[derive(Debug)]
struct Opened {
    first: Bytes,
    stream: GitStream,
    turn: OwnedSemaphorePermit,
}

impl Reader {
    /// Has the repository mirrored, too, if it isn't.
    pub(super) fn open(
        server: Arc<GitServer>,
        target: Target,
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
        })
    }

    fn is_version_2(&self) -> bool {
        headers::is_version_2(self.protocol.as_deref())
    }

    /// The capabilities; before protocol version 2, the refs too.
    pub(super) async fn info_refs(self) -> Result<Response, ApiError> {
        let subject = if self.is_version_2() {
            Subject::Objects
        } else {
            Subject::Refs
        };
        Ok(self.answer(None, subject).await?)
    }

    /// A listing of refs, or a pack.
    pub(super) async fn rpc(self, headers: &HeaderMap, body: Body) -> Result<Response, ApiError> {
        let limits = self.server.body_limits();
        let body = receive(body, headers, limits, &self.server.tmp).await?;
        let body = Arc::new(body);
        let subject = if self.is_version_2() && pkt_line::depends_on_refs(body.head()) {
            Subject::Refs
        } else {
            Subject::Objects
        };
        let is_foreign = subject == Subject::Refs && self.names_foreign_refs(body.head());
        if is_foreign && self.is_ready() {
            match self.pass_on(Some(&body), subject).await {
                Err(error) => debug!(error = chain(&error), "Upstream's refs can't be listed"),
                answer => return Ok(answer?),
            }
        }
        Ok(self.answer(Some(&body), subject).await?)
    }

    async fn answer(
        &self,
        body: Option<&Arc<Received>>,
        subject: Subject,
    ) -> Result<Response, GitHttpError> {
        let place = self.place(subject).await;
        if place != Place::Upstream {
            return self.read_mirror(body, (subject, place)).await;
        }
        match self.pass_on(body, subject).await {
            Err(error) if self.is_ready() => {
                let place = self.note_stale(&error);
                self.read_mirror(body, (subject, place)).await
            }
            answer => answer,
        }
    }

    /// Answers from the mirror, unless that lacks what is wanted: then upstream is asked.
    async fn read_mirror(
        &self,
        body: Option<&Arc<Received>>,
        (subject, place): (Subject, Place),
    ) -> Result<Response, GitHttpError> {
        let repo = &self.target.repo;
        match self.start(self.repository.mirror_path(), body).await {
            Ok(opened) if pkt_line::is_lacking(&opened.first) => {
                debug!(%repo, "A git client wants what the mirror of {repo} lacks");
            }
            Ok(opened) => return Ok(self.respond(opened, Kind::of(body), place)),
            // A client that learned upstream's capabilities before the mirror was there may use one
            // that we don't have; and a mirror that is broken is no reason to serve nothing.
            Err(GitHttpError::Git(error)) => {
                warn!(%repo, error = chain(&*error), "Serving {repo} from its mirror failed");
            }
            Err(error) => return Err(error),
        }
        self.pass_on(body, subject).await
    }

    fn is_ready(&self) -> bool {
        self.repository.status().state == MirrorState::Ready
    }

    async fn place(&self, subject: Subject) -> Place {
        if !self.is_ready() {
            return Place::Upstream;
        }
        if subject == Subject::Objects {
            return Place::Mirror;
        }
        let interval = self.server.config.ref_check_interval;
        match self.repository.fresh_within(interval).await {
            Ok(Freshness::Fresh) => Place::Mirror,
            Ok(Freshness::Behind) => Place::Upstream,
            Err(error) => self.note_stale(&error),
        }
    }

    /// It is better to serve what there is than to serve nothing; the answer says so.
    fn note_stale(&self, error: &dyn std::error::Error) -> Place {
        let repo = &self.target.repo;
        let stale_answers = Counters::count(&self.server.counters.stale);
        let error = chain(error);
        warn!(%repo, stale_answers, error, "Serving {repo} as it was: upstream can't be asked");
        Place::StaleMirror
    }

    /// Whether names outside of what is mirrored are asked for, such as `refs/pull/1/head`.
    ///
    /// For a short name git asks for all that it may stand for, `refs/<name>` among them; only one of
    /// several parts (`refs/pull/1/head`, or `refs/feature/x` for a branch) is worth asking upstream.
    fn names_foreign_refs(&self, head: &[u8]) -> bool {
        let namespaces = &self.server.config.namespaces;
        let is_foreign = |prefix: &str| {
            let name = prefix.strip_prefix("refs/").unwrap_or_default();
            let overlaps =
                |namespace: &str| prefix.starts_with(namespace) || namespace.starts_with(prefix);
            name.contains('/')
                && !name.starts_with("remotes/")
                && !name.starts_with("refs/")
                && !name.starts_with("cachewfs/")
                && !mirrored_namespaces(namespaces).any(overlaps)
        };
        pkt_line::ref_prefixes(head).any(is_foreign)
    }

    /// Passes the request on to upstream; one on this machine is served from its directory.
    async fn pass_on(
        &self,
        body: Option<&Arc<Received>>,
        subject: Subject,
    ) -> Result<Response, GitHttpError> {
        let upstream = self.repository.upstream();
        if let Some(directory) = upstream.directory() {
            return self.read_directory(&directory, body).await;
        }
        let passed = Passed::to_read(upstream, &self.target, &self.headers, body.cloned())?;
        let is_listing = subject == Subject::Refs;
        let max_age = is_listing.then_some(self.server.config.ref_check_interval);
        pass_on_shared(&self.server, passed, max_age).await
    }

    async fn read_directory(
        &self,
        directory: &Path,
        body: Option<&Arc<Received>>,
    ) -> Result<Response, GitHttpError> {
        let opened = match self.start(directory.to_owned(), body).await {
            Err(GitHttpError::Git(error)) if is_not_found(&error) => {
                let url = self.repository.upstream().url().to_owned();
                return Err(GitHttpError::NotFound { url });
            }
            opened => opened?,
        };
        Counters::count(&self.server.counters.passed_on);
        Ok(self.respond(opened, Kind::of(body), Place::Upstream))
    }

    /// Starts a process, and waits for its first packet.
    async fn start(
        &self,
        repository: PathBuf,
        body: Option<&Arc<Received>>,
    ) -> Result<Opened, GitHttpError> {
        let failed = |error| GitHttpError::Git(Arc::new(error));
        let turn = self.server.process_turn().await?;
        let upload_pack = UploadPack {
            git: &self.server.git,
            config: &self.server.config.git,
            repository: &repository,
            protocol: self.protocol.as_deref(),
        };
        let mut stream = match body {
            Some(body) => upload_pack.answer(body.rewound()?),
            None => upload_pack.advertise(),
        }
        .map_err(failed)?;
        let mut first = BytesMut::new();
        let limit = self.server.config.git_http.answer_timeout;
        let read = async {
            while !pkt_line::has_first_packet(&first) {
                match stream.next().await {
                    Ok(Some(bytes)) => first.extend_from_slice(&bytes),
                    Ok(None) => break,
                    // A refusal that git has put into words is its answer.
                    Err(_) if !first.is_empty() => break,
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        let timed_out = || GitError::TimedOut {
            command: "upload-pack".to_owned(),
            limit,
        };
        let read = timeout(limit, read).await;
        read.unwrap_or_else(|_| Err(timed_out())).map_err(failed)?;
        let first = first.freeze();
        Ok(Opened {
            first,
            stream,
            turn,
        })
    }

    fn respond(&self, opened: Opened, kind: Kind, place: Place) -> Response {
        let mut headers = headers::no_cache();
        if place != Place::Upstream {
            Counters::count(&self.server.counters.from_mirror);
        }
        if place == Place::StaleMirror {
            headers.insert(header::WARNING, WARNING_STALE);
            headers.insert(STALE, HeaderValue::from_static("upstream_failed"));
        }
        let needs_service_line = kind == Kind::Advertisement && !self.is_version_2();
        headers.insert(header::CONTENT_TYPE, kind.content_type());
        let service_line = needs_service_line.then(|| Bytes::from_static(SERVICE_LINE));
        // git ends with a failure after a refusal, which is a whole answer.
        let rest = (!pkt_line::is_refusal(&opened.first)).then_some(opened.stream);
        let begun = service_line.into_iter().chain([opened.first]).map(Ok);
        let rest = stream::try_unfold(rest, async |rest| match rest {
            Some(mut rest) => Ok(rest.next().await?.map(|bytes| (bytes, Some(rest)))),
            None => Ok::<_, GitError>(None),
        });
        let source = stream::iter(begun).chain(rest);
        let body = self.server.relay.body(source, opened.turn);
        build(StatusCode::OK, headers, body)
    }
}

fn is_not_found(error: &GitError) -> bool {
    matches!(error, GitError::Failed { stderr, .. } if stderr.contains("does not appear to be a git repository"))
}
