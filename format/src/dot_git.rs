//! Recognises all names that some filesystem treats as `.git` or `.gitmodules`.
//!
//! git refuses these names with `core.protectNTFS`, which is on by default, and `core.protectHFS`.
//! Here both rules are always on, because a copy of a work tree may end up on any filesystem.

/// Returns whether some filesystem treats this component of a path as `.git`.
pub(crate) fn is_dot_git(component: &[u8]) -> bool {
    let is_of_ntfs = |part: &[u8]| {
        let padding = [&b".git"[..], b"git~1"]
            .into_iter()
            .find_map(|name| strip_prefix(part, name));
        padding.is_some_and(is_padding)
    };
    is_of_hfs(component, ".git") || parts(component).any(is_of_ntfs)
}

/// Returns whether some filesystem treats this component of a path as `.gitmodules`.
pub(crate) fn is_dot_gitmodules(component: &[u8]) -> bool {
    let is_of_ntfs = |part: &[u8]| {
        strip_prefix(part, b".gitmodules").is_some_and(is_padding) || is_short_gitmodules(part)
    };
    is_of_hfs(component, ".gitmodules") || parts(component).any(is_of_ntfs)
}

/// Splits a component at backslashes, which separate components on Windows.
fn parts(component: &[u8]) -> impl Iterator<Item = &[u8]> {
    component.split(|&byte| byte == b'\\')
}

/// Removes `prefix` from the front of `part`, ignoring ASCII case. Returns `None` if it isn't
/// there.
fn strip_prefix<'a>(part: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = part.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Returns whether NTFS ignores `rest` at the end of a name: spaces, periods, and a colon with the
/// name of a stream after it.
fn is_padding(rest: &[u8]) -> bool {
    let name = rest.split(|&byte| byte == b':').next().unwrap_or_default();
    name.iter().all(|byte| b" .".contains(byte))
}

/// Returns whether `part` is a short name (8.3) that NTFS may give `.gitmodules`: `GITMOD~1` to
/// `GITMOD~9`, or a name such as `GI7EBA~1`, which begins with a hash, if these are taken.
fn is_short_gitmodules(part: &[u8]) -> bool {
    let Some((short, rest)) = part.split_at_checked(8) else {
        return false;
    };
    let mut halves = short.splitn(2, |&byte| byte == b'~');
    let name = halves.next().unwrap_or_default();
    let Some([b'1'..=b'9', digits @ ..]) = halves.next() else {
        return false;
    };
    let is_name = name.eq_ignore_ascii_case(b"gitmod") || strip_prefix(b"gi7eba", name).is_some();
    is_name && digits.iter().all(u8::is_ascii_digit) && is_padding(rest)
}

/// Returns whether HFS+ treats `component` as `name`. HFS+ ignores case and some invisible
/// characters.
fn is_of_hfs(mut component: &[u8], name: &str) -> bool {
    let mut next = || {
        let (character, rest) = next_of_hfs(component)?;
        component = rest;
        Some(character.to_ascii_lowercase())
    };
    // As in git, bytes that aren't UTF-8 end the name.
    name.chars().all(|expected| next() == Some(expected)) && next().is_none()
}

/// Returns the next character that HFS+ doesn't ignore, and the bytes after it. Returns `None` at
/// the end of the bytes, and if the next bytes aren't UTF-8.
fn next_of_hfs(mut bytes: &[u8]) -> Option<(char, &[u8])> {
    loop {
        let (text, rest) = (1..=4)
            .filter_map(|len| bytes.split_at_checked(len))
            .find_map(|(head, rest)| Some((std::str::from_utf8(head).ok()?, rest)))?;
        match text.chars().next()? {
            '\u{fffe}' | '\u{ffff}' => return None,
            '\u{200c}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{206a}'..='\u{206f}'
            | '\u{feff}' => bytes = rest,
            character => return Some((character, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_git_directories_in_every_spelling() {
        for bad in [
            ".git",
            ".GiT",
            ".git.",
            ".git . ",
            ".git::$INDEX_ALLOCATION",
            "git~1",
            "GIT~1 ",
            "a\\.git",
            "a\\git~1\\b",
            ".g\u{200c}it",
            "\u{feff}.git\u{206a}",
        ] {
            assert!(is_dot_git(bad.as_bytes()), "{bad:?}");
        }
        assert!(is_dot_git(b".git\xff"));
        for good in [
            ".gitignore",
            "git",
            ".git2",
            "git~2",
            ".gi\u{200b}t",
            "a.git",
        ] {
            assert!(!is_dot_git(good.as_bytes()), "{good:?}");
        }
    }

    #[test]
    fn knows_the_file_of_submodules_in_every_spelling() {
        for bad in [
            ".gitmodules",
            ".GitModules .",
            "GITMOD~1",
            "gi7eba~1",
            "GI7E~123 .",
            ".git\u{200d}modules",
            "a\\.gitmodules:x",
        ] {
            assert!(is_dot_gitmodules(bad.as_bytes()), "{bad:?}");
        }
        for good in [
            ".gitmodule",
            "gitmod~x",
            "gi7eb~1",
            "gi7eba~1x",
            "gitmodules",
        ] {
            assert!(!is_dot_gitmodules(good.as_bytes()), "{good:?}");
        }
    }
}
