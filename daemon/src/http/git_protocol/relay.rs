//! Passes an answer on to a client, limited in memory and time, and breaks it off if it fails.
//!
//! ```text
//! source (git or upstream) ─► task ─► queue of 4 pieces ─► client
//! ```
//!
//! The task reads the source and fills the queue, so the time limits also apply while the client
//! reads nothing. When the client goes away, the task ends at once and drops the source, which ends
//! the git process or the request to upstream.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::base::chain;

/// At most this many pieces, of about 64 KiB each, wait for the client.
const QUEUE_LEN: usize = 4;

/// The time limits of an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerLimits {
    /// For the whole answer.
    pub(super) total: Duration,
    /// For the client to accept one piece.
    pub(super) idle: Duration,
}

/// Passes answers on in tasks that the daemon waits for when it stops.
#[derive(Clone, Debug)]
pub(super) struct Relay {
    pub(super) limits: AnswerLimits,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// The reason why an answer is broken off.
#[derive(Debug, thiserror::Error)]
enum BrokenOff<E: std::error::Error + 'static> {
    #[error("its source failed")]
    Source(#[source] E),
    #[error("it took longer than {}", humantime::format_duration(*.0))]
    TooLong(Duration),
    #[error("the client accepted no bytes for {}", humantime::format_duration(*.0))]
    Idle(Duration),
    #[error("the daemon is stopping")]
    Stopping,
}

enum Piece {
    Bytes(Bytes),
    /// The answer is complete. If the queue closes without this, the connection is broken, so that
    /// the client can't take a part for the whole answer.
    End,
}

impl Relay {
    /// Returns a body with the bytes of `source`. `held` is dropped when the source has ended.
    pub(super) fn body<E>(
        &self,
        source: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
        held: impl Send + 'static,
    ) -> Body
    where
        E: std::error::Error + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(QUEUE_LEN);
        let (limits, stop) = (self.limits, self.stop.clone());
        self.tasks.spawn(async move {
            // Permits and input files in here are given back only when the source has ended.
            let _held = held;
            let passed = tokio::select! {
                passed = timeout(limits.total, pass(source, &sender, limits.idle)) => passed
                    .unwrap_or(Err(BrokenOff::TooLong(limits.total))),
                () = stop.cancelled() => Err(BrokenOff::Stopping),
                () = sender.closed() => {
                    debug!("A git client closed the connection");
                    return;
                }
            };
            if let Err(error) = passed {
                let error = chain(&error);
                warn!(error, "Broke off an answer to a git client");
            }
        });
        Body::from_stream(stream::unfold(Some(receiver), async |receiver| {
            let mut receiver = receiver?;
            match receiver.recv().await {
                Some(Piece::Bytes(bytes)) => Some((Ok(bytes), Some(receiver))),
                Some(Piece::End) => None,
                // Closed without `Piece::End`.
                None => Some((
                    Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe)),
                    None,
                )),
            }
        }))
    }
}

async fn pass<E: std::error::Error + 'static>(
    source: impl Stream<Item = Result<Bytes, E>>,
    sender: &mpsc::Sender<Piece>,
    idle: Duration,
) -> Result<(), BrokenOff<E>> {
    let mut source = std::pin::pin!(source);
    while let Some(bytes) = source.next().await {
        let bytes = bytes.map_err(BrokenOff::Source)?;
        let sent = timeout(idle, sender.send(Piece::Bytes(bytes))).await;
        // The send fails only if the client has gone; `body` notices that too, and ends the task.
        sent.map_err(|_| BrokenOff::Idle(idle))?.ok();
    }
    timeout(idle, sender.send(Piece::End))
        .await
        .map_err(|_| BrokenOff::Idle(idle))?
        .ok();
    Ok(())
}
