//! Runs real daemons, real mounts and real git for tests, and ends them all when a test ends.
//!
//! | file | has |
//! | --- | --- |
//! | `site` | the directories of one test, and short ways to start everything in them |
//! | `process`, `mount` | a running `cachewfsd`, a running `cachewfs mount` |
//! | `other_user` | runs programs as a user other than root |
//! | `git`, `git_version` | runs git, makes repositories, finds the installed versions |
//! | `git_daemon`, `git_http` | upstream servers |
//! | `s3`, `bucket`, `with_s3` | a real S3 server, and the objects in its buckets |
//! | `forward` | forwards connections; `proxy`, `recording_proxy` and `link` are built on it |
//! | `proxy`, `recording_proxy`, `link` | damages, records or slows down connections |
//! | `network` | network namespaces that fail on demand |
//! | `disk` | files, and small filesystems that fill up |
//! | `names`, `freezer` | host names that change, and processes that are frozen |
//! | `archive`, `http`, `wait`, `dice` | verifying archives, requests, waiting, seeded choices |

#![expect(
    clippy::unwrap_used,
    reason = "a test that can't be set up has to fail"
)]

mod archive;
mod bucket;
mod dice;
mod disk;
mod forward;
mod freezer;
mod git;
mod git_daemon;
mod git_http;
mod git_version;
mod http;
mod link;
mod mount;
mod names;
mod network;
mod other_user;
mod process;
mod proxy;
mod recording_proxy;
mod s3;
mod site;
mod wait;

pub use archive::{extract_archive, verify_archive};
pub use dice::Dice;
pub use disk::{SmallDisk, bytes_below, write_file};
pub use freezer::Freezer;
pub use git::{
    GitRepo, add_loose_objects, assert_index_checksum, git, git_at_time, git_command,
    git_with_input, init_bare, try_git,
};
pub use git_daemon::GitDaemon;
pub use git_http::GitHttpServer;
pub use git_version::GitVersion;
pub use http::{HttpAnswer, http_request};
pub use link::Link;
pub use mount::MountProcess;
pub use names::HostNames;
pub use network::Network;
pub use other_user::{OtherUser, USER, said};
pub use process::{DaemonProcess, binary, free_address, run, served_address};
pub use proxy::{Fault, Proxy};
pub use recording_proxy::RecordingProxy;
pub use s3::{S3Server, TestBucket, s3_bucket};
pub use site::Site;
pub use wait::{run_with_deadline, wait_until, wait_up_to};

/// Returns whether this machine can mount with FUSE.
///
/// If it can't, prints that the test is skipped, or panics if `CACHEWFS_REQUIRE_FUSE` is set.
#[expect(clippy::print_stdout, reason = "a skipped test has to say so")]
pub fn can_mount() -> bool {
    let can = std::path::Path::new("/dev/fuse").exists() && rustix::process::geteuid().is_root();
    if !can {
        assert!(
            std::env::var_os("CACHEWFS_REQUIRE_FUSE").is_none(),
            "no /dev/fuse, or not root"
        );
        println!("skipped: no /dev/fuse, or not root");
    }
    can
}
