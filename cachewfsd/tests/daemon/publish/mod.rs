//! Publishing: by one daemon, by several that share a store, and to a restored store.

mod backup;
mod leases;
mod replicas;
mod snapshots;
mod storm;
