//! [`Bucket`]: single requests to a bucket, retried while that may help.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use cachewfs_base::Backoff;
use cachewfs_store::{BucketMetrics, BucketOperation};
use md5::{Digest as _, Md5};
use tokio::sync::{Mutex, Semaphore};

use super::health::Health;
use super::{S3Config, S3Error, client};

/// The pauses between two tries of a request.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(50),
    longest: Duration::from_secs(1),
};

/// A bucket, or the part of it below a prefix.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) client: Client,
    pub(super) name: String,
    /// Where the bucket is, for messages.
    pub(super) place: String,
    prefix: String,
    timeout: Duration,
    /// Whether the SDK adds checksums to requests. If not, this module adds them.
    has_checksums: bool,
    permits: Semaphore,
    health: Health,
    pub(super) metrics: Arc<BucketMetrics>,
}

/// The precondition of a write.
#[derive(Clone, Copy, Debug)]
pub(super) enum WriteCondition<'a> {
    /// The object doesn't exist.
    Absent,
    /// The object has this `ETag`.
    Is(&'a str),
    /// None: the write replaces whatever is there.
    None,
}

impl WriteCondition<'_> {
    /// Returns the values of `If-None-Match` and `If-Match`.
    pub(super) fn headers(self) -> (Option<String>, Option<String>) {
        match self {
            Self::Absent => (Some("*".to_owned()), None),
            Self::Is(etag) => (None, Some(etag.to_owned())),
            Self::None => (None, None),
        }
    }

    /// Returns the name of the header that this precondition sets.
    pub(super) fn header(self) -> Option<&'static str> {
        match self {
            Self::Absent => Some("If-None-Match"),
            Self::Is(_) => Some("If-Match"),
            Self::None => None,
        }
    }
}

/// An object in a listing of the bucket.
#[derive(Clone, Debug)]
pub(super) struct ListedObject {
    /// The name without the prefix that was listed.
    pub(super) name: String,
    pub(super) len: u64,
    pub(super) stored_at: SystemTime,
}

impl Bucket {
    pub(super) async fn open(config: &S3Config) -> Result<Self, S3Error> {
        Ok(Self {
            client: client::client(config).await?,
            name: config.bucket.clone(),
            place: config.place(),
            prefix: config.prefix(),
            timeout: config.timeout,
            has_checksums: config.endpoint.is_none(),
            permits: Semaphore::new(config.max_requests),
            health: Health::default(),
            metrics: Arc::default(),
        })
    }

    pub(super) fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Returns the `Content-MD5` of `bytes`, so that the service refuses bytes that were changed on
    /// the way. MD5 is used because some services verify no signed digest (SeaweedFS 4.48); only
    /// AWS is certain to support the newer checksums.
    pub(super) fn checksum(&self, bytes: &[u8]) -> Option<String> {
        let md5 = || BASE64_STANDARD.encode(Md5::digest(bytes));
        (!self.has_checksums).then(md5)
    }

    /// Sends a request with `attempt`, and again after transient failures.
    // A closure that returns a future, and no asynchronous closure: the compiler can't see that the
    // futures of the latter may move to another thread.
    pub(super) async fn retry<T, F>(
        &self,
        operation: BucketOperation,
        attempt: impl Fn() -> F,
    ) -> Result<T, S3Error>
    where
        F: Future<Output = Result<T, S3Error>>,
    {
        let max_tries = self.health.tries();
        if max_tries == 0 {
            return Err(S3Error::Down);
        }
        let mut tries = 1;
        loop {
            let outcome = {
                // Each try takes a permit of its own: a request in backoff must not block others.
                let permit = self.permits.acquire().await;
                let _permit = permit.map_err(|_| S3Error::Down)?;
                let request = self.metrics.begin(operation);
                let outcome = attempt().await;
                request.end(S3Error::outcome(&outcome));
                outcome
            };
            match outcome {
                Err(error) if error.is_transient() && tries < max_tries => {
                    tracing::debug!(%error, tries, "A request to the bucket failed");
                    let pause = BACKOFF.with_jitter(tries);
                    tokio::time::sleep(pause).await;
                    tries += 1;
                    self.metrics.note_retry(operation);
                }
                Err(error) if error.is_outage() => {
                    self.health.note_outage();
                    return Err(error);
                }
                outcome => {
                    self.health.note_outcome(operation, outcome.as_ref().err());
                    return outcome;
                }
            }
        }
    }

    /// Fills `into` with the bytes of an object from `offset` on. After a cut response, a retry
    /// continues where the response ended.
    pub(super) async fn read(
        &self,
        name: &str,
        offset: u64,
        into: &mut [u8],
    ) -> Result<(), S3Error> {
        let key = &self.key(name);
        // Each attempt fills what the attempts before it left. One at a time holds the lock.
        let into = &Mutex::new((into, 0));
        self.retry(BucketOperation::GetRange, || async move {
            let mut into = into.lock().await;
            let (into, filled) = &mut *into;
            let rest = into.get_mut(*filled..).unwrap_or_default();
            let start = offset + *filled as u64;
            let range = start..start + rest.len() as u64;
            let last = range.end.saturating_sub(1);
            let request = self.client.get_object().bucket(&self.name).key(key);
            let answer = request
                .range(format!("bytes={}-{last}", range.start))
                .send()
                .await?;
            // A service that ignores `Range` would fill the buffer with other bytes.
            check_range(&answer, &range)?;
            self.fill(answer.body, rest, filled).await
        })
        .await
    }

    /// Fills `into` with a body, whose length must be that of `into`. Adds the received bytes to
    /// `filled`.
    async fn fill(
        &self,
        mut body: ByteStream,
        into: &mut [u8],
        filled: &mut usize,
    ) -> Result<(), S3Error> {
        let mut rest = into;
        while !rest.is_empty() {
            let chunk = self.chunk(&mut body).await?.ok_or(S3Error::Cut)?;
            self.metrics.received_bytes.add(chunk.len() as u64);
            let Some((part, next)) = rest.split_at_mut_checked(chunk.len()) else {
                let what = "it has too many bytes";
                return Err(S3Error::BadAnswer { what });
            };
            part.copy_from_slice(&chunk);
            *filled += chunk.len();
            rest = next;
        }
        Ok(())
    }

    async fn chunk(&self, body: &mut ByteStream) -> Result<Option<Bytes>, S3Error> {
        match tokio::time::timeout(self.timeout, body.next()).await {
            Err(_) => Err(S3Error::TimedOut),
            Ok(None) => Ok(None),
            Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
            Ok(Some(Err(_))) => Err(S3Error::Cut),
        }
    }

    /// Reads a whole object of at most `max` bytes. Returns its `ETag` too.
    pub(super) async fn read_whole(
        &self,
        name: &str,
        max: u64,
    ) -> Result<(Vec<u8>, String), S3Error> {
        let key = &self.key(name);
        self.retry(BucketOperation::Get, || async move {
            let request = self.client.get_object().bucket(&self.name).key(key);
            let answer = request.send().await?;
            let bad = |what| S3Error::BadAnswer { what };
            let len = answer
                .content_length
                .and_then(|len| u64::try_from(len).ok());
            let len = len
                .filter(|&len| len <= max)
                .ok_or(bad("its length is wrong"))?;
            let etag = answer.e_tag.ok_or(bad("it has no ETag"))?;
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
            self.fill(answer.body, &mut bytes, &mut 0).await?;
            Ok((bytes, etag))
        })
        .await
    }

    /// Writes an object on a precondition.
    ///
    /// If the precondition fails on a retry, an earlier try whose response was lost may have
    /// written the object. So the object is read, and counts as written if it has these bytes.
    pub(super) async fn write(
        &self,
        name: &str,
        bytes: Bytes,
        condition: WriteCondition<'_>,
    ) -> Result<(), S3Error> {
        let (key, checksum) = (&self.key(name), &self.checksum(&bytes));
        let (tries, sent) = (&AtomicUsize::new(0), &bytes);
        let written = self
            .retry(BucketOperation::Put, || async move {
                tries.fetch_add(1, Ordering::Relaxed);
                self.metrics.sent_bytes.add(sent.len() as u64);
                let (none_match, matches) = condition.headers();
                let request = self.client.put_object().bucket(&self.name).key(key);
                request
                    .set_if_none_match(none_match)
                    .set_if_match(matches)
                    .set_content_md5(checksum.clone())
                    .body(ByteStream::from(sent.clone()))
                    .send()
                    .await
                    .map_err(|error| S3Error::from(error).of_write(condition))?;
                Ok(())
            })
            .await;
        match written {
            // Some services answer 404 to `If-Match` if the object doesn't exist.
            Err(S3Error::NoObject) if matches!(condition, WriteCondition::Is(_)) => {
                Err(S3Error::Precondition)
            }
            Err(S3Error::Precondition) if tries.load(Ordering::Relaxed) > 1 => {
                match self.read_whole(name, bytes.len() as u64).await {
                    Ok((present, _)) if present == bytes => Ok(()),
                    Ok(_) | Err(S3Error::BadAnswer { .. } | S3Error::NoObject) => {
                        Err(S3Error::Precondition)
                    }
                    Err(error) => Err(error),
                }
            }
            written => written,
        }
    }

    /// Returns how long an object is, and when it was stored.
    pub(super) async fn head(&self, name: &str) -> Result<(u64, SystemTime), S3Error> {
        let key = &self.key(name);
        self.retry(BucketOperation::Head, || async move {
            let request = self.client.head_object().bucket(&self.name).key(key);
            let answer = request.send().await?;
            let len = answer
                .content_length
                .and_then(|len| u64::try_from(len).ok());
            let what = "it has no length";
            let len = len.ok_or(S3Error::BadAnswer { what })?;
            Ok((len, time(answer.last_modified)))
        })
        .await
    }

    /// Deletes an object, if it exists. Sends one request without retries, because a collector has
    /// only the write limit for it.
    pub(super) async fn delete(&self, name: &str) -> Result<(), S3Error> {
        let permit = self.permits.acquire().await;
        let _permit = permit.map_err(|_| S3Error::Down)?;
        let counted = self.metrics.begin(BucketOperation::Delete);
        let request = self.client.delete_object().bucket(&self.name);
        let sent = request.key(self.key(name)).send().await;
        let outcome = sent.map(drop).map_err(S3Error::from);
        counted.end(S3Error::outcome(&outcome));
        let refused = outcome.as_ref().err().filter(|error| error.is_lasting());
        self.health.note_refusal(BucketOperation::Delete, refused);
        match outcome {
            Err(S3Error::NoObject) => Ok(()),
            outcome => outcome,
        }
    }

    /// Lists all objects whose names begin with `before`. Their names are returned without it.
    pub(super) async fn list(&self, before: &str) -> Result<Vec<ListedObject>, S3Error> {
        let prefix = &self.key(before);
        let mut found = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let token = &next;
            let page = self
                .retry(BucketOperation::List, || async move {
                    let request = self.client.list_objects_v2().bucket(&self.name);
                    let request = request.prefix(prefix);
                    Ok(request.set_continuation_token(token.clone()).send().await?)
                })
                .await?;
            for object in page.contents.unwrap_or_default() {
                let key = object.key.unwrap_or_default();
                let Some(name) = key.strip_prefix(prefix.as_str()) else {
                    continue;
                };
                found.push(ListedObject {
                    name: name.to_owned(),
                    len: object
                        .size
                        .and_then(|len| u64::try_from(len).ok())
                        .unwrap_or(0),
                    stored_at: time(object.last_modified),
                });
            }
            next = page.next_continuation_token;
            if next.is_none() || page.is_truncated == Some(false) {
                return Ok(found);
            }
        }
    }
}

/// Refuses a response with a range other than `range`.
fn check_range(answer: &GetObjectOutput, range: &Range<u64>) -> Result<(), S3Error> {
    let bad = |what| Err(S3Error::BadAnswer { what });
    let Some((unit, rest)) = answer.content_range().and_then(|of| of.split_once(' ')) else {
        return bad("it has the whole object instead of a range");
    };
    let start = rest.split('-').next().and_then(|start| start.parse().ok());
    if unit != "bytes" || start != Some(range.start) {
        return bad("it has another range");
    }
    let len = answer
        .content_length()
        .and_then(|len| u64::try_from(len).ok());
    match len.map(|len| len.cmp(&(range.end - range.start))) {
        Some(std::cmp::Ordering::Equal) => Ok(()),
        Some(std::cmp::Ordering::Less) => Err(S3Error::NoRange),
        _ => bad("its length is wrong"),
    }
}

fn time(time: Option<aws_sdk_s3::primitives::DateTime>) -> SystemTime {
    let time = time.and_then(|time| SystemTime::try_from(time).ok());
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}
