//! The fixed modification times in an archive, in seconds since the epoch.
//!
//! With fixed times, a file that doesn't change has the same tar header in each snapshot, and its
//! segment is shared. Files of the work tree have times of their own (`file_times.rs`). Git
//! searches packs from the newest to the oldest, so the times of packs define the order of the
//! search.

use cachewfs_format::PackKind;

/// The earliest time that a file may have: 1980-01-02T00:00:00Z.
///
/// Zip archives can't hold a time before 1980. They hold local time, hence one day more.
pub(super) const EARLIEST: i64 = 315_619_200;
/// The time of everything in the git directory except packs and the index.
pub(super) const GIT_DIRECTORY: i64 = EARLIEST;

/// The rank of the oldest increment, above recent, trees and history.
const INCREMENTS: i64 = 3;
/// The rank of the commits pack. It leaves room for nearly a million increments below it.
const COMMITS: i64 = 1_000_000;

/// Returns the time of a pack and its indexes.
///
/// For an increment, `age` is the number of increments that are older. It doesn't change when newer
/// increments come, so the pack's time doesn't change either.
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
