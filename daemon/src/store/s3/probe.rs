//! Whether a bucket honours what publishing relies on: some services answer 200 to a condition that they
//! ignore.

use std::time::Duration;

use bytes::Bytes;

use super::bucket::Condition;
use super::{Bucket, S3Error};

/// An object beside all repositories. It is the same for all daemons and stays.
const NAME: &str = "probe";
const CONTENT: &[u8] = b"cachewfsd writes this, and finds that it can't be written twice\n";
/// An `ETag` that nothing has.
const STALE: &str = "\"00000000000000000000000000000000\"";
/// How often a bucket is asked that could not be.
pub(super) const PAUSE: Duration = Duration::from_secs(2);

impl Bucket {
    /// Writes something twice that must be written once, and over something that isn't there.
    pub(super) async fn probe(&self) -> Result<(), S3Error> {
        let content = || Bytes::from_static(CONTENT);
        // Some services make a bucket of a misspelt name when something is written to it.
        self.list(NAME).await?;
        match self.write(NAME, content(), Condition::Absent).await {
            // It is there from an earlier start.
            Ok(()) | Err(S3Error::Precondition) => {}
            Err(error) => return Err(error),
        }
        let twice = self.write(NAME, content(), Condition::Absent).await;
        refused(twice, "If-None-Match")?;
        let stale = self.write(NAME, content(), Condition::Is(STALE)).await;
        refused(stale, "If-Match")?;
        let mut part = [0; 9];
        self.read(NAME, 0, &mut part).await?;
        if CONTENT.starts_with(&part) {
            return Ok(());
        }
        let what = "it is not what was written";
        Err(S3Error::BadAnswer { what })
    }
}

fn refused(written: Result<(), S3Error>, condition: &'static str) -> Result<(), S3Error> {
    match written {
        Err(S3Error::Precondition) => Ok(()),
        Ok(()) => Err(S3Error::Unconditional { condition }),
        Err(error) => Err(error),
    }
}
