//! A running `git upload-pack`. Its first packet tells whether it can answer the request.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;

use super::body::ReceivedBody;
use super::relay::Relay;
use super::server::GitServer;
use crate::base::Permit;
use crate::http::error::GitHttpError;
use crate::mirror::{GitError, GitStream, UploadPack, pkt_line};

/// A process that has sent its first packet.
#[derive(Debug)]
pub(super) struct RunningUploadPack {
    /// The beginning of the answer, as far as it is read.
    begun: Bytes,
    stream: GitStream,
    permit: Permit,
    /// The input of the process. It keeps its share of the body budget until git has ended.
    body: Option<Arc<ReceivedBody>>,
}

impl RunningUploadPack {
    /// Starts the process for the request in `body`, or for `info/refs` without one. Waits for the
    /// first packet.
    pub(super) async fn start(
        server: &GitServer,
        repository: &Path,
        (client, protocol): (IpAddr, Option<&str>),
        body: Option<&Arc<ReceivedBody>>,
    ) -> Result<Self, GitHttpError> {
        let failed = |error| GitHttpError::Git(Arc::new(error));
        let permit = server.process_permit(client).await?;
        let upload_pack = UploadPack {
            git: &server.context.git,
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

    /// Returns the beginning of the answer, as far as it is read.
    pub(super) fn begun(&self) -> &[u8] {
        &self.begun
    }

    /// Reads the answer until it ends or at least `len` bytes are there.
    pub(super) async fn gather(&mut self, len: usize) -> Result<(), GitError> {
        self.gather_until(|begun| begun.len() >= len).await
    }

    async fn gather_until(&mut self, is_enough: impl Fn(&[u8]) -> bool) -> Result<(), GitError> {
        let mut begun = BytesMut::from(&*self.begun);
        while !is_enough(&begun) {
            match self.stream.next().await {
                Ok(Some(bytes)) => begun.extend_from_slice(&bytes),
                Ok(None) => break,
                // A refusal in an `ERR` packet is git's answer, although the process then fails.
                Err(_) if !begun.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        self.begun = begun.freeze();
        Ok(())
    }

    /// Waits for the end of a process that has refused. Only then may another process or request
    /// read the input, because they share the file's position.
    pub(super) async fn end(mut self) {
        while let Ok(Some(_)) = self.stream.next().await {}
    }

    /// Returns the answer as a body, preceded by `before`.
    pub(super) fn into_body(self, relay: &Relay, before: Option<Bytes>) -> Body {
        // After a refusal git exits with an error, but its answer is complete.
        let rest = (!pkt_line::is_refusal(&self.begun)).then_some(self.stream);
        let begun = before.into_iter().chain([self.begun]).map(Ok);
        let rest = stream::try_unfold(rest, async |rest| match rest {
            Some(mut rest) => Ok(rest.next().await?.map(|bytes| (bytes, Some(rest)))),
            None => Ok::<_, GitError>(None),
        });
        relay.body(stream::iter(begun).chain(rest), (self.permit, self.body))
    }
}
