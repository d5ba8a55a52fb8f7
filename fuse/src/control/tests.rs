//! Tests of both ends of the control socket, without a mount.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use cachewfs_format::RepoName;
use proptest::collection::vec;
use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use rustix::process::{Uid, geteuid};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::client::connect_in;
use super::protocol::{ControlAnswer, ControlRequest, Reply};
use super::socket::{remove_dead_sockets, socket_name};
use super::socket_directory::SocketDirectory;
use super::{Client, ClientError, ConnectError, Server};
use crate::mount_table::DeviceNumber;
use crate::testing::{Bench, REPO, archive, bench};

/// Longer than the server waits for a request, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn device() -> DeviceNumber {
    DeviceNumber("0:7".to_owned())
}

/// A server, and the directory of its socket.
struct Served {
    server: Server,
    bench: Bench,
    directory: TempDir,
}

impl Served {
    fn start() -> Self {
        let directory = TempDir::new().unwrap();
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o700)).unwrap();
        let bench = bench(archive("main", b"PACK", &[]));
        let sockets = SocketDirectory::open(directory.path(), geteuid()).unwrap();
        let server = Server::bind(sockets, &device(), false).unwrap();
        server.serve(bench.fs.repositories());
        Self {
            server,
            bench,
            directory,
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join(socket_name(&device()))
    }

    async fn connect(&self) -> Client {
        let directory = (self.directory.path().to_owned(), geteuid());
        connect_in(directory, &socket_name(&device()))
            .await
            .unwrap()
    }

    async fn ask(&self, request: &ControlRequest) -> Result<ControlAnswer, ClientError> {
        self.connect().await.call(request, |_| ()).await
    }
}

#[tokio::test]
async fn idle_connections_are_few_and_do_not_last() {
    let served = Served::start();
    let mode = std::fs::metadata(served.socket())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(UnixStream::connect(served.socket()).await.unwrap());
    }
    // The server accepts connections in order, so it has seen the idle ones before this one.
    let busy = served.ask(&ControlRequest::Status).await;
    let mut refused = 0;
    for mut stream in idle {
        let mut said = String::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut said)).await;
        assert!(ended.is_ok(), "an idle connection lasts");
        refused += usize::from(said.contains("too many connections"));
    }

    assert!(
        matches!(busy, Err(ClientError::Failed(_) | ClientError::Lost(_))),
        "{busy:?}"
    );
    assert!((150..300).contains(&refused), "{refused} refused");
    assert!(served.ask(&ControlRequest::Status).await.is_ok());
}

#[tokio::test]
async fn only_the_sockets_of_dead_mounts_are_removed() {
    let served = Served::start();
    let path = |name: &str| served.directory.path().join(name);
    // Dropping a listener leaves the file behind, as SIGKILL does.
    for left in ["0-8.sock", "0-9.sock.new", "0-10.sock.new"] {
        drop(std::os::unix::net::UnixListener::bind(path(left)).unwrap());
    }
    std::fs::File::create(path("other")).unwrap();
    // A mount that just starts has a socket of this name, too, but not for years.
    let epoch = Timespec::default();
    let times = Timestamps {
        last_access: epoch,
        last_modification: epoch,
    };
    rustix::fs::utimensat(CWD, path("0-9.sock.new"), &times, AtFlags::empty()).unwrap();

    let sockets = SocketDirectory::open(served.directory.path(), geteuid()).unwrap();
    remove_dead_sockets(&sockets).await;

    assert!(!path("0-8.sock").exists() && !path("0-9.sock.new").exists());
    assert!(path("0-10.sock.new").exists() && path("other").exists());
    assert!(served.ask(&ControlRequest::Status).await.is_ok());
}

#[tokio::test]
async fn a_mount_that_ends_removes_its_socket_and_no_other() {
    let served = Served::start();
    let sockets = SocketDirectory::open(served.directory.path(), geteuid()).unwrap();
    let socket = served.socket();

    // The number of the first filesystem was given to another one.
    let next = Server::bind(sockets, &device(), false).unwrap();
    served.bench.fs.repositories().tasks().end_all().await;
    drop(served.server);

    assert!(socket.exists());
    drop(next);
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_clone_is_registered_only_for_a_repository_that_is_shown() {
    let served = Served::start();
    let repo = |name: &str| RepoName::parse(name).unwrap();
    let register = |repo, directory: &str| ControlRequest::RegisterClone {
        repo,
        directory: directory.into(),
    };

    let absent = served.ask(&register(repo("host/absent"), "/a")).await;
    let early = served.ask(&register(repo(REPO), "/b")).await;
    served
        .ask(&ControlRequest::Resolve { repo: repo(REPO) })
        .await
        .unwrap();
    let relative = served.ask(&register(repo(REPO), "c")).await;
    served.ask(&register(repo(REPO), "/d")).await.unwrap();

    for refused in [absent, early, relative] {
        assert!(
            matches!(refused, Err(ClientError::Failed(_))),
            "{refused:?}"
        );
    }
    let Ok(ControlAnswer::Status(status)) = served.ask(&ControlRequest::Status).await else {
        panic!("there is a status");
    };
    assert_eq!(status.repos[0].clones, [Path::new("/d")]);
}

#[tokio::test]
async fn names_that_are_looked_up_in_vain_are_forgotten() {
    let served = Served::start();
    let repositories = served.bench.fs.repositories();

    for number in 0..10_000 {
        let name = RepoName::parse(&format!("host/absent/{number}")).unwrap();
        repositories.resolve(&name).await.unwrap_err();
    }

    let remembered = repositories.report().len();
    assert!(remembered < 5000, "{remembered}");
}

/// Generates the input of a hostile client: arbitrary bytes, and damaged or odd requests.
fn sent() -> impl Strategy<Value = Vec<u8>> {
    let request = concat!(
        r#"\{"request":"(status|unpin|register_clone|refresh|x)","#,
        r#"("repo":"[a-z/.\x00-]{0,9}",)?"directory":"[/a-z]{0,9}"\}"#
    );
    let damaged = (request, 0..60_usize, any::<u8>()).prop_map(|(text, at, byte)| {
        let mut bytes = text.into_bytes();
        if let Some(there) = bytes.get_mut(at) {
            *there = byte;
        }
        bytes
    });
    let endless = Just(vec![b'['; 100_000]);
    prop_oneof![4 => vec(any::<u8>(), 0..100), 8 => damaged, 1 => endless]
}

#[test]
fn no_request_ends_the_server() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    let served = runtime.block_on(async { Served::start() });

    proptest!(ProptestConfig::with_cases(200), |(mut request in sent())| {
        request.push(b'\n');
        let said = runtime.block_on(async {
            let mut stream = UnixStream::connect(served.socket()).await.unwrap();
            stream.write_all(&request).await.ok();
            let mut said = Vec::new();
            let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await;
            assert!(ended.is_ok(), "no answer");
            said
        });
        for line in said.split_inclusive(|&byte| byte == b'\n') {
            prop_assert!(serde_json::from_slice::<Reply>(line).is_ok(), "{line:?}");
        }
    });

    let status = runtime.block_on(served.ask(&ControlRequest::Status));
    assert!(status.is_ok(), "{status:?}");
}

/// Covers a directory of another user, and another user's process in a directory of ours.
/// `git credential-cache--daemon` stands for any program of that user.
#[tokio::test]
async fn a_socket_of_another_user_is_not_believed() {
    const STRANGER: u32 = 65534;
    if !geteuid().is_root() {
        return;
    }
    let directory = TempDir::new().unwrap();
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let sockets = directory.path().join("sockets");
    std::fs::create_dir(&sockets).unwrap();
    std::fs::set_permissions(&sockets, Permissions::from_mode(0o700)).unwrap();
    chown(&sockets, Some(STRANGER), Some(STRANGER)).unwrap();
    let mut listening = std::os::unix::process::CommandExt::uid(
        Command::new("git")
            .args(["credential-cache--daemon", "--debug"])
            .arg(sockets.join("a.sock"))
            .current_dir("/")
            .env("HOME", "/")
            .stdout(Stdio::piped()),
        STRANGER,
    )
    .spawn()
    .unwrap();
    let mut ready = [0; 3];
    std::io::Read::read_exact(&mut listening.stdout.take().unwrap(), &mut ready).unwrap();
    assert_eq!(&ready, b"ok\n");

    let foreign = connect_in((sockets.clone(), Uid::ROOT), "a.sock").await;
    chown(&sockets, Some(0), Some(0)).unwrap();
    let planted = connect_in((sockets.clone(), Uid::ROOT), "a.sock").await;

    listening.kill().unwrap();
    listening.wait().unwrap();
    let foreign = foreign.unwrap_err();
    assert!(
        matches!(foreign, ConnectError::SocketDirectory(_)),
        "{foreign:?}"
    );
    let planted = planted.unwrap_err();
    assert!(
        matches!(planted, ConnectError::Stranger { uid: STRANGER }),
        "{planted:?}"
    );
}
