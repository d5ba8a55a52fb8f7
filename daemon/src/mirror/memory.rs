//! The memory limit of git processes, and whether a process came near to it.
//!
//! The kernel enforces the limit (`RLIMIT_DATA` of `setrlimit(2)`). It counts the memory that a
//! process allocates, but not the packs that it maps. git's children inherit the limit.
//!
//! If git can't allocate memory, it exits with the same code as for its other errors, and its
//! message differs between versions. So the daemon samples git's memory while it runs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::process::Child;
use tracing::warn;

/// The lowest limit, in bytes, however small the machine is.
const MIN_LIMIT: u64 = 512 << 20;
/// How often the daemon samples git's memory. git needs longer than this to fill the lowest limit.
const SAMPLE_PERIOD: Duration = Duration::from_millis(50);
/// At most this many processes of one command are sampled.
const MAX_PROCESSES: usize = 32;

/// Returns how many bytes each git process may allocate: half of the memory of the machine, or of
/// the control group that the daemon runs in.
pub(super) fn default_limit() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let machine = bytes_of(&machine, "MemTotal:").unwrap_or(u64::MAX);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let memory = limits_of_groups(&groups).fold(machine, u64::min);
    (memory / 2).max(MIN_LIMIT)
}

/// Returns the limits of the control groups in `/proc/self/cgroup` and of their ancestors.
fn limits_of_groups(groups: &str) -> impl Iterator<Item = u64> {
    groups
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            // Version 2 of control groups has one hierarchy, without a name. Version 1 has a
            // hierarchy of its own for memory.
            let (root, file) = match fields.next()? {
                "" => ("/sys/fs/cgroup", "memory.max"),
                "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
                _ => return None,
            };
            let group = Path::new(fields.next()?).strip_prefix("/").ok()?;
            let limit = |group: &Path| {
                let limit = fs::read_to_string(Path::new(root).join(group).join(file)).ok()?;
                // "max" can't be parsed, and means that there is no limit.
                limit.trim().parse().ok()
            };
            Some(group.ancestors().filter_map(limit).collect::<Vec<u64>>())
        })
        .flatten()
}

/// Limits and samples the memory of a command's processes.
#[derive(Debug)]
pub(super) struct MemoryWatch {
    pid: Option<Pid>,
    limit: u64,
    /// The largest sample of one process, in bytes.
    peak: u64,
}

impl MemoryWatch {
    /// Limits `child` and all processes that it starts to `limit` bytes each.
    pub(super) fn bound(child: &Child, limit: u64) -> Self {
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        let mut watch = Self {
            pid: pid.and_then(Pid::from_raw),
            limit,
            peak: 0,
        };
        watch.sample();
        watch
    }

    /// Waits for `work` and samples the memory meanwhile.
    pub(super) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(SAMPLE_PERIOD) => self.sample(),
            }
        }
    }

    /// Samples git and its descendants. Limits each of them, because git may have started some
    /// before it was limited itself.
    fn sample(&mut self) {
        // The processes form a tree, and this vector grows while the loop walks it.
        let mut processes: Vec<Pid> = self.pid.into_iter().collect();
        for index in 0..MAX_PROCESSES {
            let Some(pid) = processes.get(index).copied() else {
                break;
            };
            bound(pid, self.limit);
            self.peak = self.peak.max(data_of(pid));
            processes.extend(children_of(pid));
        }
    }

    /// Returns whether a process used more than half of its limit.
    ///
    /// The allocation that fails is never sampled. But git grows its buffers by half, so a sample
    /// before it shows a large part of the limit already.
    pub(super) fn was_near_limit(&self) -> bool {
        self.peak > self.limit / 2
    }
}

/// Limits one process to `limit` bytes.
fn bound(pid: Pid, limit: u64) {
    let rlimit = Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    match prlimit(Some(pid), Resource::Data, rlimit) {
        // The process has ended; or the daemon itself has a lower limit, which git inherits.
        Ok(_) | Err(Errno::SRCH | Errno::PERM) => {}
        Err(error) => warn!(%error, "Can't limit the memory of git"),
    }
}

/// Returns the length of a process's data segment in bytes, or 0 if the process has ended.
fn data_of(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid()));
    bytes_of(&status.unwrap_or_default(), "VmData:").unwrap_or(0)
}

fn children_of(pid: Pid) -> Vec<Pid> {
    let pid = pid.as_raw_pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    children
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
        .collect()
}

/// Returns the value of a field of a file in `/proc`, converted from KiB to bytes.
fn bytes_of(text: &str, field: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1 << 10)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::mirror::{Git, GitError};

    #[test]
    fn fields_of_proc_are_read_in_bytes() {
        let status = "VmPeak:\t    9 kB\nVmData:\t    2048 kB\nVmStk:\t 132 kB\n";

        assert_eq!(bytes_of(status, "VmData:"), Some(2 << 20));
        assert_eq!(bytes_of(status, "VmSwap:"), None);
    }

    #[test]
    fn git_may_take_half_of_the_memory_at_most() {
        let machine = fs::read_to_string("/proc/meminfo").unwrap();
        let machine = bytes_of(&machine, "MemTotal:").unwrap();

        let limit = default_limit();

        assert!(
            limit >= MIN_LIMIT && limit <= (machine / 2).max(MIN_LIMIT),
            "{limit}"
        );
        assert_eq!(
            limits_of_groups("0::/\n1:cpu:/x\n9:memory:/no/such\nx\n").min(),
            limits_of_groups("0::/\n9:memory:/\n").min()
        );
    }

    /// Starts a server that answers each request with endless bytes, which could fill all memory
    /// within seconds. Returns its URL.
    async fn endless_upstream() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, piece) = (listener.local_addr().unwrap(), vec![b'0'; 256 << 10]);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let read = client.read(&mut [0; 4096]).await.unwrap();
                assert!(read > 0, "there is no request");
                let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
                client.write_all(head).await.unwrap();
                while client.write_all(&piece).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
        });
        format!("http://{address}/endless")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_listing_without_end_runs_git_out_of_memory() {
        let url = endless_upstream().await;
        let git = Git::new("/dev/null".into(), CancellationToken::new());
        let git = git.with_memory_limit(64 << 20);
        let list = git.command("ls-remote").args([url]);

        let listed = tokio::task::spawn_blocking(|| list.output()).await.unwrap();

        let error = listed.unwrap_err();
        assert!(matches!(error, GitError::OutOfMemory { .. }), "{error:?}");
        assert!(error.to_string().contains("64 MiB"), "{error}");
        assert_eq!(error.exit_code(), None, "no evidence of damage");
    }
}
