//! Passes an answer on to a client: bounded in memory and time, broken off if it fails.
//!
//! A task takes from the source and fills a short queue; so time limits count also while the client
//! takes nothing. When the client has gone, the task ends at once and drops the source, which ends
//! the process or the request behind it.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::error_chain::chain;

/// So many pieces of at most about 64 KiB wait for the client.
const QUEUE_LEN: usize = 4;

/// How long answers may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerLimits {
    /// From beginning to end.
    pub(super) total: Duration,
    /// For the client to take a piece.
    pub(super) idle: Duration,
}

/// Where answers are passed on.
#[derive(Clone, Debug)]
pub(super) struct Relay {
    pub(super) limits: AnswerLimits,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// Why an answer is broken off.
#[derive(Debug, thiserror::Error)]
enum BrokenOff<E: std::error::Error + 'static> {
    #[error("its source failed")]
    Source(#[source] E),
    #[error("it took longer than {}", humantime::format_duration(*.0))]
    TooLong(Duration),
    #[error("the client took nothing for {}", humantime::format_duration(*.0))]
    Idle(Duration),
    #[error("the daemon stops")]
    Stopping,
}

enum Piece {
    Bytes(Bytes),
    /// Nothing went wrong; without this, the client must not take what it has for all.
    End,
}

impl Relay {
    /// Gives a body that carries what `source` gives; `held` is dropped when that is over.
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
            let _held = held;
            let passed = tokio::select! {
                passed = timeout(limits.total, pass(source, &sender, limits.idle)) => passed
                    .unwrap_or(Err(BrokenOff::TooLong(limits.total))),
                () = stop.cancelled() => Err(BrokenOff::Stopping),
                () = sender.closed() => {
                    debug!("A git client went away");
                    return;
                }
            };
            if let Err(error) = passed {
                let error = chain(&error);
                warn!(error, "An answer to a git client was broken off");
            }
        });
        Body::from_stream(stream::unfold(Some(receiver), async |receiver| {
            let mut receiver = receiver?;
            match receiver.recv().await {
                Some(Piece::Bytes(bytes)) => Some((Ok(bytes), Some(receiver))),
                Some(Piece::End) => None,
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
        // That the client has gone is noticed by the task.
        sent.map_err(|_| BrokenOff::Idle(idle))?.ok();
    }
    timeout(idle, sender.send(Piece::End))
        .await
        .map_err(|_| BrokenOff::Idle(idle))?
        .ok();
    Ok(())
}
