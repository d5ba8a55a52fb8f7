//! The cache on a workstation's disk.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};

use cachewfs_tests::{GitRepo, MountProcess, Site, can_mount, git, run, wait_until};

const MIB: u64 = 1 << 20;
/// The number of files that mounts of one cache read. The cache has room for half of them.
const LARGE_FILES: usize = 8;

/// Publishes a repository with files that don't compress, each large enough to be a segment of its
/// own.
fn repo_with_large_files(site: &Site, count: usize, len: usize) -> GitRepo {
    let mut repo = site.repo("project");
    let mut noise = 1_u64;
    for number in 0..count {
        let words = std::iter::repeat_with(|| {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            noise.to_be_bytes()
        });
        let words = words.take(len / 8);
        let content: Vec<u8> = words.flatten().collect();
        repo.write(format!("large-{number}"), &content);
    }
    repo.commit("large files");
    repo.push();
    repo
}

/// Reads a file of that repository, and makes the kernel forget it: otherwise only the first read
/// would reach the mount.
fn read_and_forget(directory: &Path, number: usize) -> io::Result<Vec<u8>> {
    let mut file = File::open(directory.join(format!("large-{number}")))?;
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    fadvise(&file, 0, None, Advice::DontNeed)?;
    Ok(content)
}

/// Returns the bytes of disk that the files below `directory` take.
fn disk_bytes_below(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes_below(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        // It was evicted meanwhile.
        Err(_) => 0,
    });
    bytes.sum()
}

#[test]
fn the_cache_stays_within_its_limit_whatever_fills_it() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = repo_with_large_files(&site, 6, 5 << 20);
    let daemon = site.daemon();
    let mount = site.mount_with_options(&daemon.url(), "cache_size=16M");
    let mounted = mount.repo("local/project");
    let point = mount.point.display().to_string();
    for command in [&["prefetch", "--hot"][..], &["pin"]] {
        let refused = run(&[command, &["local/project", "--mount", &point]].concat());
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && said.contains("cache_size"),
            "{said}"
        );
    }
    let repo_status = || mount.status()["repos"][0].clone();
    assert_eq!(repo_status()["is_pinned"], false);
    // Hydration has no room for it either.
    wait_until("the status says so", || {
        repo_status()["unhydrated"].is_string()
    });
    let said = repo_status()["unhydrated"].to_string();
    assert!(said.contains("MiB needed, 16.0 MiB available"), "{said}");
    assert!(mount.status()["cache_short_at"].is_null());

    for _ in 0..2 {
        for number in 0..6 {
            let name = format!("large-{number}");
            let read = std::fs::read(mounted.join(&name)).unwrap();
            assert!(read == std::fs::read(repo.work.join(&name)).unwrap());
        }
    }

    let used = || mount.status()["cache_bytes"].as_u64().unwrap();
    wait_until("the cache is within its limit", || used() <= 16 * MIB);
    assert!(used() > 0);
    assert!(mount.status()["cache_short_at"].is_u64());
    assert_eq!(git(&mounted, &["status", "--porcelain"]), "");
    // The list of hosts is no repository's traffic, and no reader waited for it.
    let status = mount.status();
    let hosts = |bytes: &str| {
        let of = |counts: &serde_json::Value| counts["traffic"][bytes].as_u64().unwrap();
        of(&status) - of(&status["repos"][0])
    };
    assert!((1..1000).contains(&hosts("fetched_bytes")), "{status}");
    assert_eq!(hosts("demand_bytes"), 0, "{status}");
}

#[test]
fn mounts_share_a_cache_while_one_of_them_is_killed_again_and_again() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = repo_with_large_files(&site, LARGE_FILES, 2 << 20);
    let daemon = site.daemon();
    let cache = site.path().join("cache");
    let options = format!("hydrate=off,cache_size=8M,cache_dir={}", cache.display());
    let mount = |name| MountProcess::start(&site.path().join(name), &daemon.url(), &options);
    let expected: Vec<_> = (0..LARGE_FILES)
        .map(|number| read_and_forget(&repo.work, number).unwrap())
        .collect();
    let survivor = mount("survivor");
    let (is_done, reads_of_survivor) = (AtomicBool::new(false), AtomicUsize::new(0));
    let deadline = Instant::now() + Duration::from_mins(1);

    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mounted = survivor.repo("local/project");
            for number in (0..LARGE_FILES).cycle() {
                let read = read_and_forget(&mounted, number).unwrap();
                assert!(read == expected[number], "wrong bytes");
                reads_of_survivor.fetch_add(1, Ordering::Relaxed);
                if is_done.load(Ordering::Relaxed) || Instant::now() > deadline {
                    return;
                }
            }
        });
        for _ in 0..3 {
            let victim = mount("victim");
            let (mounted, reads) = (victim.repo("local/project"), AtomicUsize::new(0));
            let reads = &reads;
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    // Until the mount is killed.
                    for number in (0..LARGE_FILES).rev().cycle() {
                        let Ok(read) = read_and_forget(&mounted, number) else {
                            return;
                        };
                        assert!(read == expected[number], "wrong bytes");
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                });
                wait_until("both evict", || {
                    let enough =
                        |reads: &AtomicUsize| reads.load(Ordering::Relaxed) > 2 * LARGE_FILES;
                    enough(reads) && enough(&reads_of_survivor)
                });
                victim.kill();
            });
        }
        is_done.store(true, Ordering::Relaxed);
        reading.join().unwrap();
    });

    wait_until("the cache is within its limit", || {
        disk_bytes_below(&cache) <= 8 * MIB
    });
}
