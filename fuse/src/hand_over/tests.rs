//! Tests of both ends of a hand-over, in one process, with a real mount.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cachewfs_format::RepoName;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::hand_over::{Given, READY_TIMEOUT, Successor, begin};
use super::wire::Channel;
use super::{Taken, accept, give, prepare, take};
use crate::control::Server;
use crate::fs::Fs;
use crate::ino::{Ino, Tree};
use crate::saved_state::{FORMAT, HandOverError, Loader, Saver, Text};
use crate::session::{self, Adapter, ServedSession};
use crate::testing::scripted::RangeFault;
use crate::testing::{self, Bench, REPO, archive, bench};

const FILES: [(&str, u32, &[u8]); 3] = [
    ("dir/run", 0o100_755, b"#!/bin/sh\nexit 0\n"),
    ("link", 0o120_000, b"dir/run"),
    ("text", 0o100_644, b"hello\n"),
];
const PACK: &[u8] = &[7; 200 << 10];
const PATIENCE: Duration = Duration::from_secs(20);

/// A mount, and the server of its control socket.
struct Old {
    served: ServedSession,
    control: Server,
    bench: Bench,
    root: PathBuf,
    _directories: [TempDir; 2],
}

impl Drop for Old {
    fn drop(&mut self) {
        self.served.unmount().ok();
    }
}

async fn old() -> Option<Old> {
    if !testing::can_mount() {
        return None;
    }
    let directories = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let root = directories[0].path().canonicalize().unwrap();
    let bench = bench_at(&root);
    let options = bench.fs.repositories().options.clone();
    let adapter = Adapter::new(Arc::clone(&bench.fs), Handle::current(), &options);
    let served = tokio::task::spawn_blocking(move || session::start(adapter, &options).unwrap());
    let served = served.await.unwrap();
    let control = Server::bind_at(directories[1].path(), &served.device);
    Some(Old {
        served,
        control,
        bench,
        root,
        _directories: directories,
    })
}

fn bench_at(root: &std::path::Path) -> Bench {
    let mut bench = bench(archive("main", PACK, &FILES));
    let mut options = bench.repositories.options.clone();
    options.mount_point = root.to_owned();
    let segments = Arc::clone(&bench.repositories.segments);
    bench.repositories = Arc::new(crate::repository::Repositories::new(options, segments));
    bench.fs = Arc::new(Fs::new(Arc::clone(&bench.repositories)));
    bench
}

impl Old {
    /// Starts a hand-over. Returns the connection for the new process.
    fn begin(&self) -> (std::os::unix::net::UnixStream, JoinHandle<Successor>) {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        let fs = Arc::clone(&self.bench.fs);
        let accepted = tokio::spawn(async move { accept(ours, &fs).await.unwrap() });
        (theirs.into_std().unwrap(), accepted)
    }

    async fn give(&self, accepted: JoinHandle<Successor>) -> Result<Given, HandOverError> {
        let successor = accepted.await.unwrap();
        give(successor, &self.bench.fs, &self.served, &self.control).await
    }

    async fn reads(&self) -> (PathBuf, fs::File) {
        let repo = self.root.join(REPO);
        let text = repo.join("text");
        let file = blocking(move || {
            let file = fs::File::open(text).unwrap();
            assert_eq!(fs::read_dir(&repo).unwrap().count(), 4);
            file
        })
        .await;
        (self.root.join(REPO), file)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Reads through the mount, by an open file and by names.
async fn check(repo: PathBuf, file: &fs::File) {
    let file = file.try_clone().unwrap();
    blocking(move || {
        let mut bytes = [0; 6];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"hello\n");
        assert_eq!(fs::read(repo.join("dir/run")).unwrap(), FILES[0].2);
        assert!(!repo.join("absent").exists());
        assert_eq!(fs::read_dir(repo.join(".git")).unwrap().count(), 7);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_process_goes_on_if_the_new_one_ends_or_hangs() {
    let Some(old) = old().await else { return };
    let (repo, file) = old.reads().await;

    for hangs in [false, true] {
        let (stream, accepted) = old.begin();
        let new = blocking(move || {
            let mut channel = Channel::new(stream, PATIENCE).unwrap();
            channel.say(&begin(FORMAT)).unwrap();
            let received = channel.receive_state().unwrap();
            assert!(!received.state.inodes.is_empty());
            channel.say("prepared").unwrap();
            channel
        })
        .await;
        let reader = tokio::spawn({
            let (repo, file) = (repo.clone(), file.try_clone().unwrap());
            async move { check(repo, &file).await }
        });
        let started = Instant::now();
        let dying = tokio::spawn(blocking(move || {
            let mut new = new;
            let received = new.receive_state().unwrap();
            assert_eq!(received.descriptors.len(), 2);
            assert!(!received.state.files.is_empty());
            hangs.then_some(new)
        }));
        let error = old.give(accepted).await.unwrap_err();
        assert!(
            matches!(error, HandOverError::Ended | HandOverError::Lost(_)),
            "{error:?}"
        );
        assert_eq!(hangs, started.elapsed() >= READY_TIMEOUT);
        reader.await.unwrap();
        check(repo.clone(), &file).await;
        drop(dying.await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_reads_another_format_is_told_so() {
    let Some(old) = old().await else { return };
    let (repo, file) = old.reads().await;
    let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
    let new = blocking(move || {
        let mut channel = Channel::new(theirs.into_std().unwrap(), PATIENCE).unwrap();
        channel.say(&begin(FORMAT + 1)).unwrap();
        channel
    });

    let mut new = new.await;
    let refused = accept(ours, &old.bench.fs).await;
    let told = blocking(move || new.receive_state()).await;

    let Err(HandOverError::OtherFormat { .. }) = refused else {
        panic!("{refused:?}");
    };
    let Err(HandOverError::Refused { message }) = told else {
        panic!("{told:?}");
    };
    let (ours, theirs) = (FORMAT, FORMAT + 1);
    let expected = [
        format!("in format {ours},"),
        format!("reads format {theirs}"),
    ];
    assert!(
        expected.iter().all(|part| message.contains(part)),
        "{message}"
    );
    check(repo, &file).await;
}

/// Returns names of an open directory, from where the last call stopped: at least `count`, or all.
fn names(directory: &fs::File, count: Option<usize>) -> Vec<String> {
    // Room for few entries: the kernel asks several times.
    let mut buffer = [std::mem::MaybeUninit::uninit(); 64];
    let mut entries = rustix::fs::RawDir::new(directory, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry.unwrap();
        names.push(entry.file_name().to_str().unwrap().to_owned());
        if count.is_some_and(|count| names.len() >= count) && entries.is_buffer_empty() {
            break;
        }
    }
    names
}

/// Takes `old` over with a file system of its own. Returns that, and its session.
async fn take_over(old: &Old) -> (Bench, ServedSession, Result<Given, HandOverError>) {
    let (stream, accepted) = old.begin();
    let root = old.root.clone();
    let new = tokio::spawn(async move {
        let bench = bench_at(&root);
        let repositories = bench.fs.repositories();
        let prepared = prepare(stream, &bench.fs).await.unwrap();
        let mut taken: Taken = take(prepared, &bench.fs).await.unwrap();
        assert!(taken.stale.is_empty(), "{:?}", taken.stale);
        let options = &repositories.options;
        let adapter = Adapter::new(Arc::clone(&bench.fs), Handle::current(), options);
        let session = (&taken.connection, taken.session.negotiated);
        let session = session::resume(adapter, options, session).unwrap();
        tokio::task::block_in_place(|| taken.wait_for_go()).unwrap();
        let device = taken.session.device.clone();
        (bench, session.serve(device).unwrap())
    });
    let given = old.give(accepted).await;
    let (bench, served) = new.await.unwrap();
    (bench, served, given)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_process_knows_all_that_the_kernel_knows() {
    let Some(old) = old().await else { return };
    let (repo, file) = old.reads().await;
    let packs = old.root.join(".objects").join(REPO).join("objects/pack");
    let pack = blocking(move || {
        let names = fs::read_dir(packs).unwrap();
        let mut paths = names.map(|entry| entry.unwrap().path());
        let pack = paths.find(|path| path.extension() == Some("pack".as_ref()));
        let pack = pack.unwrap();
        // After this the cache has all of it, and the next open uses passthrough.
        assert!(fs::read(&pack).unwrap() == PACK);
        (fs::File::open(&pack).unwrap(), pack)
    })
    .await;

    let directory = fs::File::open(&repo).unwrap();
    let some = blocking({
        let directory = directory.try_clone().unwrap();
        move || names(&directory, Some(1))
    })
    .await;

    let (bench, served, given) = take_over(&old).await;

    assert!(given.is_ok(), "{given:?}");
    let rest = blocking(move || names(&directory, None)).await;
    let mut all = [some, rest].concat();
    all.sort();
    assert_eq!(all, [".", "..", ".git", "dir", "link", "text"]);
    check(repo, &file).await;
    blocking(move || {
        let (open, path) = pack;
        let mut bytes = vec![0; PACK.len()];
        open.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes == PACK);
        // Beside the open file, which fixes how the kernel reads this inode.
        assert!(fs::read(&path).unwrap() == PACK);
        drop(open);
        assert!(fs::read(&path).unwrap() == PACK);
    })
    .await;
    // Everything else was in the cache or came with the state.
    let known = bench.fs.repositories().resolved();
    assert_eq!(known.len(), 1);
    drop(served);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_process_answers_the_reads_that_it_has_read() {
    let Some(old) = old().await else { return };
    let (repo, _file) = old.reads().await;
    let cold = blocking({
        let repo = repo.clone();
        move || fs::File::open(repo.join("dir/run")).unwrap()
    })
    .await;
    old.bench.source.fail_with([RangeFault::Hang]);
    let reader = tokio::spawn(blocking(move || {
        let mut bytes = vec![0; FILES[0].2.len()];
        let outcome = cold.read_exact_at(&mut bytes, 0);
        outcome
            .map(|()| bytes)
            .map_err(|error| error.raw_os_error())
    }));
    let gate = Arc::clone(&old.served.gate);
    while gate.wait_until_answered(Duration::ZERO) {
        tokio::task::yield_now().await;
    }

    let (_bench, served, given) = take_over(&old).await;

    assert!(given.is_ok(), "{given:?}");
    assert!(!gate.wait_until_answered(Duration::ZERO), "the read waits");
    // The new process answers meanwhile.
    blocking(move || assert_eq!(fs::read_dir(repo.join(".git")).unwrap().count(), 7)).await;
    assert!(blocking(move || gate.wait_until_answered(PATIENCE)).await);
    match reader.await.unwrap() {
        Ok(bytes) => assert_eq!(bytes, FILES[0].2),
        Err(errno) => assert_eq!(errno, Some(rustix::io::Errno::IO.raw_os_error())),
    }
    drop(served);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_nobody_has_looked_into_stays_one() {
    let name = RepoName::parse(REPO).unwrap();
    let before = bench(archive("main", PACK, &FILES));
    before.repositories.resolve(&name).await.unwrap();
    // Its listings have the repository, because an earlier mount showed it.
    let old = before.restart();
    let host = old.fs.lookup(Ino::ROOT, b"host").await.unwrap();
    let org = old.fs.lookup(host.ino, b"org").await.unwrap();
    let handle = old.fs.opendir(org.ino).unwrap();
    let listing = old.fs.listing((org.ino, handle), 0).await.unwrap();
    let found = listing.entries.iter().find(|entry| entry.name == b"repo");
    let repo = found.unwrap();
    old.fs.remember(repo);
    assert!(old.repositories.resolved().is_empty());
    let (mut saver, mut sent) = (Saver::default(), HashMap::new());
    old.fs.save_inodes(&mut saver, &mut sent).unwrap();

    let new = bench(archive("main", PACK, &FILES));
    let loader = Loader::new(&[], Vec::new(), &new.repositories.segments).unwrap();
    let inodes = saver.state.inodes;
    new.fs
        .restore_inodes(inodes, Vec::new(), &loader, &[])
        .unwrap();

    assert!(new.repositories.resolved().is_empty());
    assert_eq!(new.fs.getattr(repo.attr.ino).unwrap(), repo.attr);
    assert!(new.fs.lookup(repo.attr.ino, b"text").await.is_ok());
}

#[tokio::test]
async fn names_that_the_new_program_shows_otherwise_are_found() {
    let bench = bench(archive("main", PACK, &FILES));
    let name = RepoName::parse(REPO).unwrap();
    let repository = bench.repositories.resolve(&name).await.unwrap();
    let mut saver = Saver::default();
    bench.repositories.save(&mut saver).unwrap();
    let mut shown = saver.state.repositories.remove(0).shown;
    assert!(repository.stale_names(&shown).is_empty());

    let git = |path: &str| (Tree::Git, Text(path.into()));
    shown.retain(|(tree, path, _)| (*tree, path.clone()) != git("config"));
    for (tree, path, ino) in &mut shown {
        ino.0 += u64::from((*tree, path.clone()) == git("HEAD"));
    }
    let (tree, path) = git("gone");
    shown.push((tree, path, Ino(7)));

    let mut stale = repository.stale_names(&shown);
    stale.sort();
    stale.dedup();
    let names: Vec<_> = stale
        .into_iter()
        .map(|(_, tree, path)| (tree, Text(path)))
        .collect();
    assert_eq!(names, [git("HEAD"), git("config"), git("gone")]);
}
