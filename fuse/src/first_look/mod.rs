//! Fetches the bytes that git reads first in a repository, before git asks for them.
//!
//! To show the commit of HEAD, git reads the commit-graph, then pack indexes, then packs. Each read
//! depends on the one before it. So on a cold mount, git waits for about twenty requests, one after
//! the other. The TOC has the commit's id. With it, most of the offsets can be worked out at once:
//!
//! ```text
//! git:        graph ─► fan-out ─► ids ─► commit ─► index ─► ids ─► offset ─► pack
//! first_look: ├─ commit-graph: fan-out, then ids, then commit and parents
//!             └─ each pack:    fan-out and a guess, then ids, then the object    (in parallel)
//! ```
//!
//! All of this is a guess. If it is wrong, or can't be read, git fetches the right bytes when it
//! reads them.

mod around;
mod commit_graph;
mod first_look;
mod head_commit;
mod pack_index;
mod sorted_ids;

pub(crate) use first_look::fetch;
pub(crate) use head_commit::read_commit;

#[cfg(test)]
mod tests;
