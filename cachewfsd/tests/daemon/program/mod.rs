//! `cachewfsd` as a process.

mod private;
pub(crate) mod service;
mod traces;
