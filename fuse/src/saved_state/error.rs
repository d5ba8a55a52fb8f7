//! [`HandOverError`]: why another process can't serve the mount.

use std::io;

/// Why a mount can't be handed over. The old process serves on.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// The connection between the two processes broke, or the other end was too slow.
    #[error("the connection between the two processes broke")]
    Lost(#[from] io::Error),
    /// The other process closed the connection.
    #[error("the other process ended the hand-over")]
    Ended,
    /// The other process said why it can't go on.
    #[error("the other process can't go on: {message}")]
    Refused {
        /// Its reason.
        message: String,
    },
    /// The two processes run versions of the program whose states differ.
    #[error(
        "the program of the mount writes its state in format {ours}, but the new program reads \
         {theirs}"
    )]
    OtherFormat {
        /// The format of the old process.
        ours: u32,
        /// The format that the new process named.
        theirs: String,
    },
    /// The state can't be written down, or this version can't understand it.
    #[error("the state of the mount can't be handed over")]
    State(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Calls that wait for the network did not end in time.
    #[error("lookups or a switch to a newer snapshot were still waiting for the network")]
    Busy,
}

impl HandOverError {
    pub(crate) fn state(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::State(reason.into())
    }
}
