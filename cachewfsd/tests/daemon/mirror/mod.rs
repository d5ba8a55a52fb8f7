//! Mirrors: their upstreams, failures, damage, maintenance and removal.

mod bad_upstream;
mod damage;
mod failures;
mod maintain;
mod odd_repositories;
mod redirects;
mod removal;
mod restore;
mod schedule;
mod upstream_auth;
