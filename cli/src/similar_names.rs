//! Names the branches and tags that a person may have meant by a name that doesn't exist.

/// At most this many names are listed.
const MAX_NAMES: usize = 5;
/// At most this many branches and tags are compared. A message needs no more.
const MAX_COMPARED: usize = 10_000;
/// Names that differ by at most this many characters are similar.
const MAX_DISTANCE: usize = 2;

/// Returns the rest of a sentence that says that a repository has no branch and no tag `name`. It
/// lists similar names or, without any, some branches. `refs` is a `packed-refs`.
pub(crate) fn names_instead(refs: &[u8], name: &str) -> String {
    let names_below = |prefix: &'static str| {
        let lines = refs.split(|&byte| byte == b'\n').take(MAX_COMPARED);
        let names = lines.filter_map(move |line| {
            let (_, name) = std::str::from_utf8(line).ok()?.split_once(' ')?;
            name.strip_prefix(prefix)
        });
        names.collect::<Vec<_>>()
    };
    let branches = names_below("refs/heads/");
    let mut similar: Vec<_> = [branches.clone(), names_below("refs/tags/")]
        .concat()
        .into_iter()
        .filter_map(|known| Some((distance(name, known)?, known)))
        .collect();
    similar.sort_unstable();
    similar.dedup();
    let similar: Vec<_> = similar.into_iter().map(|(_, known)| known).collect();
    match (similar.is_empty(), branches.is_empty()) {
        (false, _) => format!("; similar names: {}", list(&similar)),
        (true, false) => format!("; its branches: {}", list(&branches)),
        (true, true) => String::new(),
    }
}

/// Returns how far two names are from each other, or `None` if they aren't similar.
fn distance(name: &str, known: &str) -> Option<usize> {
    let [name, known] = [name, known].map(str::to_lowercase);
    let distance = edit_distance(&name, &known);
    let is_part = name.len() > 1 && (known.contains(&name) || name.contains(&known));
    // More than half of a short name is no typing mistake.
    let is_near = distance <= MAX_DISTANCE && distance * 2 <= name.chars().count();
    (is_part || is_near).then_some(distance)
}

/// Returns the number of characters to insert, remove or replace to make `one` of `other`.
fn edit_distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, character) in one.chars().enumerate() {
        let mut diagonal = line;
        let mut left = line + 1;
        for (cell, &known) in row.iter_mut().skip(1).zip(&other) {
            let replaced = diagonal + usize::from(character != known);
            diagonal = *cell;
            left = replaced.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

fn list(names: &[&str]) -> String {
    let mut text = names
        .iter()
        .take(MAX_NAMES)
        .map(|name| format!("{name:?}"))
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > MAX_NAMES {
        text.push_str(", …");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_are_listed_and_else_some_branches() {
        let refs = b"# pack-refs with: peeled\n1 refs/heads/dev/fast-io\n1 refs/heads/main\n\
            2 refs/tags/v1.20\n^3\n2 refs/tags/v1.21\n";
        let instead = |name: &str| names_instead(refs, name);

        assert_eq!(instead("mian"), "; similar names: \"main\"");
        assert_eq!(instead("Fast-IO"), "; similar names: \"dev/fast-io\"");
        assert_eq!(instead("origin/main"), "; similar names: \"main\"");
        assert_eq!(instead("v1.22"), "; similar names: \"v1.20\", \"v1.21\"");
        assert_eq!(instead("zzz"), "; its branches: \"dev/fast-io\", \"main\"");
        assert_eq!(names_instead(b"", "main"), "");
    }

    #[test]
    fn distances_count_changed_characters() {
        for (one, other, expected) in [
            ("", "", 0),
            ("abc", "abc", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("main", "mian", 2),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(edit_distance(one, other), expected, "{one} {other}");
        }
    }
}
