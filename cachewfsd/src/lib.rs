//! The daemon of a cluster: the library `cachewfs-daemon` with all its parts.
//!
//! The program `cachewfsd` runs [`daemon`]. Its tests start it in their own process, too.

mod policy;
mod traces;

use std::sync::Arc;

use cachewfs_daemon::{Daemon, Parts};
use cachewfs_s3::S3;
use traces::Links;
pub use traces::{Traces, TracesError};

/// Returns the daemon with all parts.
pub fn daemon() -> Daemon {
    Daemon::with_parts(Parts {
        bucket: Some(Arc::new(S3)),
        read_policy: Some(policy::read_policy),
        trace_links: Some(Arc::new(Links)),
    })
}
