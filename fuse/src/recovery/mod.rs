//! Recovery: serves a mount on whose process was killed.
//!
//! ```text
//! process of the mount           holder (a small process)          next process
//!   Keeper: connection, journal,
//!   state, options          ───►  keeps the last of each
//!   is killed                     notices it
//!                                 starts the next process    ───►  Remains
//! ```
//!
//! `docs/design/hand-over.md` says what survives.

mod keeper;
mod remains;

pub use crate::holder::{Holder, receive, send};
pub(crate) use keeper::Keeper;
pub use remains::Remains;
pub(crate) use remains::recover;
