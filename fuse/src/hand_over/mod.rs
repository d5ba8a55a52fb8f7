//! The hand-over of a mount from the process that serves it to a new one.
//!
//! ```text
//! new                                  old
//!   begin                        ───►  accept: sends repositories and inodes, serves on
//!   prepare: rebuilds them
//!   prepared                     ───►  give: closes the gate
//!   take: rebuilds the rest      ◄───  what changed since, handles and descriptors
//!   ready                        ───►
//!   serves                       ◄───  go
//! ```
//!
//! `docs/design/hand-over.md` says why no request is lost.

mod hand_over;
#[cfg(test)]
mod tests;
mod wire;

pub(crate) use hand_over::{Taken, accept, give, prepare, take};
