//! The cache on a workstation's disk.

use cachewfs_tests::{Site, can_mount, git, run, wait_until};

const MIB: u64 = 1 << 20;

#[test]
fn the_cache_stays_within_its_limit_whatever_fills_it() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut repo = site.repo("project");
    // Files that don't compress, each large enough to be a segment of its own.
    let mut noise = 1_u64;
    for number in 0..6 {
        let content: Vec<u8> = std::iter::repeat_with(|| {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            noise.to_be_bytes()
        })
        .take(5 << 17)
        .flatten()
        .collect();
        repo.write(format!("large-{number}"), &content);
    }
    repo.commit("large files");
    repo.push();
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
    assert!(mount.log().contains("Evicted"), "{}", mount.log());
    assert_eq!(git(&mounted, &["status", "--porcelain"]), "");
    // The list of hosts is no repository's traffic, and its bytes are not counted.
    let status = mount.status();
    for bytes in ["fetched_bytes", "demand_bytes"] {
        let of_repo = &status["repos"][0]["traffic"][bytes];
        assert_eq!(*of_repo, status["traffic"][bytes]);
    }
}
