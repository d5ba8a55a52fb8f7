//! Kills git processes that a killed daemon left running.
//!
//! Such processes would go on to write into mirrors that the new daemon owns. Their environment
//! identifies them: it names the git configuration of this data directory, and only one daemon at a
//! time has the lock of the directory.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, getpid, kill_process};
use tokio::time::sleep;

/// How long between two scans. A process that is killed may just be starting another.
const SCAN_PERIOD: Duration = Duration::from_millis(10);
/// At most this many scans. A process that survives them all is in the kernel, waiting for a disk.
const MAX_SCANS: u32 = 500;

/// Kills all processes that run with `git_config`, and returns their number.
pub(crate) async fn kill_orphans(git_config: &Path) -> usize {
    let mut wanted = b"GIT_CONFIG_GLOBAL=".to_vec();
    wanted.extend(git_config.as_os_str().as_encoded_bytes());
    let mut killed = std::collections::HashSet::new();
    for _ in 0..MAX_SCANS {
        let orphans = running_with(&wanted);
        if orphans.is_empty() {
            break;
        }
        for pid in orphans {
            // The process may have ended since the scan.
            kill_process(pid, Signal::KILL).ok();
            killed.insert(pid);
        }
        sleep(SCAN_PERIOD).await;
    }
    killed.len()
}

/// Returns all other processes that have `variable` in their environment. Returns none if there is
/// no `/proc`.
fn running_with(variable: &[u8]) -> Vec<Pid> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let is_one = |process: &std::fs::DirEntry| {
        // The file can't be read if the process is another user's, and is empty if it has ended.
        let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
        environment
            .split(|&byte| byte == 0)
            .any(|found| found == variable)
    };
    processes
        .filter_map(Result::ok)
        .filter(|process| {
            process
                .file_name()
                .as_encoded_bytes()
                .iter()
                .all(u8::is_ascii_digit)
        })
        .filter(is_one)
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .filter(|pid| *pid != getpid())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[tokio::test]
    async fn only_processes_of_this_data_directory_are_killed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let sleeper = |name: &str| {
            let mut command = Command::new("sleep");
            command.arg("600").env("GIT_CONFIG_GLOBAL", path(name));
            command.stdin(Stdio::null()).spawn().unwrap()
        };
        let (mut ours, mut others) = (sleeper("gitconfig"), sleeper("gitconfig2"));
        let has = |variable: &str| {
            let variable = format!("GIT_CONFIG_GLOBAL={}", path(variable).display());
            !running_with(variable.as_bytes()).is_empty()
        };
        // Between fork and exec, the processes still have the environment of this test.
        while !has("gitconfig") || !has("gitconfig2") {
            sleep(SCAN_PERIOD).await;
        }

        assert_eq!(kill_orphans(&path("gitconfig")).await, 1);

        assert!(!ours.wait().unwrap().success());
        assert!(others.try_wait().unwrap().is_none());
        others.kill().unwrap();
        others.wait().unwrap();
    }
}
