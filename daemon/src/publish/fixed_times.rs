//! The fixed modification times in an archive, in seconds since the epoch. Files of the work tree
//! have times of their own (`file_times.rs`).
//!
//! git searches packs from the newest to the oldest, so their times say in which order.

use cachewfs_format::PackKind;

/// The earliest time that a file may have: 1980-01-02T00:00:00Z. Zip archives can't hold a time
/// before 1980, and have local time.
pub(super) const EARLIEST: i64 = 315_619_200;
/// Everything in the git directory but packs and the index.
pub(super) const GIT_DIRECTORY: i64 = EARLIEST;

/// Rank of the first increment above recent, trees and history, and how many fit below commits and tip.
const INCREMENTS: i64 = 3;
const COMMITS: i64 = 1_000_000;

/// The time of a pack and its indexes; `age` counts the increments that are older than this one,
/// so that a pack's time never changes while later ones come.
pub(super) fn of_pack(kind: PackKind, age: usize) -> i64 {
    let rank = match kind {
        PackKind::Tip => COMMITS + 1,
        PackKind::Commits => COMMITS,
        PackKind::Increment => INCREMENTS + i64::try_from(age).unwrap_or(0),
        PackKind::Recent => 2,
        PackKind::Trees => 1,
        PackKind::History => 0,
    };
    GIT_DIRECTORY + rank
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_searches_the_tip_first_and_history_last() {
        let order = [
            of_pack(PackKind::Tip, 0),
            of_pack(PackKind::Commits, 0),
            of_pack(PackKind::Increment, 1),
            of_pack(PackKind::Increment, 0),
            of_pack(PackKind::Recent, 0),
            of_pack(PackKind::Trees, 0),
            of_pack(PackKind::History, 0),
        ];

        assert!(order.is_sorted_by(|newer, older| newer > older));
        assert!(order.iter().all(|&time| time >= EARLIEST));
    }
}
