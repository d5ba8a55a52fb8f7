//! The FUSE session of a mount: mounting, serving requests on threads, unmounting.

mod adapter;
mod gate;
mod reply;
mod resume;
mod session;
#[cfg(test)]
mod tests;

pub(crate) use adapter::Adapter;
pub(crate) use resume::ask_again;
pub(crate) use session::{ServedSession, THREADS, detach, resume, start};
