//! Helpers of these tests: a daemon in this process or as its own, upstreams, and archives.

pub(crate) mod archive;
pub(crate) mod bucket;
pub(crate) mod captured_log;
pub(crate) mod certificates;
pub(crate) mod gate;
pub(crate) mod http_upstream;
pub(crate) mod lfs;
pub(crate) mod lfs_upstream;
pub(crate) mod liar;
pub(crate) mod pkt;
pub(crate) mod process;
pub(crate) mod systemd_daemon;
pub(crate) mod test_daemon;
pub(crate) mod wait;
