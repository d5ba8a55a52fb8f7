//! Checks FUSE, the kernel and git.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cachewfs_fuse::kernel_has_passthrough;

use super::Check;
use crate::git;

/// The oldest kernel with `statx(2)`, which finds dead mounts.
const OLDEST_KERNEL: (u32, u32) = (4, 11);
/// The oldest git that the tests run with: Debian 12's.
const OLDEST_GIT: (u32, u32) = (2, 39);

pub(super) fn check() -> Vec<Check> {
    vec![
        device(),
        fusermount(),
        fuse_conf(),
        kernel_version(),
        installed_git(),
    ]
}

fn device() -> Check {
    const NAME: &str = "/dev/fuse";
    let opened = std::fs::File::options().read(true).write(true).open(NAME);
    let Err(error) = opened else {
        return Check::ok(NAME, "it can be opened");
    };
    // `filesystems` lists `fuse` once the module is loaded, or if the kernel has it built in.
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let is_loaded = known
        .lines()
        .any(|line| line.trim_start_matches("nodev").trim() == "fuse");
    match error.kind() {
        ErrorKind::PermissionDenied => {
            Check::wrong(NAME, format!("this user may not open it: {error}"))
                .remedy("in a container, allow the device: docker run --device /dev/fuse")
                .command("sudo chmod 666 /dev/fuse")
        }
        _ if !is_loaded => Check::wrong(NAME, format!("the module fuse is not loaded: {error}"))
            .command("sudo modprobe fuse"),
        ErrorKind::NotFound => Check::wrong(NAME, "the device is missing")
            .remedy("in a container, pass it: docker run --device /dev/fuse")
            .command("sudo mknod -m 666 /dev/fuse c 10 229"),
        _ => {
            Check::wrong(NAME, format!("it can't be opened: {error}")).command("sudo modprobe fuse")
        }
    }
}

fn fusermount() -> Check {
    const NAME: &str = "fusermount3";
    let is_root = rustix::process::geteuid().is_root();
    let Some(path) = find_program(NAME) else {
        let install = "sudo apt install fuse3";
        return if is_root {
            Check::warning(NAME, "it is not installed: only root can mount").command(install)
        } else {
            Check::wrong(
                NAME,
                "it is not installed: users other than root can't mount",
            )
            .command(install)
        };
    };
    let mode = path
        .metadata()
        .map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o4000 == 0 && !is_root {
        let reason = format!("{} doesn't run as root, so it can't mount", path.display());
        return Check::warning(NAME, reason).command(format!("sudo chmod u+s {}", path.display()));
    }
    Check::ok(NAME, path.display().to_string())
}

/// Looks for a program in `PATH`, and in `/bin`, where mounts look too.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<_> = std::env::split_paths(&path).collect();
    directories.push("/bin".into());
    let candidates = directories.iter().map(|directory| directory.join(name));
    candidates.into_iter().find(|candidate| candidate.is_file())
}

fn fuse_conf() -> Check {
    const NAME: &str = "user_allow_other";
    let text = std::fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    if text.lines().any(|line| line.trim() == NAME) {
        return Check::ok(NAME, "/etc/fuse.conf has it");
    }
    let reason = "/etc/fuse.conf lacks it: users other than root can't mount with allow_other";
    Check::warning(NAME, reason)
        .remedy("this matters only if one user mounts for others")
        .command("echo user_allow_other | sudo tee -a /etc/fuse.conf")
}

/// Returns the version of the running kernel, as `uname -r` prints it.
pub(crate) fn kernel() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

fn kernel_version() -> Check {
    const NAME: &str = "kernel";
    let release = kernel();
    match parse_version(&release) {
        Some(version) if version < OLDEST_KERNEL => {
            Check::wrong(NAME, format!("Linux {release} is too old"))
                .remedy("install Linux 4.11 or later; with 6.9 or later, mounts are faster")
        }
        Some(_) if !kernel_has_passthrough() => {
            let reason = format!(
                "Linux {release} is too old for passthrough: the mount's process answers each \
                 read that is not in the page cache"
            );
            Check::warning(NAME, reason).remedy("Linux 6.9 or later is faster")
        }
        _ => Check::ok(NAME, format!("Linux {release}")),
    }
}

/// Returns what `git version` prints, or `None` if git can't be run.
pub(crate) fn git_version() -> Option<String> {
    let printed = String::from_utf8(git::ask(None, &["version"])?).ok()?;
    Some(printed.trim().to_owned())
}

fn installed_git() -> Check {
    const NAME: &str = "git";
    const REMEDY: &str = "install git 2.39 or later";
    let Some(printed) = git_version() else {
        return Check::wrong(NAME, "it can't be run")
            .remedy(REMEDY)
            .command("sudo apt install git");
    };
    let version = printed.strip_prefix("git version ").unwrap_or(&printed);
    match parse_version(version) {
        Some(found) if found < OLDEST_GIT => {
            Check::wrong(NAME, format!("{version} is too old")).remedy(REMEDY)
        }
        // A version that can't be parsed is accepted: it may be the user's own build.
        _ => Check::ok(NAME, version),
    }
}

/// Parses the first two numbers of a version, such as `6.18.44-generic`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text
        .split(|letter: char| !letter.is_ascii_digit())
        .map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Returns the pretty name of the distribution.
pub(crate) fn distribution() -> Option<String> {
    let text = std::fs::read_to_string(Path::new("/etc/os-release")).ok()?;
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(name.trim_matches('"').to_owned())
}
