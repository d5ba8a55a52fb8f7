//! The body of a request to `git-upload-pack`: received completely into a file, inflated, and
//! limited in size and time.
//!
//! git reads the file as its input, so that a slow client keeps no process waiting. If the mirror
//! lacks an object, the same file is sent to upstream.

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

use crate::http::body_budget::BodyReservation;
use crate::http::error::GitHttpError;

/// How much of the beginning is kept in memory, in bytes. The wanted objects come before those that
/// the client has, and nearly all requests are shorter than this.
pub(super) const HEAD_LEN: usize = 64 << 10;
/// How many compressed bytes are inflated at a time. At most a thousand times as many bytes come
/// out.
const PIECE_LEN: usize = 4 << 10;
/// The largest ratio of a body's length to its compressed length, beside the first [`HEAD_LEN`]
/// bytes. git sends ids in hexadecimal, for which the ratio is two.
const MAX_RATIO: u64 = 100;

/// How much of a refused body is still read and discarded, in bytes.
const MAX_DISCARDED_LEN: u64 = 256 << 20;
/// How long the daemon waits for the next bytes of a refused body.
const DISCARD_PATIENCE: Duration = Duration::from_secs(1);

/// The limits of one body.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyLimits {
    /// The longest body after decompression.
    pub(super) bytes: u64,
    /// How long the client may take to send it.
    pub(super) time: Duration,
}

/// A body that has arrived completely.
#[derive(Debug)]
pub(super) struct ReceivedBody {
    head: Bytes,
    len: u64,
    file: Arc<File>,
    _reservation: BodyReservation,
}

impl ReceivedBody {
    /// Returns at most the first [`HEAD_LEN`] bytes.
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    /// Returns the whole body if it is not longer than [`HEAD_LEN`], else `None`.
    pub(super) fn whole(&self) -> Option<&Bytes> {
        (self.head.len() as u64 == self.len).then_some(&self.head)
    }

    /// Returns the file, positioned at its beginning. All handles share one position, so the caller
    /// must be done with one handle before it asks for another.
    pub(super) fn rewound(&self) -> Result<File, GitHttpError> {
        let mut file = self.file.try_clone().map_err(spool)?;
        file.seek(SeekFrom::Start(0)).map_err(spool)?;
        Ok(file)
    }
}

/// Receives the body of a request into an unnamed file in `tmp`.
pub(super) async fn receive(
    body: Body,
    headers: &HeaderMap,
    limits: BodyLimits,
    (tmp, reservation): (&Path, BodyReservation),
) -> Result<ReceivedBody, GitHttpError> {
    // Without a name, so that nothing stays on disk after a crash.
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
            // On this thread: the write goes to the page cache, which takes less time than handing
            // it to another thread.
            if let Err(error) = decoder.push(&bytes) {
                // Gives the file and the reservation back before the rest of the body is read.
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

/// Reads and discards the rest of a refused body. If the connection were closed while the client is
/// still sending, the client would never see the answer.
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
        /// How many compressed bytes have arrived.
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
                // A body of up to HEAD_LEN may inflate by any ratio: zeros inflate a thousandfold.
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

/// Writes a body to its file, and enforces the limits.
struct BodySink {
    file: File,
    reservation: BodyReservation,
    head: Vec<u8>,
    len: u64,
    limit: u64,
    /// The limit that results from the number of compressed bytes so far.
    inflated_limit: u64,
    /// The error of the sink itself. `io::Write` has only `io::Error`, so the decoder can't return
    /// it.
    error: Option<GitHttpError>,
}

impl BodySink {
    /// Returns the error of the sink, or that of the decoder if the sink had none.
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
            return Err(self.fail(GitHttpError::BodyTooLarge { limit }));
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
