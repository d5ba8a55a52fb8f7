//! A body of stored bytes that goes on over a new connection when it falls quiet.
//!
//! A connection can end without a sign: a VPN drops, a router forgets it. The bytes on their way
//! then never arrive. A second request for the rest finds that out, and does no harm if the daemon
//! is only slow, because the first one goes on until the second one has brought a byte.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::sleep;
use tracing::debug;

use super::{Segment, SegmentLocation};
use crate::fetch::{BodyStream, FetchError, RangeRequest};
use crate::traffic::Purpose;

/// How long nothing arrives before a second request asks for the rest. A connection that works
/// over a bad line pauses for less.
const QUIET: Duration = Duration::from_secs(3);

/// A request for stored bytes of a segment.
#[derive(Debug)]
pub(super) struct BodyRequest<'a> {
    pub(super) segment: &'a Segment,
    /// The archive to ask for, or `None` for the newest one that has the segment.
    pub(super) place: Option<&'a SegmentLocation>,
    /// Half-open, in bytes from the start of the segment.
    pub(super) range: Range<u64>,
    pub(super) purpose: Purpose,
    /// The number of earlier attempts.
    pub(super) attempt: usize,
}

/// The answer to a [`BodyRequest`].
pub(super) struct Body<'a> {
    /// The request for the bytes that have not arrived yet.
    rest: BodyRequest<'a>,
    pieces: BodyStream,
}

impl<'a> BodyRequest<'a> {
    /// Sends the request, and waits until the answer begins.
    pub(super) async fn open(self) -> Result<Body<'a>, FetchError> {
        let pieces = self.send().await?;
        Ok(Body { rest: self, pieces })
    }

    async fn send(&self) -> Result<BodyStream, FetchError> {
        let (range, purpose, attempt) = (&self.range, self.purpose, self.attempt);
        // Without a place, it is read anew for each attempt: a catch-up may have moved the segment
        // to another archive.
        let place = self.place.cloned();
        let place = place.unwrap_or_else(|| self.segment.location());
        let role = self.segment.record().role;
        debug!(
            ?role,
            start = range.start,
            end = range.end,
            ?purpose,
            attempt,
            "Fetching {role:?}"
        );
        let offset = |at: u64| place.offset.saturating_add(at);
        let request = RangeRequest {
            range: offset(range.start)..offset(range.end),
            repo: place.repo,
            path: place.path,
            purpose,
            attempt,
        };
        self.segment.backend.source.range(request).await
    }

    /// Asks again for the bytes that have not arrived, and waits for the first piece.
    async fn send_again(&self) -> Option<(Bytes, BodyStream)> {
        let traffic = &self.segment.backend.traffic;
        let repo = self.segment.location().repo;
        traffic.meter(Some(&repo), self.purpose).count_retry();
        let again = Self {
            range: self.range.clone(),
            // A later attempt goes over a new connection.
            attempt: self.attempt.saturating_add(1),
            ..*self
        };
        let mut pieces = again.send().await.ok()?;
        let first = pieces.next().await?.ok()?;
        Some((first, pieces))
    }
}

impl Body<'_> {
    /// Returns the next piece, or `None` after the last one.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            let Self { rest, pieces } = self;
            let piece = tokio::select! {
                biased;
                piece = pieces.next() => piece,
                again = async {
                    sleep(QUIET).await;
                    rest.send_again().await
                } => {
                    // If the second request failed, the first one may still go on.
                    let Some((first, others)) = again else {
                        continue;
                    };
                    *pieces = others;
                    Some(Ok(first))
                }
            };
            let Some(piece) = piece.transpose()? else {
                return Ok(None);
            };
            rest.range.start = rest.range.start.saturating_add(piece.len() as u64);
            return Ok(Some(piece));
        }
    }
}
