//! FUSE, the kernel, git, updatedb, and the default cache.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use cachewfs_tests::{OtherUser, Site, binary, can_mount, write_file};

use super::Machine;

/// A URL that is only there so that the mounts of other tests aren't looked at.
const NOBODY: &str = "http://127.0.0.1:9";

fn program(path: &Path, script: &str) {
    write_file(path, script);
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_machine_that_lacks_everything_is_told_all_of_it() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let programs = site.path().join("old");
    program(
        &programs.join("git"),
        "#!/bin/sh\necho git version 2.30.1\n",
    );
    let path = format!("PATH={}", programs.display());
    let mut machine = Machine::new(&site)
        .with_etc(&[
            ("fuse.conf", "#user_allow_other\n"),
            (
                "updatedb.conf",
                "PRUNEFS = \"nfs proc\"\nPRUNEPATHS=\"/tmp\"\n",
            ),
        ])
        .with("mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3")
        .with("mount -t tmpfs -o ro none /var/cache")
        .with(&format!("set -- setarch --uname-2.6 env {path} \"$@\""));

    let found = machine.doctor(&[NOBODY]);

    assert_eq!(found.code, Some(1));
    assert_eq!(found.outcome("/dev/fuse"), "wrong");
    found.assert("user_allow_other", "warning", "lacks it");
    found.assert("kernel", "wrong", "Linux 2.6");
    found.assert("git", "wrong", "2.30.1 is too old");
    found.assert(
        "updatedb",
        "warning",
        "PRUNEFS in /etc/updatedb.conf lacks fuse.cachewfs",
    );
    found.assert("cache", "wrong", "Read-only file system");
    if !Path::new("/bin/fusermount3").exists() {
        found.assert("fusermount3", "warning", "only root can mount");
    }

    // The command mends it.
    let command = found.of("updatedb")["command"].as_str().unwrap().to_owned();
    let file = site.path().join("machine/etc/updatedb.conf");
    let command = command.replace("sudo ", "");
    let command = command.replace("/etc/updatedb.conf", &file.display().to_string());
    assert!(
        Command::new("sh")
            .args(["-c", &command])
            .status()
            .unwrap()
            .success()
    );
    let mended = fs::read_to_string(&file).unwrap();
    assert!(
        mended.starts_with("PRUNEFS = \"fuse.cachewfs nfs proc\"\n"),
        "{mended}"
    );
}

#[test]
fn a_machine_with_everything_is_well() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let daemon = site.daemon();
    let programs = site.path().join("programs");
    program(&programs.join("fusermount3"), "#!/bin/sh\n");
    let path = std::env::var("PATH").unwrap();
    let mut machine = Machine::new(&site)
        .with_etc(&[
            ("fuse.conf", "mount_max = 10\nuser_allow_other\n"),
            ("updatedb.conf", "PRUNEFS=\"nfs fuse.cachewfs\"\n"),
        ])
        .with("mount -t tmpfs none /var/cache")
        .env("PATH", &format!("{}:{path}", programs.display()));

    let found = machine.doctor(&[&daemon.url()]);

    assert_eq!(found.wrong(), Vec::<&str>::new(), "{found:?}");
    assert_eq!(found.code, Some(0));
    for name in [
        "/dev/fuse",
        "fusermount3",
        "user_allow_other",
        "git",
        "updatedb",
        "cache",
    ] {
        assert_eq!(found.outcome(name), "ok", "{found:?}");
    }
    let steps = ["name", "route", "connection", "HTTP", "token"];
    for step in steps.map(|step| format!("daemon {step}")) {
        assert_eq!(found.outcome(&step), "ok", "{found:?}");
    }
    assert_eq!(found.outcome("clock"), "ok");
    assert_eq!(found.outcome("daemon TLS"), "skipped");
}

#[test]
fn a_cache_on_overlayfs_has_no_passthrough() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let stacked = "mount -t tmpfs none /mnt && mkdir /mnt/lower /mnt/upper /mnt/work && \
                   mount -t overlay none -o \
                   lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work /var/cache";

    let found = Machine::new(&site).with(stacked).doctor(&[NOBODY]);

    found.assert("passthrough", "warning", "overlayfs");
    assert_eq!(found.outcome("cache"), "ok");
}

#[test]
fn a_user_without_rights_is_told_so_in_text() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let user = OtherUser::new(&site);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c"]);
    command.arg(
        "mount -t tmpfs none /dev && mknod -m 600 /dev/fuse c 10 229 && \
                 mknod -m 666 /dev/null c 1 3 && exec setpriv --reuid 64999 --clear-groups \"$@\"",
    );
    let program = binary("cachewfs");
    command
        .arg("sh")
        .arg(site.path().join(program.file_name().unwrap()));
    command.args(["doctor", NOBODY]).current_dir("/");
    command.env("HOME", &user.tmp);

    let output = command.output().unwrap();

    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("wrong    /dev/fuse: this user may not open it"),
        "{said}"
    );
    assert!(
        said.contains("\n         $ sudo chmod 666 /dev/fuse\n"),
        "{said}"
    );
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        complaint.starts_with("cachewfs: something is wrong with this machine"),
        "{complaint}"
    );
    assert_eq!(output.status.code(), Some(1));
}
