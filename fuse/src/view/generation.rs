//! A generation: one snapshot of a repository, loaded as far as the mount needs it.
//!
//! Loading takes few round trips: one request for the end of the archive, with the TOC, and one
//! for the segment with HEAD, refs and config. The index is loaded when a reader needs it, packs
//! and files are fetched chunk by chunk.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use cachewfs_format::{
    ArchiveKind, Content, EntryKind, Error as FormatError, GitHead, ObjectId, RepoName, Role,
    SegmentId, SnapshotId, Toc, TocLocation, limits,
};
use futures_util::future::OptionFuture;
use futures_util::join;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::index_search::{Hit, IndexSearch};
use super::refs::mirror_packed_refs;
use super::{FileContent, StaticTree, WorkTree, WorkTreeNode, config};
use crate::fetch::{ArchiveSource, FetchError, Tail, TailAnswer, current_tail};
use crate::first_look;
use crate::parse::parse;
use crate::segment::{Backend, ReadError, Segment, SegmentLocation, Segments, fetch_whole};
use crate::traffic::Purpose;

/// The length of the first request for the end of an archive, in bytes. It covers the seek table
/// and the TOC of most repositories.
pub(crate) const TAIL_LEN: u64 = 64 << 10;
/// At most this many requests are made for the end of an archive. The first answer gives the length
/// of the seek table, the second gives that of the TOC, and the third has the TOC.
const MAX_TAIL_REQUESTS: usize = 3;
/// At most this many paths are searched for in a long index before the whole index is loaded.
const MAX_SEARCHED: usize = 16;
/// The modification time of the files of the git directory, 1980-01-02T00:00:00Z, as in archives.
/// The index and the packs have times of their own.
const GIT_MTIME: i64 = 315_619_200;
/// The content of `.git/objects/info/alternates`: `.git` borrows the objects of the bare repository
/// in it.
///
/// Relative, so that the repository's directory can be bind-mounted alone, anywhere. For go-git, a
/// relative path begins at `.git`, and it drops each `../`: this path means the same to it.
const ALTERNATES: &[u8] = b"../cachewfs/objects\n";
const GRAPH_CHAIN: &[u8] = b"objects/info/commit-graphs/commit-graph-chain";
/// The small files of the git directory that the mount reads, each with its longest length in
/// bytes.
const SMALL_FILES: [(&[u8], u64); 4] = [
    (b"HEAD", 8 << 10),
    (b"config", 64 << 10),
    (b"packed-refs", limits::MAX_REFS_LEN as u64),
    // It has a line for each file of the chain.
    (GRAPH_CHAIN, 64 << 10),
];

/// Why a snapshot can't be loaded.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The end of the archive can't be fetched.
    #[error(transparent)]
    Fetch(Arc<FetchError>),
    /// A segment of the archive can't be read.
    #[error("can't read the snapshot")]
    Read(#[from] ReadError),
    /// The archive is malformed.
    #[error("the archive is malformed")]
    Format(#[from] FormatError),
    /// The archive is one of another repository.
    #[error("the daemon sent an archive of another repository, {found}")]
    WrongRepo {
        /// The repository that its TOC names.
        found: RepoName,
    },
}

impl From<FetchError> for LoadError {
    fn from(error: FetchError) -> Self {
        Self::Fetch(Arc::new(error))
    }
}

/// One loaded snapshot of a repository.
#[derive(Debug)]
pub(crate) struct Generation {
    pub snapshot: SnapshotId,
    /// The strong `ETag` of the archive, with the quotes.
    pub etag: String,
    /// The length of the archive in bytes.
    pub archive_len: u64,
    /// The path of the archive's immutable URL.
    pub path: Arc<str>,
    pub toc: Toc,
    /// The segments, in the order of the archive.
    pub segments: Vec<Arc<Segment>>,
    /// The tree of `.git`, without the index.
    pub git: StaticTree,
    /// The tree of the bare repository, which has the packs. `.git` and clones borrow from it.
    pub objects: StaticTree,
    /// The URL of upstream, if its protocol only fetches.
    pub upstream_url: Option<String>,
    /// The daemon's sentence about files of HEAD's tree that the work tree lacks.
    pub notice: Option<String>,
    /// The branch that HEAD names, if HEAD isn't detached.
    pub default_branch: Option<String>,
    work_tree: OnceCell<Arc<WorkTree>>,
    /// The search in the index, if the index is long.
    search: Option<Arc<IndexSearch>>,
    /// The paths that were searched for.
    searched: Mutex<BTreeSet<Vec<u8>>>,
}

impl Generation {
    /// Loads the snapshot whose archive ends with `tail`: its TOC, and the small files of its git
    /// directory. Returns also the part of the tail from which [`Self::load_kept`] loads it again.
    pub(crate) async fn load(
        repo: &RepoName,
        tail: Tail,
        segments: &Segments,
        purpose: Purpose,
    ) -> Result<(Self, Tail), LoadError> {
        let (mut tail, toc, start) = load_toc(repo, tail, &*segments.backend().source).await?;
        tail.bytes = tail.bytes.slice(start..);
        let placed = place_segments(repo, &tail, &toc, segments);
        let generation = Self::assemble((tail.clone(), toc), placed, segments, purpose).await?;
        Ok((generation, tail))
    }

    /// Loads the snapshot whose archive has the TOC `toc`. The bytes of `tail` don't count.
    pub(crate) async fn of_toc(
        repo: &RepoName,
        (tail, toc): (Tail, Toc),
        segments: &Segments,
    ) -> Result<Self, LoadError> {
        let placed = place_segments(repo, &tail, &toc, segments);
        Self::assemble((tail, toc), placed, segments, Purpose::Background).await
    }

    /// Loads a snapshot from its tail and the cache. Returns `None` if a daemon would have to be
    /// asked, because the tail or the small files are incomplete or damaged.
    pub(crate) async fn load_kept(
        repo: &RepoName,
        tail: Tail,
        segments: &Segments,
    ) -> Option<Self> {
        let Ok(TocLocation::Found(place)) = Toc::locate(&tail.bytes, tail.archive_len) else {
            return None;
        };
        let toc = verified_toc(&tail, place).ok()?;
        if !toc.repo.eq_ignore_case(repo) {
            return None;
        }
        let placed = place_segments(repo, &tail, &toc, segments);
        let is_small = |segment: &&Arc<Segment>| is_small_file(segment.record().role);
        if !placed
            .iter()
            .filter(is_small)
            .all(|segment| segment.is_cached())
        {
            return None;
        }
        let assembled = Self::assemble((tail, toc), placed, segments, Purpose::Demand).await;
        assembled.ok()
    }

    /// Returns whether the index can be loaded without a daemon.
    pub(crate) fn is_index_cached(&self) -> bool {
        let is_part = |segment: &&Arc<Segment>| segment.record().role == Role::IndexPart;
        let mut parts = self.segments.iter().filter(is_part);
        parts.all(|part| part.is_cached())
    }

    /// Returns the segments that show the repository without its content: small files and index.
    pub(crate) fn needed_segments(&self) -> Vec<SegmentId> {
        let is_needed = |segment: &&Arc<Segment>| {
            let role = segment.record().role;
            is_small_file(role)
                || matches!(
                    role,
                    Role::IndexHeader | Role::IndexPart | Role::IndexTrailer
                )
        };
        let needed = self.segments.iter().filter(is_needed);
        needed.map(|segment| segment.record().id).collect()
    }

    /// Reads the small files, and puts the parts of a generation together.
    async fn assemble(
        (tail, toc): (Tail, Toc),
        placed: Vec<Arc<Segment>>,
        segments: &Segments,
        purpose: Purpose,
    ) -> Result<Self, LoadError> {
        let search =
            IndexSearch::for_long_index(&placed, toc.commit.as_bytes().len()).map(Arc::new);
        // In the background, while the small files are fetched. After a catch-up it would be waste:
        // nobody waits, and new small packs are fetched whole.
        if purpose == Purpose::Demand {
            start_first_look(&toc, (&placed, search.clone()), segments.backend());
        }
        let mut files = small_files(&toc, &placed, purpose).await?;
        let packed_refs = files.remove(&b"packed-refs"[..]).unwrap_or_default();
        let packed_refs_len = packed_refs.len() as u64;
        let file = |path: &[u8]| files.get(path).map_or(&[][..], Vec::as_slice);
        let head = GitHead::parse(file(b"HEAD"))?;
        let id_len = toc.commit.as_bytes().len();
        let kind = toc.kind;
        let to_refs = move || mirror_packed_refs(kind, &packed_refs, id_len);
        let refs = parse(packed_refs_len, to_refs).await;
        let upstream_url = config::upstream_url(file(b"config"));
        let uses_sha256 = toc.commit.as_bytes().len() == 32;
        // `.git` is the repository of the work tree; it borrows the objects like any other clone.
        // The packs are in a bare repository of its own.
        let common = |is_bare| {
            let config = config::mount_config(upstream_url.as_deref(), is_bare, uses_sha256);
            git_directory(&head, &refs, &config)
        };
        let mut git = common(toc.kind == ArchiveKind::Mirror);
        git.add_bytes(b"objects/info/alternates", ALTERNATES, GIT_MTIME);
        let mut objects = common(true);
        add_objects(&mut objects, &toc, &placed, file(GRAPH_CHAIN));
        let default_branch = match head {
            GitHead::Branch(name) => String::from_utf8(name).ok(),
            GitHead::Detached(_) => None,
        };
        let work_tree = match toc.kind {
            ArchiveKind::Mirror => OnceCell::new_with(Some(Arc::new(WorkTree::empty()))),
            ArchiveKind::Checkout | ArchiveKind::Lfs => OnceCell::new(),
        };
        Ok(Self {
            snapshot: tail.snapshot,
            etag: tail.etag,
            notice: tail.notice,
            archive_len: tail.archive_len,
            path: tail.path,
            toc,
            search,
            searched: Mutex::default(),
            segments: placed,
            git,
            objects,
            upstream_url,
            default_branch,
            work_tree,
        })
    }

    /// Returns the work tree, loading it if need be. It is empty for an archive that has none.
    pub(crate) async fn work_tree(&self, purpose: Purpose) -> Result<Arc<WorkTree>, LoadError> {
        let load = || async {
            let tree = WorkTree::load(&self.toc, &self.segments, purpose).await?;
            Ok::<_, LoadError>(Arc::new(tree))
        };
        self.work_tree.get_or_try_init(load).await.cloned()
    }

    /// Returns whether the archive has a work tree and an index.
    pub(crate) fn has_work_tree(&self) -> bool {
        self.toc.kind != ArchiveKind::Mirror
    }

    /// Returns the node at `path` in the work tree, or `None` if there is none.
    ///
    /// If the index is long, a path at the top of the work tree is searched for without loading
    /// the index. Such a path is then in [`Generation::searched`].
    pub(crate) async fn find_in_work_tree(
        &self,
        path: &[u8],
    ) -> Result<Option<WorkTreeNode>, LoadError> {
        if self.loaded_work_tree().is_none()
            && let Some(search) = self.search.as_ref().filter(|_| !path.contains(&b'/'))
            && self.note_search(path)
        {
            // Noted before it is answered: a switch that comes in between then invalidates the
            // name, too.
            match search.find(path, Purpose::Demand).await? {
                Hit::File(file) => return Ok(Some(file)),
                Hit::Absent => return Ok(None),
                Hit::Other => {}
            }
        }
        let tree = self.work_tree(Purpose::Demand).await?;
        Ok(tree.get(path))
    }

    /// Returns whether the index is long. Files are then searched for without loading it.
    pub(crate) fn has_long_index(&self) -> bool {
        self.search.is_some()
    }

    /// Notes a search for `path`. Returns `false` if too many other paths were searched for, so
    /// that the index should be loaded instead.
    pub(crate) fn note_search(&self, path: &[u8]) -> bool {
        let mut searched = self.searched.lock();
        if !searched.contains(path) && searched.len() == MAX_SEARCHED {
            return false;
        }
        searched.insert(path.to_vec());
        true
    }

    /// Returns the paths that were searched for, or are being searched for. The kernel may have
    /// cached an answer for each.
    pub(crate) fn searched(&self) -> Vec<Vec<u8>> {
        let searched = self.searched.lock();
        searched.iter().cloned().collect()
    }

    /// Returns the work tree, or `None` if it has not been loaded yet. The empty one of an archive
    /// without a work tree needs no loading.
    pub(crate) fn loaded_work_tree(&self) -> Option<&Arc<WorkTree>> {
        self.work_tree.get()
    }
}

/// Returns the segments of an archive, and makes them fetch from it.
fn place_segments(
    repo: &RepoName,
    tail: &Tail,
    toc: &Toc,
    segments: &Segments,
) -> Vec<Arc<Segment>> {
    toc.segments_with_offsets()
        .map(|(offset, record)| {
            segments.intern(
                record,
                SegmentLocation {
                    repo: repo.clone(),
                    path: Arc::clone(&tail.path),
                    offset,
                },
            )
        })
        .collect()
}

/// Finds the TOC in `tail` and verifies it. Requests a longer tail if `tail` has only a part of the
/// TOC. Returns the tail that has all of it, and where the TOC begins in it.
async fn load_toc(
    repo: &RepoName,
    mut tail: Tail,
    source: &dyn ArchiveSource,
) -> Result<(Tail, Toc, usize), LoadError> {
    let broken = |tail: &Tail, source| FetchError::Broken {
        url: tail.path.to_string(),
        source,
    };
    let mut requests = 1;
    let place = loop {
        match Toc::locate(&tail.bytes, tail.archive_len).map_err(|error| broken(&tail, error))? {
            TocLocation::Found(place) => break place,
            TocLocation::NeedsTail(len)
                if len <= tail.bytes.len() as u64 || requests == MAX_TAIL_REQUESTS =>
            {
                // A daemon that sends less than it is asked for must not keep the mount asking.
                return Err(FormatError::Truncated { section: "TOC" }.into());
            }
            TocLocation::NeedsTail(len) => {
                // The answer may be of a newer snapshot than `tail`. It replaces `tail` as a whole,
                // so the two never mix.
                let answer = current_tail(source, repo, len, None).await?;
                let TailAnswer::Tail(longer) = answer else {
                    return Err(FormatError::Truncated { section: "TOC" }.into());
                };
                tail = longer;
                requests += 1;
            }
        }
    };
    let start = place.start;
    let toc = verified_toc(&tail, place).map_err(|error| broken(&tail, error))?;
    // If upstream ignores case, the daemon publishes one spelling and serves it under all.
    if !toc.repo.eq_ignore_case(repo) {
        return Err(LoadError::WrongRepo { found: toc.repo });
    }
    Ok((tail, toc, start))
}

/// Starts to fetch the bytes that git reads in its first command, whichever command that is.
fn start_first_look(
    toc: &Toc,
    (segments, search): (&[Arc<Segment>], Option<Arc<IndexSearch>>),
    backend: &Backend,
) {
    let (head, segments) = (toc.commit, segments.to_vec());
    let ending = backend.ending.clone();
    let look = async move {
        let objects = first_look::fetch(head, &segments);
        // git looks for `.mailmap` before it shows a commit.
        let mailmap = OptionFuture::from(
            search
                .as_ref()
                .map(|search| search.find(b".mailmap", Purpose::Background)),
        );
        join!(objects, mailmap);
    };
    let tasks = &backend.tasks;
    tasks.spawn(async move { ending.run_until_cancelled(look).await });
}

/// Decodes the TOC at `place` in `tail`. Fails unless the `ETag` is its digest, and it fits to the
/// archive and to the snapshot that the daemon names.
fn verified_toc(tail: &Tail, place: Range<usize>) -> Result<Toc, FormatError> {
    let from_end = tail.bytes.len().saturating_sub(place.start) as u64;
    let (digest, toc) = Toc::decode(tail.bytes.get(place).unwrap_or_default())?;
    let expected = tail.etag.trim_matches('"').parse()?;
    if digest != expected {
        return Err(FormatError::WrongDigest {
            section: "TOC",
            expected,
        });
    }
    toc.check_offset(tail.archive_len.saturating_sub(from_end))?;
    if toc.kind == ArchiveKind::Lfs {
        return Err(FormatError::Malformed {
            section: "TOC",
            reason: "it is that of an LFS archive",
        });
    }
    if tail.snapshot.commit() != toc.commit {
        return Err(FormatError::Malformed {
            section: "TOC",
            reason: "its commit is not that of the snapshot that the daemon names",
        });
    }
    Ok(toc)
}

/// Returns whether segments of this role have small files of the git directory.
fn is_small_file(role: Role) -> bool {
    matches!(role, Role::Refs | Role::PackedRefs)
}

/// Returns the small files of the git directory, by path relative to it.
async fn small_files(
    toc: &Toc,
    segments: &[Arc<Segment>],
    purpose: Purpose,
) -> Result<HashMap<&'static [u8], Vec<u8>>, LoadError> {
    let is_wanted = |segment: &&Arc<Segment>| is_small_file(segment.record().role);
    let small: Vec<_> = segments.iter().filter(is_wanted).cloned().collect();
    fetch_whole(&small, purpose).await?;
    let mut files: HashMap<&[u8], Vec<u8>> = HashMap::new();
    for segment in small {
        if segment.record().role == Role::PackedRefs {
            // A long `packed-refs` is stored in parts, in order.
            let part = segment.read(0..segment.len(), purpose).await?;
            files.entry(b"packed-refs").or_default().extend(part);
            continue;
        }
        let table = segment.table(purpose).await?;
        for entry in table.entries() {
            let EntryKind::File(Content::Inline { offset }) = entry.kind else {
                continue;
            };
            let path = entry.path.as_bytes();
            let path = match toc.kind {
                ArchiveKind::Checkout => path.strip_prefix(b".git/").unwrap_or_default(),
                ArchiveKind::Mirror | ArchiveKind::Lfs => path,
            };
            let known = SMALL_FILES.iter().find(|(name, _)| *name == path);
            let Some(&(name, max)) = known else { continue };
            if entry.size > max {
                let (section, len) = ("git directory", entry.size);
                return Err(FormatError::TooLarge { section, len, max }.into());
            }
            let range = offset..offset.saturating_add(entry.size);
            files.insert(name, segment.read(range, purpose).await?);
        }
    }
    Ok(files)
}

/// Returns the files that `.git` and the directory with the objects have in common. `packed_refs`
/// and `config` must have been checked: an archive could contain a `config` that runs programs.
fn git_directory(head: &GitHead, packed_refs: &[u8], config: &str) -> StaticTree {
    let mut tree = StaticTree::default();
    for directory in [
        &b"refs/heads"[..],
        b"refs/tags",
        b"objects/pack",
        b"objects/info",
        b"info",
    ] {
        tree.add_directory(directory);
    }
    tree.add_bytes(b"HEAD", &head.to_file(), GIT_MTIME);
    tree.add_bytes(b"config", config.as_bytes(), GIT_MTIME);
    tree.add_bytes(b"packed-refs", packed_refs, GIT_MTIME);
    tree
}

/// Adds packs, their indexes and the commit-graph to `tree`. Other files of the archive's objects
/// directory are not shown.
fn add_objects(tree: &mut StaticTree, toc: &Toc, segments: &[Arc<Segment>], graph_chain: &[u8]) {
    // The records of this TOC, not those of the segments. A shared segment keeps the record of an
    // older snapshot, with another time.
    for (record, segment) in toc.segments.iter().zip(segments) {
        let Some(file) = &record.file else { continue };
        let Some((prefix, extension)) = record.role.git_object_file() else {
            continue;
        };
        if is_named(file.path.as_bytes(), prefix, extension) {
            let content = FileContent::Segment(Arc::clone(segment));
            tree.add_file(file.path.as_bytes(), content, file.mtime);
        }
    }
    if is_graph_chain(graph_chain) {
        tree.add_bytes(GRAPH_CHAIN, graph_chain, GIT_MTIME);
    }
}

/// Returns whether `path` is `prefix`, a hexadecimal hash, and `extension`.
fn is_named(path: &[u8], prefix: &str, extension: &str) -> bool {
    path.strip_prefix(prefix.as_bytes())
        .and_then(|rest| rest.strip_suffix(extension.as_bytes()))
        .is_some_and(is_hash)
}

/// Returns whether `content` is a chain of commit-graphs, with a hash in each line. git prints
/// other lines in a warning, and an archive must not send text to a terminal.
fn is_graph_chain(content: &[u8]) -> bool {
    let lines = content.strip_suffix(b"\n");
    lines.is_some_and(|lines| lines.split(|&byte| byte == b'\n').all(is_hash))
}

fn is_hash(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| ObjectId::parse(text).is_ok())
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use cachewfs_format::Digest;
    use cachewfs_format::api::RefreshAnswer;

    use super::*;
    use crate::fetch::{BodyStream, RangeRequest};
    use crate::testing::{self, Archive};

    /// Returns a tail that has the whole archive, and the position of the TOC in it.
    fn tail_of(archive: Archive) -> (Tail, Range<usize>) {
        let archive_len = archive.bytes.len() as u64;
        let TocLocation::Found(place) = Toc::locate(&archive.bytes, archive_len).unwrap() else {
            panic!("the whole archive was given");
        };
        let tail = Tail {
            path: "/a".into(),
            bytes: archive.bytes.into(),
            archive_len,
            etag: archive.etag,
            snapshot: archive.snapshot,
            notice: None,
        };
        (tail, place)
    }

    #[test]
    fn a_toc_with_another_digest_than_the_etag_is_refused() {
        let (mut tail, place) = tail_of(testing::archive("main", b"pack", &[]));
        assert!(verified_toc(&tail, place.clone()).is_ok());
        let other = Digest::of(b"another TOC");

        tail.etag = format!("\"{other}\"");

        let error = verified_toc(&tail, place).unwrap_err();
        let section = "TOC";
        let expected = FormatError::WrongDigest {
            section,
            expected: other,
        };
        assert_eq!(error, expected);
    }

    /// A source that always sends fewer bytes than requested.
    #[derive(Debug)]
    struct ShortSource {
        tail: Tail,
        requests: AtomicUsize,
    }

    impl ArchiveSource for ShortSource {
        fn tail<'a>(
            &'a self,
            _: &'a RepoName,
            _: ArchiveKind,
            _: u64,
            _: Option<&'a str>,
        ) -> Pin<Box<dyn Future<Output = Result<TailAnswer, FetchError>> + Send + 'a>> {
            self.requests.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Ok(TailAnswer::Tail(self.tail.clone())) })
        }

        fn range(
            &self,
            _: RangeRequest,
        ) -> Pin<Box<dyn Future<Output = Result<BodyStream, FetchError>> + Send + '_>> {
            Box::pin(async { Err(FetchError::Ending) })
        }

        fn refresh<'a>(
            &'a self,
            _: &'a RepoName,
        ) -> Pin<Box<dyn Future<Output = Result<RefreshAnswer, FetchError>> + Send + 'a>> {
            Box::pin(async { Err(FetchError::Ending) })
        }

        fn hosts(
            &self,
            _purpose: Purpose,
        ) -> Pin<Box<dyn Future<Output = Result<Vec<String>, FetchError>> + Send + '_>> {
            Box::pin(async { Err(FetchError::Ending) })
        }
    }

    #[tokio::test]
    async fn a_daemon_that_sends_too_little_is_asked_a_limited_number_of_times() {
        let repo = RepoName::parse(testing::REPO).unwrap();
        let (mut tail, _) = tail_of(testing::archive("main", b"pack", &[]));
        let len = tail.bytes.len();
        tail.bytes = tail.bytes.slice(len - 20..);
        let requests = AtomicUsize::new(0);
        let source = ShortSource { tail, requests };

        let loaded = load_toc(&repo, source.tail.clone(), &source).await;

        assert!(loaded.is_err());
        assert_eq!(source.requests.into_inner(), MAX_TAIL_REQUESTS - 1);
    }

    #[test]
    fn a_toc_of_another_commit_than_the_daemon_names_is_refused() {
        let (mut tail, place) = tail_of(testing::archive("main", b"pack", &[]));

        tail.snapshot = SnapshotId::parse(&"9".repeat(40)).unwrap();

        let error = verified_toc(&tail, place).unwrap_err();
        assert!(matches!(error, FormatError::Malformed { .. }), "{error}");
    }

    #[test]
    fn only_hashes_name_packs_and_graphs() {
        let hash = "0123456789abcdef0123456789abcdef01234567";
        let is_pack = |path: &str| is_named(path.as_bytes(), "objects/pack/pack-", ".pack");

        assert!(is_pack(&format!("objects/pack/pack-{hash}.pack")));
        assert!(!is_pack(&format!("objects/pack/pack-{hash}.idx")));
        assert!(!is_pack(&format!("objects/pack/pack-{hash}0.pack")));
        assert!(!is_pack(&format!("objects/pack/pack-{hash}/../x.pack")));
        assert!(is_graph_chain(format!("{hash}\n{hash}\n").as_bytes()));
        for bad in ["", "\n", "x\n", hash, &format!("{hash}\n\n"), "\x1b[2J\n"] {
            assert!(!is_graph_chain(bad.as_bytes()), "{bad:?}");
        }
    }

    #[test]
    fn a_toc_that_is_not_where_its_segments_end_is_refused() {
        let (mut tail, place) = tail_of(testing::archive("main", b"pack", &[]));

        tail.archive_len += 1;

        let error = verified_toc(&tail, place).unwrap_err();
        assert!(matches!(error, FormatError::Malformed { .. }), "{error}");
    }
}
