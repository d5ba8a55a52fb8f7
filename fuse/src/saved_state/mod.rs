//! The state of a mount, written down for the next process that serves it.
//!
//! ```text
//! rooms above ─► Saver ─► State and blobs ─► message ─► State and blobs ─► Loader ─► rooms above
//! ```
//!
//! `hand_over` sends it to a new process, `recovery` keeps it for the case that this one is killed.

mod error;
mod loader;
mod message;
mod saver;
mod state;
mod text;

pub use error::HandOverError;
pub(crate) use loader::Loader;
pub(crate) use message::{Message, Received, decode, encode};
pub(crate) use saver::Saver;
pub(crate) use state::{
    CloneState, ContentState, FORMAT, FileState, InodeState, NamesState, NodeState,
    OpenDirectoryState, OpenFileState, OpenedState, OutageState, RepositoryState, SessionState,
    State,
};
pub(crate) use text::Text;
