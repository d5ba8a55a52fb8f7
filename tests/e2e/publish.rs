//! The bytes that a publish writes and a catch-up fetches.

use cachewfs_tests::{Site, can_mount, git, wait_until};

#[test]
fn a_snapshot_one_commit_later_writes_and_fetches_only_what_is_new() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut repo = site.repo("project");
    let mut seed = 1_u64;
    for number in 0..200 {
        let mut noise = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed.to_le_bytes()
        };
        let bytes: Vec<u8> = (0..8192).flat_map(|_| noise()).collect();
        repo.write(format!("data/{}/{number}", number % 10), &bytes);
    }
    repo.commit("13 MB that don't compress");
    // The files are removed again: as in any old repository, most bytes are in the history.
    std::fs::remove_dir_all(repo.work.join("data")).unwrap();
    repo.add_history(20);
    repo.push();
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let mounted = mount.repo("local/project");
    mount.cli(&["prefetch", "--all", "local/project"]);
    let (stored, fetched) = (daemon.stored_bytes(), mount.traffic("fetched_bytes"));
    let archive = mount.status()["repos"][0]["archive_bytes"]
        .as_u64()
        .unwrap();

    repo.write("data/3/new", b"one small file\n");
    let commit = repo.commit("one small file");
    repo.push();
    wait_until("the mount shows the commit", || {
        git(&mounted, &["rev-parse", "HEAD"]).trim() == commit
    });

    let written = daemon.stored_bytes() - stored;
    assert!(
        written <= archive / 100,
        "{written} of {archive} bytes were written"
    );
    let fetched = mount.traffic("fetched_bytes") - fetched;
    assert!(
        fetched <= archive / 100,
        "{fetched} of {archive} bytes were fetched"
    );
}
