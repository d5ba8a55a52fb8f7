//! `git upload-pack` at work: its first packet tells whether it can answer.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;

use super::GitHttpError;
use super::body::ReceivedBody;
use super::relay::Relay;
use super::server::GitServer;
use crate::mirror::{GitError, GitStream, UploadPack};
use crate::pkt_line;
use crate::shares::Permit;

/// A process whose first packet is here.
#[derive(Debug)]
pub(super) struct RunningUploadPack {
    begun: Bytes,
    stream: GitStream,
    permit: Permit,
    /// The input, which takes room as long as git may read it.
    body: Option<Arc<ReceivedBody>>,
}

impl RunningUploadPack {
    /// Starts the answer to the request in `body`, or to `info/refs`, and waits for its first packet.
    pub(super) async fn start(
        server: &GitServer,
        repository: &Path,
        (client, protocol): (IpAddr, Option<&str>),
        body: Option<&Arc<ReceivedBody>>,
    ) -> Result<Self, GitHttpError> {
        let failed = |error| GitHttpError::Git(Arc::new(error));
        let permit = server.process_permit(client).await?;
        let upload_pack = UploadPack {
            git: &server.git,
            config: &server.config().git,
            repository,
            protocol,
        };
        let stream = match body {
            Some(body) => upload_pack.answer(body.rewound()?),
            None => upload_pack.advertise(),
        };
        let mut running = Self {
            begun: Bytes::new(),
            stream: stream.map_err(failed)?,
            permit,
            body: body.cloned(),
        };
        let limit = server.config().git_http.answer_timeout;
        let begun = timeout(limit, running.gather_until(pkt_line::has_first_packet)).await;
        let command = || "upload-pack".to_owned();
        let timed_out = |_| {
            Err(GitError::TimedOut {
                command: command(),
                limit,
            })
        };
        begun.unwrap_or_else(timed_out).map_err(failed)?;
        Ok(running)
    }

    /// What is here of the answer.
    pub(super) fn begun(&self) -> &[u8] {
        &self.begun
    }

    /// Takes an answer that is not longer than `len` whole.
    pub(super) async fn gather(&mut self, len: usize) -> Result<(), GitError> {
        self.gather_until(|begun| begun.len() >= len).await
    }

    async fn gather_until(&mut self, is_enough: impl Fn(&[u8]) -> bool) -> Result<(), GitError> {
        let mut begun = BytesMut::from(&*self.begun);
        while !is_enough(&begun) {
            match self.stream.next().await {
                Ok(Some(bytes)) => begun.extend_from_slice(&bytes),
                Ok(None) => break,
                // A refusal that git has put into words is its answer.
                Err(_) if !begun.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        self.begun = begun.freeze();
        Ok(())
    }

    /// Waits until a process that has refused is gone, so that nobody else reads its input.
    pub(super) async fn end(mut self) {
        while let Ok(Some(_)) = self.stream.next().await {}
    }

    /// The answer as a body, with `before` before it.
    pub(super) fn into_body(self, relay: &Relay, before: Option<Bytes>) -> Body {
        // git ends with a failure after a refusal, which is a whole answer.
        let rest = (!pkt_line::is_refusal(&self.begun)).then_some(self.stream);
        let begun = before.into_iter().chain([self.begun]).map(Ok);
        let rest = stream::try_unfold(rest, async |rest| match rest {
            Some(mut rest) => Ok(rest.next().await?.map(|bytes| (bytes, Some(rest)))),
            None => Ok::<_, GitError>(None),
        });
        relay.body(stream::iter(begun).chain(rest), (self.permit, self.body))
    }
}
