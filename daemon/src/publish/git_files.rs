//! The small files of the git directory in an archive.

use cachewfs_format::{ArchiveKind, GitPath, PublishedFile};

use super::PublishError;
use super::check::check_refs;
use super::commit_graph::CHAIN_DIRECTORY;
use super::fixed_times;
use super::members::{Member, MemberWriter};
use super::packed_refs::is_cut;
use super::refs::Refs;
use super::segments::SegmentSink;

/// The values that the small files are made from.
#[derive(Debug)]
pub(super) struct GitFiles<'a> {
    pub(super) refs: &'a Refs,
    /// The URL without credentials.
    pub(super) upstream_url: &'a str,
    pub(super) namespaces: &'a [String],
    /// The links of the commit-graph chain, oldest first.
    pub(super) commit_graphs: &'a [PublishedFile],
    /// The file names of the packs, `pack-….pack`.
    pub(super) packs: &'a [String],
}

/// The content of a `.keep` file. Git only checks whether such a file exists (`git-repack(1)`).
///
/// Git 2.54 and later start maintenance after a fetch. Without this file, git would roll up all
/// packs of an extracted archive into one, because their sizes are no geometric progression. For
/// git's own repository that took 7.5 s (2026-11); for a repository of 13 GB it would take many
/// minutes. With this file, git leaves the pack alone and maintains only later packs.
const KEEP: &[u8] = b"cachewfs published this pack. Delete this file if git is to repack it.\n";

impl GitFiles<'_> {
    /// Writes the small files as one segment of tar members.
    ///
    /// A long `packed-refs` is not among them: it is stored in parts. There are no hooks, locks or
    /// reflogs.
    pub(super) fn store(
        &self,
        sink: &mut SegmentSink,
        kind: ArchiveKind,
        packed_refs: &[u8],
    ) -> Result<PublishedFile, PublishError> {
        // Checked before anything is written: a snapshot with refs that mounts refuse is useless.
        check_refs((&self.refs.head_file(), packed_refs), &self.refs.commit)?;
        let mut members = MemberWriter::begin(sink)?;
        let mut directories = vec![
            "objects",
            "objects/info",
            "objects/pack",
            "refs",
            "refs/heads",
            "refs/tags",
        ];
        let mut files = vec![
            ("HEAD", self.refs.head_file()),
            ("config", self.config(kind).into_bytes()),
        ];
        if !is_cut(packed_refs) {
            files.push(("packed-refs", packed_refs.to_vec()));
        }
        if kind == ArchiveKind::Checkout {
            directories.insert(0, "");
            directories.extend(["refs/remotes", "refs/remotes/origin"]);
            if let Some(branch) = self.refs.default_branch() {
                let target = [b"ref: refs/remotes/origin/", branch, b"\n"].concat();
                files.push(("refs/remotes/origin/HEAD", target));
            }
        }
        let chain_file = format!("{CHAIN_DIRECTORY}/commit-graph-chain");
        if !self.commit_graphs.is_empty() {
            directories.push(CHAIN_DIRECTORY);
            let hash = |link: &PublishedFile| {
                let name = link.name.strip_prefix("graph-").unwrap_or(&link.name);
                format!("{}\n", name.strip_suffix(".graph").unwrap_or(name))
            };
            let chain: String = self.commit_graphs.iter().map(hash).collect();
            files.push((&chain_file, chain.into_bytes()));
        }
        let keeps: Vec<_> = self
            .packs
            .iter()
            .filter_map(|pack| pack.strip_suffix(".pack"))
            .map(|stem| format!("objects/pack/{stem}.keep"))
            .collect();
        files.extend(keeps.iter().map(|path| (path.as_str(), KEEP.to_vec())));
        for directory in directories {
            let member = git_member(kind, directory.as_bytes(), 0o755)?;
            members.empty(member, cachewfs_format::EntryKind::Directory)?;
        }
        for (name, content) in files {
            let member = git_member(kind, name.as_bytes(), 0o644)?;
            members.file(member, content.len() as u64, &content[..])?;
        }
        members.finish(sink)
    }

    /// Returns the file `config`: as `git clone` writes it, with settings that make git trust the
    /// times and sizes in the index.
    fn config(&self, kind: ArchiveKind) -> String {
        let is_bare = kind == ArchiveKind::Mirror;
        let is_sha256 = self.refs.commit.as_bytes().len() == 32;
        let version = u8::from(is_sha256);
        let mut config = format!(
            "[core]\n\trepositoryformatversion = {version}\n\tfilemode = true\n\tbare = {is_bare}\n\
             \tcheckStat = minimal\n\ttrustctime = false\n"
        );
        if is_sha256 {
            config.push_str("[extensions]\n\tobjectformat = sha256\n");
        }
        let url = quoted(self.upstream_url);
        config.extend(["[remote \"origin\"]\n\turl = ", &url, "\n"]);
        if is_bare {
            let namespaces = ["refs/heads/", "refs/tags/"].into_iter();
            for namespace in namespaces.chain(self.namespaces.iter().map(String::as_str)) {
                config.extend(["\tfetch = +", namespace, "*:", namespace, "*\n"]);
            }
            config.push_str("\tmirror = true\n");
            // With bitmaps, `git repack -a` would copy packs that have a `.keep` file.
            config.push_str("[repack]\n\twriteBitmaps = false\n");
            return config;
        }
        config.push_str("\tfetch = +refs/heads/*:refs/remotes/origin/*\n");
        if let Some(Ok(branch)) = self.refs.default_branch().map(std::str::from_utf8) {
            let merge = quoted(&format!("refs/heads/{branch}"));
            let branch = branch.replace('\\', "\\\\").replace('"', "\\\"");
            config.extend([
                "[branch \"",
                &branch,
                "\"]\n\tremote = origin\n\tmerge = ",
                &merge,
                "\n",
            ]);
        }
        config
    }
}

/// Returns a value as `git config` would write it.
fn quoted(value: &str) -> String {
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
    let needs_quotes = value.contains(['#', ';', ' ']);
    if needs_quotes {
        format!("\"{escaped}\"")
    } else {
        escaped
    }
}

/// Returns the tar member of a file or directory at `path` in the git directory. The empty path is
/// the git directory itself.
pub(super) fn git_member(
    kind: ArchiveKind,
    path: &[u8],
    mode: u32,
) -> Result<Member, PublishError> {
    let path = match (kind, path) {
        (ArchiveKind::Mirror | ArchiveKind::Lfs, path) => path.to_owned(),
        (ArchiveKind::Checkout, b"") => b".git".to_vec(),
        (ArchiveKind::Checkout, path) => [b".git/", path].concat(),
    };
    Ok(Member {
        path: GitPath::parse(&path)?,
        mode,
        mtime: fixed_times::GIT_DIRECTORY,
        blob: None,
    })
}
