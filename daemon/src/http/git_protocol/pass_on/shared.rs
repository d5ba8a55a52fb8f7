//! Identical requests that are passed on at the same time share one answer of upstream.
//!
//! ```text
//! first request ──► task ──► upstream
//!                    └─► spool ─┬─► first client
//! identical request ────────────┴─► second client
//! ```
//!
//! A task fetches the answer into a spool, so that it continues when one client leaves. It ends
//! when all clients have left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::header;
use axum::response::Response;
use cachewfs_format::Digest;
use futures_util::{StreamExt as _, stream};
use tokio::sync::watch;
use tracing::warn;

use super::answers::SharedAnswer;
use super::request::{UpstreamBody, UpstreamRequest, pass_on, pieces, send};
use super::spool::{Spool, SpoolReader};
use crate::base::chain;
use crate::http::error::GitHttpError;
use crate::http::git_protocol::server::{GitCounters, GitServer};

/// Passes a request on, or joins an identical one in progress.
///
/// `max_age` limits how long ago the other request was sent. It is `None` if the answer doesn't
/// change with time.
pub(in crate::http::git_protocol) async fn pass_on_shared(
    server: &Arc<GitServer>,
    request: UpstreamRequest,
    max_age: Option<Duration>,
) -> Result<Response, GitHttpError> {
    let Some(key) = key(&request) else {
        return pass_on(server, request).await;
    };
    let (shared, reader) = join_or_lead(server, key, request, max_age)?;
    let mut head = shared.head.subscribe();
    let head = head.wait_for(Option::is_some).await;
    let head = head.ok().and_then(|head| head.clone());
    let head = head.unwrap_or(Err(GitHttpError::Busy))?;
    let body = stream::try_unfold(reader, async |mut reader: SpoolReader| {
        Ok::<_, super::spool::SpoolError>(reader.next().await?.map(|bytes| (bytes, reader)))
    });
    Ok(head.with(server.relay.body(body, ())))
}

/// Returns the digest of everything that upstream's answer may depend on. Returns `None` for
/// requests that are never shared: those with a client's credentials, and those with a long body.
fn key(request: &UpstreamRequest) -> Option<Digest> {
    if request.headers.contains_key(header::AUTHORIZATION) {
        return None;
    }
    let body = match &request.body {
        UpstreamBody::Nothing => &[],
        UpstreamBody::Received(body) => &**body.whole()?,
        UpstreamBody::Stream(_) => return None,
    };
    let mut text = format!("{} {}\n", request.method, request.url).into_bytes();
    for name in ["git-protocol", "accept-encoding", "content-type"] {
        let value = request.headers.get(name);
        text.extend_from_slice(value.map_or(b"", |value| value.as_bytes()));
        text.push(b'\n');
    }
    text.extend_from_slice(body);
    Some(Digest::of(&text))
}

fn join_or_lead(
    server: &Arc<GitServer>,
    key: Digest,
    request: UpstreamRequest,
    max_age: Option<Duration>,
) -> Result<(Arc<SharedAnswer>, SpoolReader), GitHttpError> {
    // Locked until the new entry is in the map, so that one of two simultaneous requests leads and
    // the other joins.
    let mut answers = server.shared.0.lock();
    if let Some(shared) = answers.get(&key)
        && max_age.is_none_or(|max_age| shared.began.elapsed() <= max_age)
        && let Some(reader) = shared.spool.join()
    {
        GitCounters::count(&server.counters.shared);
        return Ok((Arc::clone(shared), reader));
    }
    let (spool, reader) = Spool::create(&server.tmp, server.config().git_http.spool_bytes)
        .map_err(|error| GitHttpError::Spool(Arc::new(error)))?;
    let shared = Arc::new(SharedAnswer {
        began: Instant::now(),
        head: watch::Sender::new(None),
        spool,
    });
    answers.insert(key, Arc::clone(&shared));
    let (leader, server) = (Arc::clone(&shared), Arc::clone(server));
    server.clone().relay.tasks.spawn(async move {
        leader.lead(&server, request).await;
        server.shared.forget(&key, &leader);
    });
    Ok((shared, reader))
}

impl SharedAnswer {
    /// Fetches the whole answer into the spool.
    async fn lead(&self, server: &GitServer, request: UpstreamRequest) {
        let relay = &server.relay;
        let limit = relay.limits.total;
        let fetched = tokio::select! {
            fetched = tokio::time::timeout(limit, self.fetch(server, request)) => fetched
                .unwrap_or(Err(GitHttpError::UpstreamTooSlow { limit })),
            () = relay.stop.cancelled() => Err(GitHttpError::Busy),
            () = self.spool.abandoned() => return,
        };
        match fetched {
            Ok(()) => self.spool.finish(),
            Err(error) => {
                if self.head.borrow().is_some() {
                    let error = chain(&error);
                    warn!(error, "An answer of upstream broke off");
                } else {
                    // Each request that gets this error reports it.
                    self.head.send_replace(Some(Err(error)));
                }
                self.spool.give_up();
            }
        }
    }

    async fn fetch(
        &self,
        server: &GitServer,
        request: UpstreamRequest,
    ) -> Result<(), GitHttpError> {
        let _turn = server
            .upstream_permit(request.base.host(), request.client)
            .await?;
        let (head, response) = send(server, request).await?;
        self.head.send_replace(Some(Ok(head)));
        let mut pieces = std::pin::pin!(pieces(response, server.relay.limits.idle));
        while let Some(piece) = pieces.next().await {
            let written = self.spool.write(piece?).await;
            written.map_err(|error| GitHttpError::Spool(Arc::new(std::io::Error::other(error))))?;
        }
        Ok(())
    }
}
