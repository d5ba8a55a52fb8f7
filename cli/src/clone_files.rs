//! The content of `packed-refs` and `config` in a new clone.

use cachewfs_format::{ARE_CHANGED_PATHS_PORTABLE, GitHead, ObjectId};

const HEADS: &[u8] = b"refs/heads/";

/// Converts the `packed-refs` of the mount into the `packed-refs` of a clone.
///
/// Branches become remote-tracking branches of `origin`. The default branch also becomes a local
/// branch. Other refs, such as tags, stay as they are.
pub(crate) fn packed_refs(mirror: &[u8], default_branch: Option<&[u8]>) -> Vec<u8> {
    let mut refs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for line in mirror.split_inclusive(|&byte| byte == b'\n') {
        // A line that starts with `^` is the peeled object of the tag in the line before it. It has
        // to follow that line after sorting, so it becomes a part of it.
        if line.starts_with(b"^") {
            if let Some((_, text)) = refs.last_mut() {
                text.extend_from_slice(line);
            }
            continue;
        }
        let Some(space) = line.iter().position(|&byte| byte == b' ') else {
            continue;
        };
        let (id, name) = line.split_at(space);
        let name = name.get(1..).unwrap_or_default().trim_ascii_end();
        if line.starts_with(b"#") {
            continue;
        }
        let shown = match name.strip_prefix(HEADS) {
            Some(branch) => [b"refs/remotes/origin/", branch].concat(),
            None => name.to_vec(),
        };
        if default_branch.is_some() && name.strip_prefix(HEADS) == default_branch {
            refs.push((name.to_vec(), [id, b" ", name, b"\n"].concat()));
        }
        let text = [id, b" ", &shown, b"\n"].concat();
        refs.push((shown, text));
    }
    // The header promises git that the names are sorted, and renaming has changed their order.
    refs.sort();
    let mut text = b"# pack-refs with: peeled fully-peeled sorted \n".to_vec();
    text.extend(refs.into_iter().flat_map(|(_, line)| line));
    text
}

/// Returns the line of HEAD's branch in the `packed-refs` of a mirror.
pub(crate) fn head_ref(mirror: &[u8], head_branch: Option<&[u8]>) -> Vec<u8> {
    let Some(branch) = head_branch else {
        return Vec::new();
    };
    let end = [b" ", HEADS, branch, b"\n"].concat();
    let mut lines = mirror.split_inclusive(|&byte| byte == b'\n');
    let line = lines.find(|line| line.ends_with(&end));
    line.unwrap_or_default().to_vec()
}

/// Returns the HEAD of a clone of the branch `name` or, if there is none, of the commit of the tag
/// `name`. Returns `None` if the `packed-refs` of the mount has neither.
pub(crate) fn chosen_head(mirror: &[u8], name: &str) -> Option<GitHead> {
    let find = |place: &str| {
        let wanted = [b" ", place.as_bytes(), name.as_bytes()].concat();
        let mut lines = mirror.split(|&byte| byte == b'\n');
        let line = lines.find(|line| line.ends_with(&wanted) && !line.starts_with(b"#"))?;
        let id = line.strip_suffix(&*wanted)?;
        // The object that an annotated tag names is in the next line.
        let peeled = lines.next().and_then(|next| next.strip_prefix(b"^"));
        ObjectId::parse(std::str::from_utf8(peeled.unwrap_or(id)).ok()?).ok()
    };
    match find("refs/heads/") {
        Some(_) => Some(GitHead::Branch(name.as_bytes().to_owned())),
        None => find("refs/tags/").map(GitHead::Detached),
    }
}

/// Returns the lines to append to the `config` that `git init` wrote.
pub(crate) fn config(upstream_url: &str, default_branch: Option<&[u8]>, settings: &str) -> Vec<u8> {
    let mut config = [
        b"[remote \"origin\"]\n\turl = \"",
        &*quoted(upstream_url.as_bytes()),
        b"\"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n",
    ]
    .concat();
    if let Some(branch) = default_branch {
        let branch = &*quoted(branch);
        config.extend(
            [
                b"[branch \"",
                branch,
                b"\"]\n\tremote = origin\n\tmerge = \"refs/heads/",
                branch,
                b"\"\n",
            ]
            .concat(),
        );
    }
    config.extend_from_slice(settings.as_bytes());
    if !ARE_CHANGED_PATHS_PORTABLE {
        config.extend_from_slice(b"[commitGraph]\n\treadChangedPaths = false\n");
    }
    config
}

/// Returns the lines to append to the `config` that `git init --bare` wrote for a mirror.
pub(crate) fn mirror_config(upstream_url: &str) -> Vec<u8> {
    // With bitmaps, `git repack -a` would copy packs that have a `.keep` file.
    [
        b"[remote \"origin\"]\n\turl = \"",
        &*quoted(upstream_url.as_bytes()),
        b"\"\n\tfetch = +refs/heads/*:refs/heads/*\n\tfetch = +refs/tags/*:refs/tags/*\n\
          \tmirror = true\n[repack]\n\twriteBitmaps = false\n",
    ]
    .concat()
}

/// Settings that keep a clone fast although it borrows its objects from the mount.
///
/// Measured in 2026-11 with git 2.39 and 2.55, in a clone of git's repository with 400 local
/// commits: with these settings, automatic maintenance read nothing from the mount.
///
/// The task loose-objects is off for another reason. It deletes local objects that the mount has
/// too, and upstream may delete those objects later.
pub(crate) const BORROWING_SETTINGS: &str = "\
# This clone borrows its objects from a cachewfs mount: .git/objects/info/alternates has the path.
# Without the mount, git reports missing objects (`bad object HEAD`), and `git fetch` fetches the
# whole history. Nothing is lost: mount it again. `cachewfs status` in this clone names the mount.

# Automatic maintenance only packs small packs together. Its other tasks would read many objects
# from the cachewfs mount. You can still run `git gc` yourself.
[gc]
\tauto = 0
[maintenance]
\tauto = true
[maintenance \"gc\"]
\tenabled = false
[maintenance \"geometric-repack\"]
\tenabled = false
[maintenance \"commit-graph\"]
\tenabled = false
[maintenance \"reflog-expire\"]
\tenabled = false
[maintenance \"loose-objects\"]
\tenabled = false
[maintenance \"incremental-repack\"]
\tenabled = true
# Fetched objects stay in a pack: to unpack them, git would look up each one in the mount.
[fetch]
\tunpackLimit = 1
# A commit-graph of the clone would refer to files of the mount, which the next snapshot replaces.
\twriteCommitGraph = false
# Makes `git status` in a large work tree faster.
[core]
\tuntrackedCache = true
";

/// Returns a configuration without [`BORROWING_SETTINGS`], or `None` if it has none of them. The
/// untracked cache stays: it needs no mount.
///
/// A setting stays if somebody has changed its value.
pub(crate) fn without_borrowing_settings(config: &[u8]) -> Option<Vec<u8>> {
    let is_header = |line: &[u8]| line.starts_with(b"[");
    // Sections as git writes them: a header, and a line for each setting or comment. Lines
    // before the first header are a section without one.
    let sections = |text: &[u8]| {
        let mut sections: Vec<(Vec<u8>, Vec<Vec<u8>>)> = vec![(Vec::new(), Vec::new())];
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            if is_header(line) {
                sections.push((line.to_vec(), Vec::new()));
            } else if let Some((_, lines)) = sections.last_mut() {
                lines.push(line.to_vec());
            }
        }
        sections
    };
    let ours = sections(BORROWING_SETTINGS.as_bytes());
    let comment_lines = BORROWING_SETTINGS
        .lines()
        .filter(|line| line.starts_with('#'));
    let comments: Vec<&[u8]> = comment_lines.map(str::as_bytes).collect();
    let is_ours = |header: &[u8], line: &[u8]| {
        let is_comment = comments.contains(&line.trim_ascii_end());
        let mut same = ours
            .iter()
            .filter(|(known, _)| known == header && header != b"[core]\n");
        is_comment || same.any(|(_, lines)| lines.iter().any(|known| known == line))
    };
    let mut kept: Vec<u8> = Vec::new();
    for (header, lines) in sections(config) {
        let mut rest: Vec<_> = lines
            .iter()
            .filter(|line| !is_ours(&header, line))
            .collect();
        let is_changed = rest.len() < lines.len();
        while is_changed && rest.pop_if(|line| line.trim_ascii().is_empty()).is_some() {}
        if !is_changed || !rest.is_empty() {
            kept.extend_from_slice(&header);
            kept.extend(rest.into_iter().flatten());
        }
    }
    (kept != config).then_some(kept)
}

/// Escapes a value that stands between quotes in a git configuration file. Otherwise a value could
/// end its quotes and add settings, which may run programs.
fn quoted(value: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::new();
    for &byte in value {
        match byte {
            b'\\' | b'"' => quoted.extend_from_slice(&[b'\\', byte]),
            b'\n' => quoted.extend_from_slice(b"\\n"),
            byte => quoted.push(byte),
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_become_remote_tracking_branches() {
        let mirror = b"# pack-refs with: peeled fully-peeled sorted \n\
            11 refs/heads/dev\n22 refs/heads/main\n33 refs/tags/v1\n^44\n";

        let text = String::from_utf8(packed_refs(mirror, Some(b"main"))).unwrap();

        assert_eq!(
            text,
            "# pack-refs with: peeled fully-peeled sorted \n22 refs/heads/main\n\
             11 refs/remotes/origin/dev\n22 refs/remotes/origin/main\n33 refs/tags/v1\n^44\n"
        );
    }

    #[test]
    fn a_branch_is_chosen_before_a_tag_and_a_tag_stands_for_its_commit() {
        let id = |digit: &str| digit.repeat(40);
        let [one, two, three, four] = ["1", "2", "3", "4"].map(id);
        let mirror = format!(
            "{one} refs/heads/dev\n{two} refs/tags/dev\n{two} refs/tags/light\n\
             {three} refs/tags/v1\n^{four}\n"
        );
        let chosen = |name| chosen_head(mirror.as_bytes(), name);
        let detached = |id: &str| Some(GitHead::Detached(ObjectId::parse(id).unwrap()));

        assert_eq!(chosen("dev"), Some(GitHead::Branch(b"dev".to_vec())));
        assert_eq!(chosen("light"), detached(&two));
        assert_eq!(chosen("v1"), detached(&four));
        for absent in ["ev", "v", "heads/dev", ""] {
            assert_eq!(chosen(absent), None, "{absent}");
        }
    }

    #[test]
    fn a_detached_head_gets_no_branch() {
        let text = packed_refs(b"22 refs/heads/main\n", None);

        assert!(!String::from_utf8(text).unwrap().contains(" refs/heads/"));
        let config = String::from_utf8(config("https://h/r", None, BORROWING_SETTINGS)).unwrap();
        assert!(!config.contains("[branch"));
    }

    #[test]
    fn borrowing_settings_go_and_those_of_people_stay() {
        let own = "[core]\n\tbare = false\n[remote \"origin\"]\n\turl = \"https://h/r\"\n";
        let cache = "[core]\n\tuntrackedCache = true\n";
        let without = |config: &str| {
            let kept = without_borrowing_settings(config.as_bytes());
            kept.map(|kept| String::from_utf8(kept).unwrap())
        };

        let all = without(&format!("{own}{BORROWING_SETTINGS}")).unwrap();
        assert_eq!(all, format!("{own}{cache}"));
        assert_eq!(without(&all), None);
        // Settings that a person changed or added.
        let changed = BORROWING_SETTINGS
            .replace("unpackLimit = 1", "unpackLimit = 9")
            .replace("\tauto = 0\n", "\tauto = 0\n\tpruneExpire = now\n");
        let kept = without(&format!("{own}{changed}")).unwrap();
        let theirs = "[gc]\n\tpruneExpire = now\n[fetch]\n\tunpackLimit = 9\n";
        assert_eq!(kept, format!("{own}{theirs}{cache}"));
    }

    #[test]
    fn values_are_escaped_in_their_quotes() {
        let config = String::from_utf8(config("https://h/\"\n[x]", None, "")).unwrap();
        assert!(config.contains(r#"url = "https://h/\"\n[x]""#));
    }
}
