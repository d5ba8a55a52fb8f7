//! [`Attempt`]: how a publish ends; and the options that it gets.

use std::sync::Arc;

use cachewfs_format::SnapshotId;

/// The snapshot that is current after a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PublishOutcome {
    pub(crate) snapshot: SnapshotId,
    /// Whether this publish moved the pointer.
    pub(crate) moved: bool,
}

/// The result of a publish that didn't fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Attempt<T> {
    Done(T),
    /// Another daemon holds the lease and publishes the repository. The text names that daemon.
    HeldBy(Arc<str>),
}

/// How the objects of a snapshot are divided into packs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PackLayout {
    /// Keep the packs of the previous snapshot and add an increment, if that is possible and the
    /// increments don't take too much of the archive.
    Incremental,
    /// Make all packs from scratch.
    Full,
}

/// Options of one publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PublishOptions {
    pub(crate) layout: PackLayout,
    /// Whether the publish copies published objects that the mirror lacks from the store.
    ///
    /// If not, it fails with [`PublishError::Behind`](super::PublishError::Behind): the published
    /// snapshot is newer than the mirror, and an update may fetch these objects from upstream.
    pub(crate) takes_over: bool,
}
