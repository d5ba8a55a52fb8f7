//! Compares the results for files that git wrote with git's own answers.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cachewfs_format::{
    ChunkEncoding, Digest, GitPath, ObjectId, RepoName, Role, SegmentWriter, SnapshotId, TocFile,
    TocSegment, encode_chunk,
};
use tempfile::TempDir;

use super::{commit_graph, pack_index};
use crate::cache::Cache;
use crate::segment::{Backend, Segment, SegmentLocation, Segments};
use crate::testing::scripted::ScriptedSource;
use crate::traffic::Traffic;

/// Enough commits that neither the index nor the commit-graph is small enough to be fetched whole.
const COMMITS: usize = 20_000;

fn git(directory: &Path, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("git")
        // By default, git 3.0 doesn't use a directory as a bare repository.
        .args(["-c", "safe.bareRepository=all"])
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {arguments:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Creates a packed repository with a commit-graph. Its history is linear and ends in a merge.
fn repository() -> TempDir {
    let directory = TempDir::new().unwrap();
    let mut commits = String::new();
    for number in 0..COMMITS {
        let merge = if number == COMMITS - 1 {
            format!("merge :{}\n", number - 6)
        } else {
            String::new()
        };
        let (time, len) = (1_600_000_000 + number, number.to_string().len());
        write!(
            commits,
            "commit refs/heads/main\nmark :{}\ncommitter A <a@b> {time} +0000\ndata 1\nx\n{merge}\
             M 644 inline file\ndata {len}\n{number}\n\n",
            number + 1,
        )
        .unwrap();
    }
    git(
        directory.path(),
        &["init", "-q", "--bare", "-b", "main"],
        "",
    );
    git(directory.path(), &["fast-import", "--quiet"], &commits);
    git(directory.path(), &["repack", "-adq"], "");
    let write = ["commit-graph", "write", "--reachable", "--changed-paths"];
    git(directory.path(), &write, "");
    directory
}

/// Makes a segment of the file with `extension` below `directory`. Only its source has its bytes.
fn segment(directory: &Path, extension: &str) -> (Arc<Segment>, Arc<ScriptedSource>, TempDir) {
    let path = if extension == "graph" {
        directory.join("objects/info/commit-graph")
    } else {
        let mut files = std::fs::read_dir(directory.join("objects/pack")).unwrap();
        let is_it = |path: &std::path::PathBuf| path.extension().unwrap() == extension;
        files
            .find_map(|file| Some(file.unwrap().path()).filter(is_it))
            .unwrap()
    };
    let content = std::fs::read(path).unwrap();
    let mut writer = SegmentWriter::default();
    let mut stored = Vec::new();
    for piece in content.chunks(16 << 10) {
        let (chunk, bytes) = encode_chunk(piece, ChunkEncoding::Raw).unwrap();
        writer.push_chunk(chunk);
        stored.extend(bytes);
    }
    let (id, table) = writer.finish().unwrap();
    stored.extend(&table);
    let record = TocSegment {
        id,
        role: Role::PackIndex,
        stored_len: stored.len() as u64,
        table_len: u32::try_from(table.len()).unwrap(),
        content_len: content.len() as u64,
        file: Some(TocFile {
            path: GitPath::parse(b"objects/pack/pack-x").unwrap(),
            size: content.len() as u64,
            mtime: 1,
        }),
    };
    let snapshot = SnapshotId::first(ObjectId::parse(&"1".repeat(40)).unwrap());
    let source = ScriptedSource::new(stored, snapshot, Digest::of(b"").to_string());
    let cache_dir = TempDir::new().unwrap();
    let cache = Cache::open(cache_dir.path(), 1 << 40).unwrap();
    let traffic = Arc::new(Traffic::default());
    let backend = Backend::new(source.clone(), cache, traffic, Duration::from_secs(2));
    let place = SegmentLocation {
        repo: RepoName::parse("example.com/project").unwrap(),
        path: "/archive".into(),
        offset: 0,
    };
    let segment = Segments::new(Arc::new(backend)).intern(&record, place);
    (segment, source, cache_dir)
}

fn oid(hex: &str) -> Vec<u8> {
    ObjectId::parse(hex).unwrap().as_bytes().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_offset_of_an_object_is_the_one_that_git_finds() {
    let directory = repository();
    let (index, _source, _cache) = segment(directory.path(), "idx");
    let verified = git(
        directory.path(),
        &["verify-pack", "-v", &pack(directory.path())],
        "",
    );

    for line in verified.lines().take(3 * COMMITS).step_by(997) {
        let fields: Vec<&str> = line.split_whitespace().collect();

        let found = pack_index::find(&index, &oid(fields[0])).await.unwrap();

        assert_eq!(found, Some(fields[4].parse().unwrap()), "{line}");
    }
    assert_eq!(pack_index::find(&index, &[7; 20]).await.unwrap(), None);
}

fn pack(directory: &Path) -> String {
    let mut files = std::fs::read_dir(directory.join("objects/pack")).unwrap();
    let pack = files.find_map(|file| {
        let path = file.unwrap().path();
        (path.extension().unwrap() == "idx").then_some(path)
    });
    pack.unwrap().display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefetched_commit_graph_has_head_and_its_parents() {
    let directory = repository();
    let (graph, source, _cache) = segment(directory.path(), "graph");
    let head = oid(&git(directory.path(), &["rev-parse", "HEAD"], ""));

    commit_graph::prefetch([&graph].into_iter(), &head).await;

    let prefetches = source.take_requests().len();
    let opened = commit_graph::CommitGraph::open(&graph, 20)
        .await
        .unwrap()
        .unwrap();
    let mut parents = Vec::new();
    for position in opened.parents_of(&head).await {
        parents.push(opened.id(position).await);
    }
    let expected = git(directory.path(), &["rev-parse", "HEAD^1", "HEAD^2"], "");
    assert_eq!(parents, expected.lines().map(oid).collect::<Vec<_>>());
    assert!(prefetches > 0);
    assert_eq!(source.take_requests(), [], "all of that was prefetched");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_git_did_not_write_are_ignored() {
    let directory = TempDir::new().unwrap();
    std::fs::create_dir_all(directory.path().join("objects/info")).unwrap();
    let noise: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    for front in [&b""[..], b"CGPH\x01\x01\xFF\x00"] {
        let path = directory.path().join("objects/info/commit-graph");
        std::fs::File::create(path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, &[front, &noise].concat()))
            .unwrap();
        let (file, _source, _cache) = segment(directory.path(), "graph");

        commit_graph::prefetch([&file].into_iter(), &[0x55; 20]).await;
        pack_index::find(&file, &[0x55; 20]).await.unwrap();
    }
}
