//! Tests of the daemon as its clients see it: with real git, HTTP on loopback, stock tar and zstd.

#![expect(
    clippy::unwrap_used,
    reason = "a failure in the helpers of a test fails the test"
)]

mod archive;
mod auth;
mod backup;
mod bad_upstream;
mod bombs;
mod bundles;
mod connections;
mod direct;
mod ensure_refs;
mod gate;
mod git_limits;
mod git_pass_on;
mod git_serve;
mod git_share;
mod harness;
mod hostile;
mod http;
mod http_upstream;
mod leases;
mod lfs;
mod lfs_failures;
mod lfs_upstream;
mod liar;
mod metrics;
mod mirror_damage;
mod mirror_failures;
mod mirror_maintain;
mod mirror_removal;
mod mirror_restore;
mod mirror_schedule;
mod miss;
mod odd_repositories;
mod pins;
mod pkt;
mod private;
mod process;
mod program;
mod publish;
mod redirects;
mod replicas;
mod s3;
mod s3_cost;
mod s3_disk;
mod s3_many;
mod s3_outage;
mod s3_refused;
mod s3_repair;
mod s3_tls;
mod stale;
mod status_page;
mod storm;
mod tls;
mod todays_client;
mod traces;
mod upstream_auth;
