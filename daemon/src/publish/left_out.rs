//! The files of HEAD's tree that the published work tree lacks.

use std::collections::HashSet;
use std::fmt::Write as _;

/// At most this many files are named in a notice.
const MAX_NAMED: usize = 3;
/// At most this many bytes of a path, from its end, are shown in a notice.
const MAX_SHOWN: usize = 100;

/// The files that no work tree can have. All other files are published as a clone has them.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    paths: HashSet<Box<[u8]>>,
    /// The first files, each as a text with its reason.
    named: Vec<String>,
}

impl LeftOut {
    /// Adds the file at `path`, which is left out for this reason.
    pub(super) fn push(&mut self, path: &[u8], reason: &str) {
        if self.named.len() < MAX_NAMED {
            self.named.push(format!("{} ({reason})", quote(path)));
        }
        self.paths.insert(path.into());
    }

    /// Returns whether the file at `path` is left out.
    pub(super) fn has(&self, path: &[u8]) -> bool {
        self.paths.contains(path)
    }

    /// Returns a sentence that names some of the files, or `None` if there are none.
    pub(super) fn notice(&self) -> Option<String> {
        if self.named.is_empty() {
            return None;
        }
        let mut notice = format!("The work tree lacks {}", self.named.join(", "));
        let others = self.paths.len() - self.named.len();
        if others > 0 {
            // Writing to a string can't fail.
            write!(notice, " and {others} other files").ok();
        }
        Some(notice)
    }
}

/// Returns a path in quotes. Of a long path only the end is shown, which says more than the start.
fn quote(path: &[u8]) -> String {
    let skipped = path.len().saturating_sub(MAX_SHOWN);
    let shown = path.get(skipped..).unwrap_or_default();
    let dots = if skipped > 0 { "..." } else { "" };
    format!("'{dots}{}'", shown.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_names_some_files_and_counts_the_others() {
        let mut left_out = LeftOut::default();
        assert_eq!(left_out.notice(), None);

        left_out.push(b"a\n", "it is a symbolic link to an empty path");
        let one = left_out.notice().unwrap();
        for number in 0..4 {
            left_out.push(
                format!("{}{number}", "d/".repeat(60)).as_bytes(),
                "git can't write it",
            );
        }

        let expected = "The work tree lacks 'a\\n' (it is a symbolic link to an empty path)";
        assert_eq!(one, expected);
        let all = left_out.notice().unwrap();
        assert!(
            all.contains("'.../d/d/") && all.ends_with(" and 2 other files"),
            "{all}"
        );
    }
}
