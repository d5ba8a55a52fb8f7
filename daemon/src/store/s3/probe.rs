//! Whether a bucket honours what publishing relies on: some services answer 200 to a condition that they
//! ignore.

use std::time::Duration;

use bytes::Bytes;

use super::bucket::Condition;
use super::{Bucket, S3Error};

/// An object beside all repositories. It is the same for all daemons and stays.
const NAME: &str = "probe";
const CONTENT: &[u8] = b"cachewfsd writes this, and finds that it can't be written twice\n";
/// What is never written where conditions are honoured. Another one, so that a write whose answer was lost isn't
/// taken for one that was carried out.
const REFUSED: &[u8] = b"if this is here, the service of this bucket ignores conditions\n";
/// An `ETag` that nothing has.
const STALE: &str = "\"00000000000000000000000000000000\"";
/// Both are shorter.
const MAX_LEN: u64 = 1000;
/// How often a bucket is asked that could not be.
pub(super) const PAUSE: Duration = Duration::from_secs(2);
/// Other daemons may probe, too: so often the object may be written by one of them before it is here.
const MAX_RACES: usize = 16;

impl Bucket {
    /// Writes something twice that must be written once, over something that isn't there, and over what is.
    pub(super) async fn probe(&self) -> Result<(), S3Error> {
        // Some services make a bucket of a misspelt name when something is written to it.
        self.list(NAME).await?;
        match self.write_probe(CONTENT, Condition::Absent).await {
            // It is there from an earlier start.
            Ok(()) | Err(S3Error::Precondition) => {}
            Err(error) => return Err(error),
        }
        let twice = self.write_probe(REFUSED, Condition::Absent).await;
        refused(twice, Condition::Absent)?;
        let stale = Condition::Is(STALE);
        refused(self.write_probe(REFUSED, stale).await, stale)?;
        self.replace_probe().await?;
        let mut part = [0; 9];
        self.read(NAME, 0, &mut part).await?;
        if CONTENT.starts_with(&part) {
            return Ok(());
        }
        let what = "it is not what was written";
        Err(S3Error::BadAnswer { what })
    }

    async fn write_probe(&self, content: &'static [u8], on: Condition<'_>) -> Result<(), S3Error> {
        self.write(NAME, Bytes::from_static(content), on).await
    }

    /// Writes over what is there, which must go well unless somebody else did meanwhile.
    async fn replace_probe(&self) -> Result<(), S3Error> {
        let mut last = None;
        for _ in 0..MAX_RACES {
            let (_, etag) = self.read_whole(NAME, MAX_LEN).await?;
            // What is there is still what it was, and was taken for something else.
            if last.as_ref() == Some(&etag) {
                break;
            }
            let written = self.write_probe(CONTENT, Condition::Is(&etag)).await;
            match written {
                Err(S3Error::Precondition) => last = Some(etag),
                written => return written,
            }
        }
        Err(unconditional(Condition::Is(STALE)))
    }
}

fn refused(written: Result<(), S3Error>, condition: Condition<'_>) -> Result<(), S3Error> {
    match written {
        Err(S3Error::Precondition) => Ok(()),
        Ok(()) => Err(unconditional(condition)),
        Err(error) => Err(error),
    }
}

fn unconditional(condition: Condition<'_>) -> S3Error {
    let condition = condition.header().unwrap_or("conditions");
    S3Error::Unconditional { condition }
}
