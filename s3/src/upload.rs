//! Stores a file: in one request, or in parts that are sent at the same time.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use cachewfs_store::BucketOperation;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::sync::Semaphore;

use super::bucket::WriteCondition;
use super::{Bucket, S3Error};

/// The length of a part, unless there would be too many. A shorter file is sent in one request.
const PART_LEN: u64 = 8 << 20;
/// At most this many parts of an upload. S3 allows 10,000.
const MAX_PARTS: u64 = 9_000;
/// At most this many parts of all uploads are sent at the same time, because each is in memory.
const MAX_PARTS_AT_ONCE: usize = 6;

/// Limits the memory of all uploads together.
#[derive(Debug)]
pub(super) struct UploadPermits(Semaphore);

impl Default for UploadPermits {
    fn default() -> Self {
        Self(Semaphore::new(MAX_PARTS_AT_ONCE))
    }
}

impl Bucket {
    /// Stores a file on a precondition. Returns [`S3Error::Precondition`] if it fails.
    pub(super) async fn upload(
        &self,
        name: &str,
        (path, len): (&Path, u64),
        (condition, permits): (WriteCondition<'_>, &UploadPermits),
    ) -> Result<(), S3Error> {
        let open = || File::open(path).map(Arc::new);
        let file = open().map_err(failed(path))?;
        if len <= PART_LEN {
            // Before the bytes are read into memory, which is what the permits limit.
            let _permit = permits.0.acquire().await.map_err(|_| S3Error::Down)?;
            let bytes = read(&file, (path, 0), len).await?;
            return self.write(name, bytes, condition).await;
        }
        // S3 checks the precondition only at the end, so look first and don't send a long file in
        // vain.
        if matches!(condition, WriteCondition::Absent) && self.head(name).await.is_ok() {
            return Err(S3Error::Precondition);
        }
        let id = self.begin(name).await?;
        let sent = self
            .send_parts(name, &id, (&file, path, len), permits)
            .await;
        let stored = match sent {
            Ok(sent) => self.complete(name, &id, (sent, condition)).await,
            Err(error) => Err(error),
        };
        if stored.is_err() {
            self.abort(name, &id).await;
        }
        stored
    }

    async fn begin(&self, name: &str) -> Result<String, S3Error> {
        let key = &self.key(name);
        self.retry(BucketOperation::Begin, || async move {
            let request = self.client.create_multipart_upload();
            let answer = request.bucket(&self.name).key(key).send().await?;
            let what = "it has no upload id";
            answer.upload_id.ok_or(S3Error::BadAnswer { what })
        })
        .await
    }

    async fn send_parts(
        &self,
        name: &str,
        id: &str,
        (file, path, len): (&Arc<File>, &Path, u64),
        permits: &UploadPermits,
    ) -> Result<Vec<CompletedPart>, S3Error> {
        let key = &self.key(name);
        let part_len = PART_LEN.max(len.div_ceil(MAX_PARTS));
        let count = i32::try_from(len.div_ceil(part_len)).unwrap_or(i32::MAX);
        let send = |number: i32| async move {
            let start = u64::try_from(number - 1).unwrap_or(0) * part_len;
            let _permit = permits.0.acquire().await.map_err(|_| S3Error::Down)?;
            let bytes = read(file, (path, start), part_len.min(len - start)).await?;
            let (bytes, checksum) = (&bytes, &self.checksum(&bytes));
            let answer = self.retry(BucketOperation::Part, || async move {
                self.metrics.sent_bytes.add(bytes.len() as u64);
                let request = self.client.upload_part().bucket(&self.name).key(key);
                let request = request.upload_id(id).part_number(number);
                let request = request.set_content_md5(checksum.clone());
                Ok(request.body(ByteStream::from(bytes.clone())).send().await?)
            });
            let part = CompletedPart::builder().part_number(number);
            Ok::<_, S3Error>(part.set_e_tag(answer.await?.e_tag).build())
        };
        let sent = stream::iter(1..=count).map(send);
        sent.buffered(MAX_PARTS_AT_ONCE).try_collect().await
    }

    async fn complete(
        &self,
        name: &str,
        id: &str,
        (parts, condition): (Vec<CompletedPart>, WriteCondition<'_>),
    ) -> Result<(), S3Error> {
        let key = &self.key(name);
        let upload = CompletedMultipartUpload::builder();
        let upload = &upload.set_parts(Some(parts)).build();
        let tries = &AtomicUsize::new(0);
        let completed = self
            .retry(BucketOperation::Complete, || async move {
                tries.fetch_add(1, Ordering::Relaxed);
                let (none_match, matches) = condition.headers();
                let request = self.client.complete_multipart_upload();
                let request = request.bucket(&self.name).key(key).upload_id(id);
                request
                    .set_if_none_match(none_match)
                    .set_if_match(matches)
                    .multipart_upload(upload.clone())
                    .send()
                    .await
                    .map_err(|error| S3Error::from(error).of_write(condition))?;
                Ok(())
            })
            .await;
        match completed {
            // An earlier try was carried out: the upload is gone, but the object it made exists.
            Err(S3Error::NoObject) if tries.load(Ordering::Relaxed) > 1 => {
                self.head(name).await.map(drop)
            }
            completed => completed,
        }
    }

    /// Aborts an upload. If that fails, its parts cost space until the bucket's own rules remove
    /// them.
    async fn abort(&self, name: &str, id: &str) {
        let request = self.client.abort_multipart_upload().bucket(&self.name);
        let request = request.key(self.key(name)).upload_id(id);
        let counted = self.metrics.begin(BucketOperation::Abort);
        let aborted = request.send().await.map_err(S3Error::from);
        counted.end(S3Error::outcome(&aborted));
        if let Err(error) = aborted {
            tracing::debug!(%error, name, "Can't abort an upload");
        }
    }
}

async fn read(file: &Arc<File>, (path, start): (&Path, u64), len: u64) -> Result<Bytes, S3Error> {
    let (file, path) = (Arc::clone(file), path.to_owned());
    let read = move || {
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        file.read_exact_at(&mut bytes, start)
            .map_err(failed(&path))?;
        Ok(Bytes::from(bytes))
    };
    let joined = tokio::task::spawn_blocking(read).await;
    joined.map_err(|_| S3Error::Cut)?
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> S3Error {
    let path: PathBuf = path.to_owned();
    move |source| S3Error::File { path, source }
}
