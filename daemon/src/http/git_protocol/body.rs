//! The body of a request to `git-upload-pack`: received whole, inflated, bounded, in a file.
//!
//! git reads the file as its input, so that a client which sends slowly holds up no process, and the
//! request can be passed on after all if the mirror lacks something.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use flate2::write::GzDecoder;
use futures_util::TryStreamExt as _;
use tokio::time::timeout;

use super::GitHttpError;
use crate::http::body_budget::BodyReservation;

/// How much of the beginning is kept in memory, in bytes: what is wanted comes before what the client
/// has, and nearly all requests are shorter.
pub(super) const HEAD_LEN: usize = 64 << 10;
/// So many compressed bytes are inflated at once: at most a thousand times as many come out.
const PIECE_LEN: usize = 4 << 10;
/// At most how many times its compressed length a body may have, beside [`HEAD_LEN`]. git sends ids in
/// hexadecimal, for which the factor is two.
const MAX_RATIO: u64 = 100;

/// So much of a body that is refused is still taken, in bytes.
const MAX_DISCARDED_LEN: u64 = 256 << 20;
/// How long the daemon waits for more of such a body.
const DISCARD_PATIENCE: Duration = Duration::from_secs(1);

/// The limits of one body.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyLimits {
    /// After decompression.
    pub(super) bytes: u64,
    pub(super) time: Duration,
}

/// A body that has arrived.
#[derive(Debug)]
pub(super) struct ReceivedBody {
    head: Bytes,
    len: u64,
    file: Arc<File>,
    _reservation: BodyReservation,
}

impl ReceivedBody {
    /// The beginning.
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    /// The whole, if it is short.
    pub(super) fn whole(&self) -> Option<&Bytes> {
        (self.head.len() as u64 == self.len).then_some(&self.head)
    }

    /// The file, at its beginning. Whoever gets it must be done before it is asked for again.
    pub(super) fn rewound(&self) -> Result<File, GitHttpError> {
        let mut file = self.file.try_clone().map_err(spool)?;
        file.seek(SeekFrom::Start(0)).map_err(spool)?;
        Ok(file)
    }
}

/// Receives the body of a request into a file in `tmp` that has no name.
pub(super) async fn receive(
    body: Body,
    headers: &HeaderMap,
    limits: BodyLimits,
    (tmp, reservation): (&Path, BodyReservation),
) -> Result<ReceivedBody, GitHttpError> {
    let file = tempfile::tempfile_in(tmp).map_err(spool)?;
    let sink = BodySink {
        file,
        reservation,
        head: Vec::new(),
        len: 0,
        limit: limits.bytes,
        inflated_limit: u64::MAX,
        error: None,
    };
    let mut decoder = match encoding(headers)? {
        Encoding::Plain => Decoder::Plain(sink),
        Encoding::Gzip => Decoder::Gzip {
            decoder: Box::new(GzDecoder::new(sink)),
            taken: 0,
        },
    };
    let mut stream = body.into_data_stream();
    let receiving = async {
        let broken = |error| GitHttpError::BodyBroken(Arc::new(error));
        while let Some(bytes) = stream.try_next().await.map_err(broken)? {
            // To the page cache: shorter than handing it to another thread.
            if let Err(error) = decoder.push(&bytes) {
                // The room is for others now.
                drop(decoder);
                discard(&mut stream).await;
                return Err(error);
            }
        }
        Ok(decoder)
    };
    let limit = limits.time;
    let received = timeout(limit, receiving).await;
    received
        .map_err(|_| GitHttpError::BodyTooSlow { limit })??
        .finish()
}

/// Takes the rest of a body that is refused: a client that is still sending when the connection is
/// closed never sees why.
async fn discard(stream: &mut BodyDataStream) {
    let mut left = MAX_DISCARDED_LEN;
    while let Ok(Ok(Some(bytes))) = timeout(DISCARD_PATIENCE, stream.try_next()).await {
        match left.checked_sub(bytes.len() as u64) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

enum Encoding {
    Plain,
    Gzip,
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, GitHttpError> {
    let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
    match (values.next().map(HeaderValue::as_bytes), values.next()) {
        (None | Some(b"identity" | b""), None) => Ok(Encoding::Plain),
        (Some(b"gzip" | b"x-gzip"), None) => Ok(Encoding::Gzip),
        _ => Err(GitHttpError::BadContentEncoding),
    }
}

enum Decoder {
    Plain(BodySink),
    Gzip {
        decoder: Box<GzDecoder<BodySink>>,
        /// How many compressed bytes have come.
        taken: u64,
    },
}

impl Decoder {
    fn push(&mut self, bytes: &[u8]) -> Result<(), GitHttpError> {
        match self {
            Self::Plain(sink) => {
                let result = sink.write_all(bytes);
                result.map_err(|error| sink.why(error))
            }
            Self::Gzip { decoder, taken } => bytes.chunks(PIECE_LEN).try_for_each(|piece| {
                *taken += piece.len() as u64;
                decoder.get_mut().inflated_limit = *taken * MAX_RATIO + HEAD_LEN as u64;
                let result = decoder.write_all(piece);
                result.map_err(|error| decoder.get_mut().why(error))
            }),
        }
    }

    fn finish(self) -> Result<ReceivedBody, GitHttpError> {
        let sink = match self {
            Self::Plain(sink) => sink,
            Self::Gzip { mut decoder, .. } => {
                let result = decoder.try_finish();
                result.map_err(|error| decoder.get_mut().why(error))?;
                decoder
                    .finish()
                    .map_err(|error| GitHttpError::BadGzip(Arc::new(error)))?
            }
        };
        Ok(ReceivedBody {
            head: sink.head.into(),
            len: sink.len,
            file: Arc::new(sink.file),
            _reservation: sink.reservation,
        })
    }
}

/// Where a body goes, up to its limit.
struct BodySink {
    file: File,
    reservation: BodyReservation,
    head: Vec<u8>,
    len: u64,
    limit: u64,
    /// The limit that follows from the compressed bytes so far.
    inflated_limit: u64,
    /// Why writing failed, if it was not the decoder that did.
    error: Option<GitHttpError>,
}

impl BodySink {
    fn why(&mut self, error: std::io::Error) -> GitHttpError {
        let decoding = || GitHttpError::BadGzip(Arc::new(error));
        self.error.take().unwrap_or_else(decoding)
    }

    fn fail(&mut self, error: GitHttpError) -> std::io::Error {
        self.error = Some(error);
        std::io::ErrorKind::Other.into()
    }
}

impl std::io::Write for BodySink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let (limit, len) = (self.limit, self.len + bytes.len() as u64);
        if len > limit {
            return Err(self.fail(GitHttpError::BodyTooLong { limit }));
        }
        if len > self.inflated_limit {
            return Err(self.fail(GitHttpError::BodyInflates { ratio: MAX_RATIO }));
        }
        if !self.reservation.grow_to(len) {
            return Err(self.fail(GitHttpError::Busy));
        }
        if let Err(error) = self.file.write_all(bytes) {
            return Err(self.fail(spool(error)));
        }
        let room = HEAD_LEN.saturating_sub(self.head.len());
        self.head
            .extend_from_slice(bytes.split_at(room.min(bytes.len())).0);
        self.len = len;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn spool(error: std::io::Error) -> GitHttpError {
    GitHttpError::Spool(Arc::new(error))
}
