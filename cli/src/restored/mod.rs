//! Brings a clone that an earlier restore made to the state of a newer snapshot.
//!
//! ```text
//! update.rs      decides where HEAD goes, and refuses to lose commits
//!   ├─► refs.rs       which refs follow the snapshot, and which ones a person changed
//!   ├─► work_tree.rs  moves the files of the work tree, and refuses to lose changes
//!   ├─► shallow.rs    what git knows of a missing history
//!   └─► objects.rs    moves new packs into place
//! record.rs      the snapshot that was restored, in the git directory of the clone
//! ```
//!
//! Objects come first, then files, refs, and the record. A process that is killed leaves a
//! repository in which git works, and the next one goes on.

pub(crate) mod objects;
mod record;
mod refs;
pub(crate) mod shallow;
mod update;
mod work_tree;

pub(crate) use record::{RecordedSnapshot, RestoreRecord};
pub(crate) use update::{Update, UpdateScope};
pub(crate) use work_tree::POINTERS;
