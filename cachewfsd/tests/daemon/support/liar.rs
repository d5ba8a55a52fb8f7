//! Lies of an upstream: its responses in protocol version 2 are changed on their way to the daemon.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::test_daemon::{git, git_with_input};

/// The id of a commit that does not exist.
const GHOST: &str = "1234567890123456789012345678901234567890";

/// A false response of upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Upstream lists a branch whose commit doesn't exist.
    Ghost,
    /// Packs have only the requested commits, without their trees and parents.
    LacksObjects,
    /// HEAD names a branch that upstream doesn't list.
    HeadAtNothing,
    /// HEAD names a path outside `refs/`.
    HeadEscapes,
    /// HEAD looks like an option of git.
    HeadIsOption,
    /// HEAD names itself.
    HeadLoops,
    /// Upstream no longer lists the branch that HEAD names.
    HidesBranch,
    /// A branch is at another commit in each listing. This is no lie: a busy upstream does so, too.
    NeverStandsStill,
    /// The branch of HEAD is missing in the listing for a fetch.
    HidesFromFetches,
    /// A branch is at an older commit in the listing for a fetch. git has nothing to fetch, and
    /// succeeds.
    IsOldForFetches,
    /// Upstream lists invalid and reserved ref names, and symbolic refs that form a loop.
    BadNames,
}

impl Lie {
    pub(crate) const OF_REFS: &[Self] = &[
        Self::Ghost,
        Self::LacksObjects,
        Self::HidesBranch,
        Self::BadNames,
    ];

    pub(crate) const OF_FETCHES: &[Self] = &[
        Self::HidesFromFetches,
        Self::IsOldForFetches,
        Self::NeverStandsStill,
    ];

    pub(crate) const OF_HEAD: &[Self] = &[
        Self::HeadAtNothing,
        Self::HeadEscapes,
        Self::HeadIsOption,
        Self::HeadLoops,
    ];

    /// Returns the false response to `request` in place of `answer`.
    pub(crate) fn falsify(self, repository: &Path, request: &[u8], answer: &[u8]) -> Vec<u8> {
        let request = String::from_utf8_lossy(request);
        if request.contains("command=ls-refs") {
            let lines = lines(answer);
            // Only git sends its agent. The daemon, which also lists refs itself, sends none.
            let is_fetch = request.contains("ref-prefix refs/heads/") && request.contains("agent=");
            if is_fetch {
                return listing(&self.refs_for_fetch(repository, lines));
            }
            return listing(&self.refs(repository, lines));
        }
        if self == Self::LacksObjects && request.contains("command=fetch") {
            return pack_of_commits(repository, &request);
        }
        answer.to_vec()
    }

    /// Returns the listing for a fetch.
    fn refs_for_fetch(self, repository: &Path, lines: Vec<String>) -> Vec<String> {
        match self {
            Self::HidesFromFetches => without_main(lines),
            Self::IsOldForFetches => {
                let old = format!("{} refs/heads/main", commits(repository)[1]);
                [without_main(lines), vec![old]].concat()
            }
            _ => self.refs(repository, lines),
        }
    }

    fn refs(self, repository: &Path, mut lines: Vec<String>) -> Vec<String> {
        let with_head = |lines: Vec<String>, target: &str| {
            let head = |line: String| match line.split_once(" HEAD") {
                Some((oid, _)) => format!("{oid} HEAD symref-target:{target}"),
                None => line,
            };
            lines.into_iter().map(head).collect()
        };
        match self {
            Self::Ghost => lines.push(format!("{GHOST} refs/heads/zzz")),
            Self::HeadAtNothing => return with_head(lines, "refs/heads/nothing"),
            Self::HeadEscapes => return with_head(lines, "refs/heads/../../../../escaped"),
            Self::HeadIsOption => return with_head(lines, "--delete"),
            Self::HeadLoops => return with_head(lines, "HEAD"),
            Self::HidesBranch => return without_main(lines),
            Self::NeverStandsStill => {
                static TIMES: AtomicUsize = AtomicUsize::new(0);
                let commits = commits(repository);
                let time = TIMES.fetch_add(1, Ordering::Relaxed);
                lines.push(format!("{} refs/heads/busy", commits[time % commits.len()]));
            }
            Self::LacksObjects | Self::HidesFromFetches | Self::IsOldForFetches => {}
            Self::BadNames => {
                let oid = lines
                    .first()
                    .map_or(GHOST, |line| line.get(..40).unwrap())
                    .to_owned();
                for name in [
                    "refs/heads/../../escaped",
                    "refs/heads/a..b",
                    "refs/heads/x.lock",
                    "refs/heads/.hidden",
                    "refs/heads/--upload-pack=x",
                    "refs/heads/a\\b",
                    "refs/cachewfs/retained/x",
                    "../escaped",
                    "/etc/escaped",
                    "refs/heads/one symref-target:refs/heads/two",
                    "refs/heads/two symref-target:refs/heads/one",
                ] {
                    lines.push(format!("{oid} {name}"));
                }
            }
        }
        lines
    }
}

fn without_main(mut lines: Vec<String>) -> Vec<String> {
    lines.retain(|line| !line.ends_with(" refs/heads/main"));
    lines
}

/// Returns the newest three commits of the branch `main`, the newest first.
fn commits(repository: &Path) -> Vec<String> {
    let list = [
        "-c",
        "safe.directory=*",
        "rev-list",
        "-n",
        "3",
        "refs/heads/main",
    ];
    git(repository, list).lines().map(str::to_owned).collect()
}

/// Returns the text of each packet, without line ends.
fn lines(mut packets: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some((len, rest)) = packets.split_at_checked(4) {
        let len = usize::from_str_radix(std::str::from_utf8(len).unwrap(), 16).unwrap();
        if len < 4 {
            break;
        }
        let (text, rest) = rest.split_at(len - 4);
        lines.push(String::from_utf8_lossy(text).trim_end().to_owned());
        packets = rest;
    }
    lines
}

fn listing(lines: &[String]) -> Vec<u8> {
    let packets: Vec<_> = lines.iter().map(|line| packet(line.as_bytes())).collect();
    [packets.concat(), b"0000".to_vec()].concat()
}

fn packet(text: &[u8]) -> Vec<u8> {
    [format!("{:04x}", text.len() + 5).as_bytes(), text, b"\n"].concat()
}

/// Returns the response to a fetch: a pack of the wanted commits, without their trees.
fn pack_of_commits(repository: &Path, request: &str) -> Vec<u8> {
    let wants: Vec<_> = request
        .split("want ")
        .skip(1)
        .map(|rest| rest.get(..40).unwrap())
        .collect();
    let list = wants.join("\n") + "\n";
    let pack_objects = ["-c", "safe.directory=*", "pack-objects", "-q", "--stdout"];
    let pack = git_with_input(repository, &pack_objects, list.as_bytes());
    let mut answer = Vec::new();
    if !request.contains("0009done") {
        answer.extend(packet(b"acknowledgments"));
        answer.extend(packet(b"ready"));
        answer.extend(b"0001");
    }
    answer.extend(packet(b"packfile"));
    for part in pack.chunks(60_000) {
        answer.extend(format!("{:04x}\u{1}", part.len() + 5).as_bytes());
        answer.extend(part);
    }
    answer.extend(b"0000");
    answer
}
