//! [`Backend`]: what all segments share.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::{Cache, Overflow};
use crate::fetch::ArchiveSource;
use crate::tasks::Tasks;
use crate::traffic::Traffic;
use crate::waiting::Waiting;

/// The places that chunks come from and go to, and the work that brings them there.
#[derive(Debug)]
pub(crate) struct Backend {
    /// The daemons.
    pub source: Arc<dyn ArchiveSource>,
    /// The chunks on disk.
    pub cache: Cache,
    /// Chunks in memory that could not be written to the cache.
    pub overflow: Overflow,
    /// Counters of the requests to the daemons.
    pub traffic: Arc<Traffic>,
    /// How long a request for chunks is retried before it fails.
    pub read_timeout: Duration,
    pub tasks: Tasks,
    pub readers: Waiting,
}

impl Backend {
    pub(crate) fn new(
        source: Arc<dyn ArchiveSource>,
        cache: Cache,
        traffic: Arc<Traffic>,
        read_timeout: Duration,
    ) -> Self {
        Self {
            source,
            cache,
            overflow: Overflow::default(),
            traffic,
            read_timeout,
            tasks: Tasks::default(),
            readers: Waiting::default(),
        }
    }
}
