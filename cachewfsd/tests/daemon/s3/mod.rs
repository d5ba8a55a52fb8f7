//! The store in a bucket, on an S3 server that the tests start.

mod bucket;
mod cost;
mod disk;
mod many;
mod outage;
mod refused;
mod repair;
mod tls;
