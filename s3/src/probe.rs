//! Checks that a bucket honours preconditions. Some services answer 200 to a precondition that they
//! ignore.

use std::time::Duration;

use bytes::Bytes;

use super::bucket::WriteCondition;
use super::{Bucket, S3Error};

/// An object beside all repositories. All daemons write the same one, and it stays.
const NAME: &str = "probe";
const CONTENT: &[u8] = b"cachewfsd writes this, and finds that it can't be written twice\n";
/// Content that no service with preconditions writes. It differs from [`CONTENT`], so that a write
/// whose response was lost can't be mistaken for one that was carried out.
const REFUSED: &[u8] = b"if this is here, the service of this bucket ignores conditions\n";
/// An `ETag` that no object has.
const STALE: &str = "\"00000000000000000000000000000000\"";
/// At most this many bytes of the object. Both contents are shorter.
const MAX_LEN: u64 = 1000;
/// How long to wait before an unreachable bucket is probed again.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// How often another daemon may replace the object between this daemon's read and its write.
const MAX_RACES: usize = 16;

impl Bucket {
    /// Makes two writes that must fail, one of an existing object and one with a stale `ETag`, and
    /// then one that must succeed.
    pub(super) async fn probe(&self) -> Result<(), S3Error> {
        // Some services create a bucket with a misspelt name at the first write.
        self.list(NAME).await?;
        match self.write_probe(CONTENT, WriteCondition::Absent).await {
            // It exists since an earlier start.
            Ok(()) | Err(S3Error::Precondition) => {}
            Err(error) => return Err(error),
        }
        let twice = self.write_probe(REFUSED, WriteCondition::Absent).await;
        refused(twice, WriteCondition::Absent)?;
        let stale = WriteCondition::Is(STALE);
        refused(self.write_probe(REFUSED, stale).await, stale)?;
        self.replace_probe().await?;
        let mut part = [0; 9];
        self.read(NAME, 0, &mut part).await?;
        if CONTENT.starts_with(&part) {
            return Ok(());
        }
        let what = "the probe object has other bytes than were written";
        Err(S3Error::BadAnswer { what })
    }

    async fn write_probe(
        &self,
        content: &'static [u8],
        on: WriteCondition<'_>,
    ) -> Result<(), S3Error> {
        self.write(NAME, Bytes::from_static(content), on).await
    }

    /// Replaces the object, which must succeed unless another daemon replaces it in between.
    async fn replace_probe(&self) -> Result<(), S3Error> {
        let mut last = None;
        for _ in 0..MAX_RACES {
            let (_, etag) = self.read_whole(NAME, MAX_LEN).await?;
            // The `ETag` hasn't changed, so the service refused a precondition that was met.
            if last.as_ref() == Some(&etag) {
                break;
            }
            let written = self.write_probe(CONTENT, WriteCondition::Is(&etag)).await;
            match written {
                Err(S3Error::Precondition) => last = Some(etag),
                written => return written,
            }
        }
        Err(unconditional(WriteCondition::Is(STALE)))
    }
}

fn refused(written: Result<(), S3Error>, condition: WriteCondition<'_>) -> Result<(), S3Error> {
    match written {
        Err(S3Error::Precondition) => Ok(()),
        Ok(()) => Err(unconditional(condition)),
        Err(error) => Err(error),
    }
}

fn unconditional(condition: WriteCondition<'_>) -> S3Error {
    let condition = condition.header().unwrap_or("conditions");
    S3Error::Unconditional { condition }
}
