//! `cachewfsd` as a process.

mod private;
mod service;
mod traces;
