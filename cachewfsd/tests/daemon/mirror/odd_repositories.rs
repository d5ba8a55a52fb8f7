//! Unusual repositories: empty, shallow, with odd refs, names, attributes, formats or trees.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use reqwest::Method;
use serde_json::Value;

use crate::support::test_daemon::*;

async fn refresh_error(daemon: &TestDaemon) -> (u16, String) {
    let response = daemon
        .request(Method::POST, &format!("/git/{REPO}/refresh"), &[])
        .await;
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    (status, body["error"]["code"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_repository_has_an_error_of_its_own_until_its_first_commit() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();

    let empty = refresh_error(&daemon).await;
    let head = commit_and_push(&work, "first");

    assert_eq!(empty, (404, "repository_empty".to_owned()));
    assert_eq!(daemon.refresh().await["snapshot"], head);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_whose_branch_does_not_exist_is_published_without_a_work_tree() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    let first = commit_and_push(&work, "first");
    git(
        &daemon.upstream(),
        ["symbolic-ref", "HEAD", "refs/heads/nowhere"],
    );

    assert_eq!(daemon.refresh().await["snapshot"], "0".repeat(40));

    let mirror = daemon.extract("mirror.tar.zst").await;
    git(&mirror, ["fsck", "--strict"]);
    assert_eq!(git(&mirror, ["rev-parse", "main"]), first);
    assert_eq!(git(&mirror, ["symbolic-ref", "HEAD"]), "refs/heads/nowhere");
    let path = format!("/git/{REPO}/snapshot.tar.zst");
    let (status, code) = code(daemon.request(Method::GET, &path, &[]).await).await;
    assert_eq!((status, &*code), (404, "no_checkout"));
    let path = format!("/api/v1/repos/{REPO}");
    let described = daemon.request(Method::GET, &path, &[]).await;
    let described: Value = described.json().await.unwrap();
    let notice = described["published"]["notice"].as_str().unwrap();
    assert!(notice.contains("HEAD names a branch"), "{notice}");
    // A lost mirror can be restored from such a snapshot, too.
    let forgotten = daemon
        .post(&format!("/api/v1/repos/{REPO}/forget"), "")
        .await;
    assert_eq!(forgotten.status(), 200);
    git(
        &daemon.upstream(),
        ["symbolic-ref", "HEAD", "refs/heads/main"],
    );
    assert_eq!(daemon.refresh().await["snapshot"], first);
    assert_good_clone(&daemon.extract("snapshot.tar.zst").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn ref_names_that_are_not_utf8_stay_distinct() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    let head = commit_and_push(&work, "first");
    for name in [&b"refs/heads/gr\xfcn"[..], b"refs/heads/gr\xffn"] {
        let arguments = [OsStr::new("update-ref"), OsStr::from_bytes(name)];
        git(
            &daemon.upstream(),
            arguments.into_iter().chain([OsStr::new("main")]),
        );
    }
    daemon.refresh().await;

    let path = format!("/api/v1/repos/{REPO}");
    let described = daemon.request(Method::GET, &path, &[]).await;
    let described: Value = described.json().await.unwrap();
    let asked = r#"{"refs":{"refs/heads/gr\ufffdn":""}}"#;
    let ensured = daemon
        .post(&format!("/git/{REPO}/ensure-refs"), asked)
        .await;
    let ensured: Value = ensured.json().await.unwrap();

    for name in [
        "refs/heads/gr\\xfcn",
        "refs/heads/gr\\xffn",
        "refs/heads/main",
    ] {
        assert_eq!(described["refs"]["named"][name], head, "{described}");
    }
    assert_eq!(ensured["refs"]["refs/heads/gr\u{fffd}n"], "", "{ensured}");
}

/// A shallow repository must not be published: its history would be incomplete.
#[tokio::test(flavor = "multi_thread")]
async fn a_shallow_upstream_is_refused_until_it_is_whole() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    for content in ["one\n", "two\n", "three\n"] {
        write_file(&work.join("file"), content);
        commit_and_push(&work, content);
    }
    let whole = daemon.upstream().with_extension("whole");
    fs::rename(daemon.upstream(), &whole).unwrap();
    let source = format!("file://{}", whole.display());
    let target = daemon.upstream().display().to_string();
    let clone = ["clone", "-q", "--bare", "--depth=1", &source, &target];
    git(&work, clone);

    assert_eq!(
        refresh_error(&daemon).await,
        (502, "upstream_shallow".to_owned())
    );
    let path = format!("/git/{REPO}/mirror.tar.zst");
    assert_ne!(daemon.request(Method::GET, &path, &[]).await.status(), 200);

    git(&daemon.upstream(), ["fetch", "-q", "--unshallow", &source]);
    let head = git(&whole, ["rev-parse", "HEAD"]);
    assert_eq!(daemon.refresh().await["snapshot"], head);
    assert_good_clone(&daemon.extract("snapshot.tar.zst").await);

    // A complete mirror does not become shallow with its upstream.
    write_file(&work.join("file"), "four\n");
    git(&work, ["commit", "-q", "-a", "-m", "four"]);
    git(&work, ["push", "-q", &source, "main"]);
    fs::remove_dir_all(daemon.upstream()).unwrap();
    git(&work, clone);
    let ended = daemon
        .request(Method::POST, &format!("/git/{REPO}/refresh"), &[])
        .await;
    if ended.status() == 200 {
        // git fetched only the new commit, because the mirror had the others.
        let clone = daemon.extract("snapshot.tar.zst").await;
        assert_eq!(git(&clone, ["rev-list", "--count", "HEAD"]), "4");
        assert_good_clone(&clone);
    } else {
        assert_eq!(code(ended).await, (502, "upstream_shallow".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn head_follows_upstream_even_if_detached() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    commit_and_push(&work, "first");
    git(&work, ["checkout", "-q", "-b", "next"]);
    let next = commit_and_push(&work, "second");
    daemon.refresh().await;

    git(
        &daemon.upstream(),
        ["symbolic-ref", "HEAD", "refs/heads/next"],
    );
    assert_eq!(daemon.refresh().await["snapshot"], next);
    assert_eq!(
        git(
            &daemon.extract("snapshot.tar.zst").await,
            ["branch", "--show-current"]
        ),
        "next"
    );
    write_file(&work.join("only-here"), "x");
    git(&work, ["add", "-A"]);
    git(&work, ["commit", "-q", "-m", "on no branch"]);
    git(&work, ["push", "-q", "origin", "HEAD:refs/heads/tmp"]);
    let loose = git(&work, ["rev-parse", "HEAD"]);
    git(
        &daemon.upstream(),
        ["update-ref", "--no-deref", "HEAD", &loose],
    );
    git(&daemon.upstream(), ["update-ref", "-d", "refs/heads/tmp"]);

    assert_eq!(daemon.refresh().await["snapshot"], loose);
    let clone = daemon.extract("snapshot.tar.zst").await;
    assert_eq!(git(&clone, ["branch", "--show-current"]), "");
    assert_good_clone(&clone);
    git(
        &daemon.upstream(),
        ["symbolic-ref", "HEAD", "refs/heads/main"],
    );
    daemon.refresh().await;
    assert_good_clone(&daemon.extract("snapshot.tar.zst").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn head_that_names_a_tag_is_detached_as_in_a_clone() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    write_file(&work.join("file"), "tagged\n");
    let tagged = commit_and_push(&work, "one");
    git(&work, ["tag", "-a", "v1", "-m", "one"]);
    commit_and_push(&work, "two");
    git(&daemon.upstream(), ["symbolic-ref", "HEAD", "refs/tags/v1"]);

    assert_eq!(daemon.refresh().await["snapshot"], tagged);

    let clone = daemon.extract("snapshot.tar.zst").await;
    assert_eq!(git(&clone, ["branch", "--show-current"]), "");
    assert_eq!(git(&clone, ["rev-parse", "HEAD"]), tagged);
    assert_good_clone(&clone);
}

#[tokio::test(flavor = "multi_thread")]
async fn replace_refs_do_not_change_published_content() {
    let daemon = TestDaemon::start_with(|config| {
        config.namespaces = vec!["refs/replace/".to_owned()];
    })
    .await;
    let work = daemon.create_upstream();
    for content in ["one\n", "two\n", "three\n"] {
        write_file(&work.join("file"), content);
        commit_and_push(&work, content);
    }
    let head = git(&work, ["rev-parse", "HEAD"]);
    let other = git(&work, ["commit-tree", "-m", "other", "HEAD~2^{tree}"]);
    git(&work, ["replace", &head, &other]);
    git(
        &work,
        ["push", "-q", "origin", "refs/replace/*:refs/replace/*"],
    );

    assert_eq!(daemon.refresh().await["snapshot"], head);

    let clone = daemon.extract("snapshot.tar.zst").await;
    assert_eq!(fs::read(clone.join("file")).unwrap(), b"three\n");
    assert_eq!(git(&clone, ["rev-list", "--count", "HEAD"]), "3");
    assert_good_clone(&clone);
    let mirror = daemon.extract("mirror.tar.zst").await;
    git(&mirror, ["fsck", "--strict"]);
    let count = ["--no-replace-objects", "rev-list", "--count", "HEAD"];
    assert_eq!(git(&mirror, count), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_with_reftable_refs_is_mirrored() {
    let daemon = TestDaemon::start().await;
    let upstream = daemon.upstream();
    let mut init = cachewfs_tests::git_command(daemon.root.path());
    // git versions without reftable support ignore the variable.
    init.env("GIT_DEFAULT_REF_FORMAT", "reftable");
    init.args(["init", "-q", "--bare", "-b", "main"])
        .arg(&upstream);
    assert!(init.status().unwrap().success());
    let work = daemon.root.path().join("work");
    git(
        daemon.root.path(),
        ["init", "-q", "-b", "main", work.to_str().unwrap()],
    );
    git(
        &work,
        ["remote", "add", "origin", upstream.to_str().unwrap()],
    );
    commit_and_push(&work, "one");
    daemon.refresh().await;
    git(&work, ["branch", "other"]);
    let head = commit_and_push(&work, "two");

    assert_eq!(daemon.refresh().await["snapshot"], head);

    let clone = daemon.extract("snapshot.tar.zst").await;
    let branches = git(&clone, ["branch", "-r"]);
    assert!(branches.contains("origin/other"), "{branches}");
    assert_good_clone(&clone);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_modes_and_attributes_match_a_git_checkout() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    for name in [
        "a b",
        "quote\"'",
        "new\nline",
        "tab\t",
        "-dash",
        "d/e/e/p",
        "back\\slash",
        "*?[",
    ] {
        write_file(&work.join(name), name);
    }
    write_file(&work.join(OsStr::from_bytes(b"not\xffutf8/\xfe")), "bytes");
    write_file(&work.join("run.sh"), "#!/bin/sh\n");
    fs::set_permissions(work.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("d/e", work.join("link")).unwrap();
    symlink("../outside", work.join("dangling")).unwrap();
    write_file(&work.join("empty"), "");
    write_file(
        &work.join(".gitattributes"),
        "*.crlf text eol=crlf\n*.id ident\n",
    );
    write_file(&work.join("x.crlf"), "one\ntwo\n");
    write_file(&work.join("x.id"), "$Id$\n");
    write_file(&work.join("large"), noise(3, 5 << 20));
    let long = format!("{}/{}", "l".repeat(200), "m".repeat(200));
    write_file(&work.join(&long), "long");
    git(&work, ["add", "-A"]);
    git(
        &work,
        [
            "update-index",
            "--add",
            "--cacheinfo",
            &format!("160000,{},sub/module", "1a".repeat(20)),
        ],
    );
    git(&work, ["commit", "-q", "-m", "odd"]);
    git(&work, ["tag", "tree-tag", "HEAD^{tree}"]);
    git(&work, ["push", "-q", "origin", "main", "tree-tag"]);

    daemon.refresh().await;
    let clone = daemon.extract("snapshot.tar.zst").await;

    assert_good_clone(&clone);
    assert_eq!(fs::read(clone.join("x.crlf")).unwrap(), b"one\r\ntwo\r\n");
    assert!(
        fs::read_to_string(clone.join("x.id"))
            .unwrap()
            .starts_with("$Id: ")
    );
    assert_eq!(fs::read(clone.join("large")).unwrap(), noise(3, 5 << 20));
    assert_eq!(fs::read_to_string(clone.join(&long)).unwrap(), "long");
    assert_eq!(
        fs::read(clone.join(OsStr::from_bytes(b"not\xffutf8/\xfe"))).unwrap(),
        b"bytes"
    );
    assert!(clone.join("sub/module").is_dir());
    assert_ne!(
        fs::metadata(clone.join("run.sh"))
            .unwrap()
            .permissions()
            .mode()
            & 0o100,
        0
    );
    assert_eq!(
        fs::read_link(clone.join("dangling")).unwrap(),
        OsStr::new("../outside")
    );
    assert_eq!(git(&clone, ["cat-file", "-t", "tree-tag"]), "tree");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_of_a_clone_reads_no_file() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    write_file(&work.join("file"), "content\n");
    commit_and_push(&work, "one");
    daemon.refresh().await;
    let clone = daemon.extract("snapshot.tar.zst").await;
    let file = clone.join("file");
    let modified = fs::metadata(&file).unwrap().modified().unwrap();

    // Length and time are unchanged, so git can notice the change only by reading the file.
    write_file(&file, "CONTENT\n");
    fs::File::open(&file)
        .unwrap()
        .set_modified(modified)
        .unwrap();

    assert_eq!(git(&clone, ["status", "--porcelain"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_attribute_rebuilds_the_whole_work_tree() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    write_file(&work.join("x.txt"), "one\n");
    commit_and_push(&work, "one");
    daemon.refresh().await;

    write_file(&work.join(".gitattributes"), "*.txt text eol=crlf\n");
    commit_and_push(&work, "two");
    daemon.refresh().await;
    let clone = daemon.extract("snapshot.tar.zst").await;

    assert_eq!(fs::read(clone.join("x.txt")).unwrap(), b"one\r\n");
    assert_good_clone(&clone);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_with_sha256_works() {
    let daemon = TestDaemon::start().await;
    let bare = daemon.upstream();
    git(
        daemon.root.path(),
        [
            "init",
            "-q",
            "--bare",
            "-b",
            "main",
            "--object-format=sha256",
            bare.to_str().unwrap(),
        ],
    );
    let work = daemon.root.path().join("work");
    // `git clone` of git 2.39 would ignore the object format of an empty repository.
    let made = work.to_str().unwrap();
    git(
        daemon.root.path(),
        ["init", "-q", "-b", "main", "--object-format=sha256", made],
    );
    git(&work, ["remote", "add", "origin", bare.to_str().unwrap()]);
    // The daemon must not ignore the object format, either.
    let path = format!("/git/{REPO}/refresh");
    let empty = code(daemon.post(&path, "").await).await;
    assert_eq!(empty, (404, "repository_empty".to_owned()));
    write_file(&work.join("file"), "content\n");
    commit_and_push(&work, "one");
    daemon.refresh().await;
    write_file(&work.join("file2"), "content\n");
    let head = commit_and_push(&work, "two");

    daemon.refresh().await;
    let clone = daemon.extract("snapshot.tar.zst").await;

    assert_eq!(head.len(), 64);
    assert_eq!(git(&clone, ["rev-parse", "HEAD"]), head);
    assert_good_clone(&clone);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_broken_repository_does_not_stop_another() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    commit_and_push(&work, "one");
    let broken = daemon.root.path().join("upstream/org/broken.git");
    git(
        daemon.root.path(),
        [
            "clone",
            "-q",
            "--bare",
            work.to_str().unwrap(),
            broken.to_str().unwrap(),
        ],
    );
    fs::remove_dir_all(broken.join("objects")).unwrap();
    fs::create_dir(broken.join("objects")).unwrap();

    let path = "/git/git.example.com/org/broken/refresh";
    let response = daemon.request(Method::POST, path, &[]).await;

    assert!(!response.status().is_success());
    assert_eq!(daemon.refresh().await["moved"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_git_refuses_still_has_a_mirror_archive() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    write_file(&work.join("directory/file"), "content\n");
    commit_and_push(&work, "one");
    let blob = git(&work, ["rev-parse", "HEAD:directory/file"]);
    let directory = git(&work, ["rev-parse", "HEAD:directory"]);
    let hostile = [
        format!("100644 blob {blob}\t.git\n"),
        // Extraction would write through the symlink `a`. The name `a-` sorts between the link and
        // the directory, so a check of adjacent names only would miss the duplicate.
        format!("120000 blob {blob}\ta\n100644 blob {blob}\ta-\n040000 tree {directory}\ta\n"),
    ];
    for listing in hostile {
        let tree = git_with_input(&work, &["mktree"], listing.as_bytes());
        let tree = String::from_utf8(tree).unwrap();
        let commit = git(&work, ["commit-tree", "-m", "hostile", tree.trim()]);
        let refspec = format!("{commit}:refs/heads/main");
        git(&work, ["push", "-q", "--force", "origin", &refspec]);

        assert_eq!(daemon.refresh().await["snapshot"], commit);
        let mirror = daemon.extract("mirror.tar.zst").await;
        let checkout = daemon
            .get(&format!("/git/{REPO}/snapshot.tar.zst"), &[])
            .await;

        assert_eq!(git(&mirror, ["rev-parse", "HEAD"]), commit);
        assert_eq!(checkout.status(), 404);
        assert!(checkout.text().await.unwrap().contains("no_checkout"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_refreshes_all_succeed() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    let head = commit_and_push(&work, "one");

    let answers = futures_util::future::join_all((0..20).map(|_| daemon.refresh())).await;

    assert!(answers.iter().all(|answer| answer["snapshot"] == head));
    assert_eq!(
        fs::read_dir(daemon.store().join("snapshots"))
            .unwrap()
            .count(),
        1
    );
}
