//! Fetches the steps of a plan, several at the same time.

use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};

use super::plan::{REQUESTS, Step, StepWork};
use crate::fetch::FetchError;
use crate::segment::{ReadError, fetch_whole};
use crate::tasks::Tasks;
use crate::traffic::Purpose;

impl Step {
    /// Fetches the chunks of the step that the cache lacks. Fails if the cache doesn't keep them.
    async fn fetch(&self) -> Result<(), ReadError> {
        match &self.work {
            StepWork::Whole(segments) => {
                fetch_whole(segments, Purpose::Background).await?;
                for segment in segments {
                    segment.check_kept(0..segment.len())?;
                }
            }
            StepWork::Piece(segment, range) => {
                segment.fetch_exactly(range.clone()).await?;
                segment.check_kept(range.clone())?;
            }
        }
        Ok(())
    }
}

/// Fetches `steps`, and returns them in their order, each when its bytes are in the cache.
pub(super) fn download(
    steps: Vec<Step>,
    tasks: &Tasks,
) -> BoxStream<'static, Result<Step, ReadError>> {
    let tasks = tasks.clone();
    stream::iter(steps)
        // A task, so that it goes on while the caller is busy with an earlier step.
        .map(move |step| {
            tasks.spawn_until_end(async move { step.fetch().await.map(|()| step) })
        })
        .buffered(REQUESTS)
        .map(|ended| match ended {
            Ok(Some(fetched)) => fetched,
            Ok(None) | Err(_) => Err(FetchError::Ending.into()),
        })
        .boxed()
}
