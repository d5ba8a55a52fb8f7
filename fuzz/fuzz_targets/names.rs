//! Fuzzes names and ids: each has one spelling, and is safe as a path, a URL and an argument.
#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use cachewfs_format::{ArchiveKind, Digest, GitPath, ObjectId, RepoName, SnapshotId, api};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    check_path(bytes);
    drop(ObjectId::from_bytes(bytes));
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    check_spelling::<Digest>(text);
    check_spelling::<ObjectId>(text);
    check_spelling::<SnapshotId>(text);
    if let Ok(repo) = RepoName::parse(text) {
        check_repo(&repo, text);
    }
});

/// Checks that an accepted id is printed as it was parsed.
fn check_spelling<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    if let Ok(id) = text.parse::<T>() {
        assert_eq!(id.to_string(), text);
    }
}

fn check_path(bytes: &[u8]) {
    let Ok(path) = GitPath::parse(bytes) else {
        return;
    };
    assert_eq!(path.as_bytes(), bytes);
    let is_safe = |part: &[u8]| !matches!(part, b"" | b"." | b"..") && !part.contains(&0);
    assert!(bytes.split(|&byte| byte == b'/').all(is_safe));
}

fn check_repo(repo: &RepoName, text: &str) {
    let name = repo.as_str();
    assert_eq!(RepoName::parse(name).as_ref(), Ok(repo));
    assert_eq!(RepoName::parse(&format!("{name}.git")).as_ref(), Ok(repo));
    assert!(text == name || text.strip_suffix(".git") == Some(name));
    assert_eq!(format!("{}/{}", repo.host(), repo.path()), name);
    assert!(RepoName::check_host(repo.host()).is_ok());
    for part in name.split('/') {
        assert!(!part.is_empty() && !part.starts_with('-') && part.len() <= 255);
        assert!(!matches!(part, "." | ".."));
    }
    for part in repo.path().split('/') {
        assert!(!part.to_ascii_lowercase().ends_with(".git"));
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/:._-+~".contains(&byte);
    assert!(name.bytes().all(is_plain));
    for &kind in ArchiveKind::ALL {
        let path = api::stable_path(repo, kind);
        let stem = path
            .strip_prefix(&format!("/git/{name}/"))
            .and_then(|file| file.strip_suffix(".tar.zst"))
            .expect("the name of a repository needs no escaping in a URL path");
        assert_eq!(api::kind_of_stem(stem), Some(kind));
    }
}
