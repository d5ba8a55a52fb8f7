//! `cachewfs clone --recurse-submodules`: submodules that borrow from the mount.

use std::path::Path;
use std::process::{Command, Output};

use cachewfs_tests::{
    GitRepo, MountProcess, Site, binary, can_mount, git, said, try_git, write_file,
};
use serde_json::{Value, json};

/// The configuration with which `https://local/` is the directory of the upstreams, and git may
/// clone submodules from files.
fn with_upstreams(command: &mut Command, site: &Site) {
    let url = format!("url.file://{}/.insteadOf", site.upstreams().display());
    command
        .env("GIT_CONFIG_COUNT", "2")
        .env("GIT_CONFIG_KEY_0", url)
        .env("GIT_CONFIG_VALUE_0", "https://local/")
        .env("GIT_CONFIG_KEY_1", "protocol.file.allow")
        .env("GIT_CONFIG_VALUE_1", "always");
}

fn clone(site: &Site, mount: &MountProcess, (name, target): (&str, &Path)) -> Output {
    let mut command = Command::new(binary("cachewfs"));
    let url = format!("https://local/{name}");
    command.args(["clone", "--recurse-submodules", "--json", &url]);
    command.arg(target).arg("--mount").arg(&mount.point);
    with_upstreams(&mut command, site);
    command.output().unwrap()
}

/// Adds a submodule to a repository as `git submodule add` does, at the commit of `of`.
fn add_submodule(repo: &GitRepo, (name, url): (&str, &str), of: &GitRepo) {
    let commit = git(&of.work, &["rev-parse", "HEAD"]);
    let entry = format!("160000,{},{name}", commit.trim());
    let section = format!("[submodule \"{name}\"]\n\tpath = {name}\n\turl = {url}\n");
    let modules = repo.work.join(".gitmodules");
    let before = std::fs::read_to_string(&modules).unwrap_or_default();
    write_file(&modules, before + &section);
    git(&repo.work, &["add", ".gitmodules"]);
    git(
        &repo.work,
        &["update-index", "--add", "--cacheinfo", &entry],
    );
    git(&repo.work, &["commit", "-q", "-m", "a submodule"]);
    git(&repo.work, &["push", "-q", "origin", "main"]);
}

#[test]
fn each_submodule_borrows_from_its_own_mirror() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let inner = site.repo_of_files("inner", (2, 1000));
    let outer = site.repo_of_files("outer", (3, 1000));
    add_submodule(&outer, ("deep", "https://local/inner"), &inner);
    let plain = site.repo_of_files("plain", (1, 1000));
    let project = site.repo_of_files("project", (4, 1000));
    add_submodule(&project, ("lib/outer", "../outer"), &outer);
    let file = format!("file://{}", plain.upstream.display());
    add_submodule(&project, ("plain", &file), &plain);
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let target = site.path().join("clone");

    let output = clone(&site, &mount, ("project", &target));

    assert!(output.status.success(), "{}", said(&output));
    let complaint = "the submodule plain borrows nothing from the mount: ";
    assert!(said(&output).contains(complaint), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = json!([
        {"path": "lib/outer", "repo": "local/outer"},
        {"path": "plain", "repo": null},
        {"path": "lib/outer/deep", "repo": "local/inner"},
    ]);
    assert_eq!(report["submodules"], expected);
    assert_eq!(git(&target, &["status", "--porcelain"]), "");
    for (path, name) in [("lib/outer", "outer"), ("lib/outer/deep", "inner")] {
        let directory = target.join(path);
        let alternates = ["rev-parse", "--git-path", "objects/info/alternates"];
        let alternates = directory.join(git(&directory, &alternates).trim());
        let lent = std::fs::read_to_string(alternates).unwrap();
        let from = mount.repo(&format!("local/{name}"));
        assert_eq!(lent, format!("{}/.git/cachewfs/objects\n", from.display()));
        // All objects are in the mount.
        let count = git(&directory, &["count-objects", "-v"]);
        assert!(count.starts_with("count: 0\n"), "{count}");
        assert!(count.contains("\nin-pack: 0\n"), "{count}");
        assert_eq!(git(&directory, &["config", "gc.auto"]), "0\n");
    }
    assert!(target.join("plain/0").exists());

    let mut dissociate = Command::new(binary("cachewfs"));
    let ended = dissociate.arg("dissociate").arg(&target).output().unwrap();
    assert!(ended.status.success(), "{}", said(&ended));
    drop(mount);
    for path in ["", "lib/outer", "lib/outer/deep", "plain"] {
        let fsck = try_git(&target.join(path), &["fsck", "--full"]);
        assert!(fsck.status.success(), "{path}: {}", said(&fsck));
    }
}

#[test]
fn hostile_submodules_are_refused_as_by_git() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let victim = site.repo_of_files("victim", (1, 100));
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let mark = site.path().join("mark");
    let command = format!("ext::touch {}", mark.display());
    let option = format!("-u./touch {}", mark.display());
    for (number, url) in [&command, &option].into_iter().enumerate() {
        let name = format!("hostile{number}");
        let repo = site.repo_of_files(&name, (1, 100));
        add_submodule(&repo, ("sub", url), &victim);
        let target = site.path().join(&name);

        let output = clone(&site, &mount, (&name, &target));

        assert!(!target.join("sub/0").exists(), "{url}");
        assert!(!mark.exists(), "{url}: {}", said(&output));
        assert!(target.join("0").exists(), "{}", said(&output));
    }
    // A name that leads out of `.git/modules`.
    let repo = site.repo_of_files("outside", (1, 100));
    add_submodule(&repo, ("sub", "https://local/victim"), &victim);
    let modules = repo.work.join(".gitmodules");
    let text = std::fs::read_to_string(&modules).unwrap();
    write_file(&modules, text.replace("\"sub\"", "\"../../out\""));
    git(&repo.work, &["commit", "-qam", "a name"]);
    git(&repo.work, &["push", "-q", "origin", "main"]);
    let target = site.path().join("outside");
    let output = clone(&site, &mount, ("outside", &target));
    assert!(!site.path().join("out").exists() && !target.join("out").exists());
    assert!(!target.join("sub/0").exists(), "{}", said(&output));
}
