//! Hostile URLs, headers and bodies at every route. No part of them may become an option of git, a
//! path outside the data directory, or a request to a host that is not configured.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::http_upstream::HttpUpstream;
use crate::support::pkt;
use crate::support::process::start_process;
use crate::support::test_daemon::*;

/// A marker in every hostile text, to find it in command lines and paths.
const MARK: &str = "h0stile";

/// Hostile texts in place of a name, an id or a path. `OTHER` stands for a host that is not
/// configured.
const PIECES: &[&str] = &[
    "--upload-pack=touch%20h0stile",
    "-h0stile",
    "--h0stile",
    "--output=%2ftmp%2fh0stile",
    "-c%20core.sshCommand=h0stile",
    "../h0stile",
    "../../../../../../tmp/h0stile",
    "..%2f..%2fh0stile",
    "%2e%2e/%2e%2e/h0stile",
    "%2e%2e%2f%2e%2e%2fh0stile",
    ".%2e/h0stile",
    "%252e%252e%252fh0stile",
    "..%5c..%5ch0stile",
    "%2fetc%2fh0stile",
    "/h0stile",
    "//OTHER/h0stile",
    "h0stile%00",
    "h0stile%0a--all",
    "h0stile%0d%0aHost:%20OTHER",
    "h0stile;touch%20h0stile",
    "$(touch%20h0stile)",
    "%60touch%20h0stile%60",
    "ext::sh%20-c%20h0stile",
    "file:%2f%2f%2fh0stile",
    "http:%2f%2fOTHER%2fh0stile",
    "OTHER/h0stile",
    "@OTHER/h0stile",
    "h0stile@OTHER",
    "h0stile%40OTHER",
    "h0stile%23",
    "h0stile%3f",
    "h0stile%ff%fe",
    "h0stile..HEAD",
    "%5eh0stile",
    "h0stile%7e1",
    "h0stile%5e%7b/x%7d",
    "@%7bh0stile%7d",
    ":(exclude)h0stile",
    "*h0stile*",
    "refs%2fheads%2f--h0stile",
    "h0stile.lock",
    "h0stile.git/objects/info/alternates",
    "h0stile.git",
    "h0stile/current",
    "%C3%A4h0stile",
];

const NAMES: &[&str] = &[
    "git.example.com/org/repo",
    "git.example.com/org/repo.git",
    "git.example.com/X",
    "git.example.com/org/X",
    "X/org/repo",
    "OTHER/X",
];

const ROUTES: &[&str] = &[
    "/git/N/snapshot.tar.zst",
    "/git/N/mirror.tar.zst",
    "/git/N/snapshot/X.tar.zst",
    "/git/N/lfs-snapshot.tar.zst",
    "/git/N/lfs-snapshot/X.tar.zst",
    "/git/N/snapshot.bundle?base=X",
    "/git/N/snapshot.bundle?base=X&base=--h0stile",
    "/git/N/info/refs?service=git-upload-pack",
    "/git/N/info/refs?service=X",
    "/git/N/git-upload-pack",
    "/git/N/git-receive-pack",
    "/git/N/info/lfs/X",
    "/git/N/info/lfs/objects/batch?X",
    "/git/N/X",
    "/git/N/refresh",
    "/git/N/ensure-refs",
    "/api/v1/repos/N",
    "/api/v1/repos/N/X",
    "/api/v1/repos/N/forget?store=X",
    "/status/X",
    "/X",
    "http://OTHER/git/N/info/refs?service=git-upload-pack",
];

const HEADERS: &[&str] = &[
    "",
    "Git-Protocol: version=2:--upload-pack=h0stile",
    "Git-Protocol: version=2\r\nContent-Type: application/x-git-upload-pack-request",
    "X-Forwarded-Host: OTHER\r\nX-Forwarded-Proto: http\r\nForwarded: host=OTHER",
    "Range: bytes=--h0stile\r\nIf-Match: \"../../h0stile\"",
    "X-Cachew-Snapshot-Pin: etag:\"../../h0stile\"",
    "Content-Encoding: h0stile",
    "Authorization: Basic aDBzdGlsZTpoMHN0aWxl\r\nX-Cachewfs-Token: h0stile",
    "X-Request-Id: ../../h0stile\r\nVia: OTHER\r\nOrigin: http://OTHER",
    "Location: http://OTHER/h0stile\r\nReferer: http://OTHER/h0stile",
];

fn bodies() -> Vec<Vec<u8>> {
    let ensure = r#"{"refs":{"--upload-pack=h0stile":"","refs/heads/../../h0stile":"",
        "refs/heads/*h0stile":"","refs/heads/--h0stile":"--h0stile"},
        "commits":["--h0stile","../h0stile","h0stile^{}"]}"#;
    let good_name = r#"{"refs":{"refs/heads/--h0stile":"","refs/heads/h0stile;x":""}}"#;
    let lines = [
        "agent=--h0stile",
        "server-option=--h0stile",
        "object-format=h0stile",
        "",
        "want --h0stile\n",
        "want-ref ../../h0stile\n",
        "filter --h0stile\n",
        "deepen-not --h0stile\n",
        "ref-prefix --h0stile\n",
        "packfile-uris http://OTHER/h0stile\n",
        "done\n",
    ];
    let with = |command| [&[command], &lines[..]].concat();
    vec![
        Vec::new(),
        ensure.into(),
        good_name.into(),
        pkt::packets(&with("command=fetch")),
        pkt::packets(&with("command=ls-refs")),
        pkt::packets(&with("command=--h0stile")),
        b"0032want --h0stile\0--upload-pack=h0stile".to_vec(),
    ]
}

/// Returns all requests: each piece at each place of each route, with alternating methods, headers
/// and bodies.
fn requests(other: &str) -> Vec<Vec<u8>> {
    let methods = ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS"];
    let bodies = bodies();
    let mut requests = Vec::new();
    for (route_index, route) in ROUTES.iter().enumerate() {
        for (name_index, name) in NAMES.iter().enumerate() {
            for (piece_index, piece) in PIECES.iter().enumerate() {
                let has_piece = route.contains('X') || name.contains('X');
                let turn = requests.len() + route_index + 3 * name_index;
                if !has_piece && piece_index >= bodies.len() * 2 {
                    break;
                }
                // To save time, only each third combination is sent. Each piece still reaches each
                // route.
                if name_index > 1 && (turn + piece_index) % 3 != 0 {
                    continue;
                }
                let target = route.replace('N', name).replace('X', piece);
                let method = methods[if turn % 4 == 3 { turn % 6 } else { turn % 2 }];
                let headers = HEADERS[(turn / 2) % HEADERS.len()];
                let body = &bodies[turn % bodies.len()];
                let host = if turn % 5 == 0 { "OTHER" } else { "localhost" };
                let len = body.len();
                let head = format!(
                    "{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len}\r\n\
                     Connection: close\r\n{headers}"
                );
                let head = head.trim_end().replace("OTHER", other) + "\r\n\r\n";
                requests.push([head.as_bytes(), body].concat());
            }
        }
    }
    requests
}

/// Sends a request. Returns the status, or 0 if the daemon closed the connection without one.
async fn send(address: &str, request: &[u8]) -> u16 {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.ok()?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.ok()?;
        String::from_utf8_lossy(&head)
            .rsplit(' ')
            .next()?
            .parse()
            .ok()
    };
    let status = timeout(Duration::from_secs(50), exchange).await;
    let shown = String::from_utf8_lossy(request);
    status
        .unwrap_or_else(|_| panic!("no answer to {shown}"))
        .unwrap_or(0)
}

/// Starts a host that is not configured. It counts its connections.
async fn other_host() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let connected = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connected);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    (address, connected)
}

/// Creates a `git` that logs its arguments, each ended by a zero byte, and then runs the real git.
/// Returns the `PATH` with it, and the directory of the logs.
fn record_git(root: &Path) -> (String, PathBuf) {
    let (bin, log) = (root.join("bin"), root.join("arguments"));
    fs::create_dir_all(&log).unwrap();
    let path = std::env::var("PATH").unwrap();
    let real = std::env::split_paths(&path)
        .map(|directory| directory.join("git"))
        .find(|git| git.is_file())
        .unwrap();
    let script = format!(
        "#!/bin/sh\nprintf '%s\\0' \"$@\" \"protocol $GIT_PROTOCOL\" '' >> {}/$$\nexec {} \"$@\"\n",
        log.display(),
        real.display()
    );
    let git = bin.join("git");
    write_file(&git, script);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&git, mode).unwrap();
    (format!("{}:{path}", bin.display()), log)
}

/// Returns the arguments of all recorded commands.
fn recorded_commands(log: &Path) -> Vec<Vec<String>> {
    let mut commands = Vec::new();
    for entry in fs::read_dir(log).unwrap() {
        let text = fs::read(entry.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut command = Vec::new();
        for argument in text.split('\0') {
            if argument.is_empty() && !command.is_empty() {
                commands.push(std::mem::take(&mut command));
            } else {
                command.push(argument.to_owned());
            }
        }
    }
    commands
}

/// Returns whether an argument is harmless: it has no hostile text, or only in the path of a
/// mirror, in the URL of an upstream repository or in the full name of a ref.
fn is_harmless(arguments: &[String], index: usize, upstream: &str, data: &Path) -> bool {
    let argument = &arguments[index];
    let is_below = |path: &str| {
        let is_up = |part: Component<'_>| part == Component::ParentDir;
        !Path::new(path).components().any(is_up)
    };
    let is_after_options = arguments[..index].iter().any(|earlier| earlier == "--");
    !argument.contains(MARK)
        || Path::new(argument).starts_with(data) && is_below(argument)
        || argument.starts_with(upstream) && is_below(argument)
        || argument.starts_with("refs/") && is_after_options && !argument.contains("..")
}

/// Adds all paths below `directory` to `found`, except the content of `data`.
fn listing(directory: &Path, data: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let is_directory = entry.file_type().unwrap().is_dir();
        found.insert(entry.path());
        if is_directory && entry.path() != data {
            listing(&entry.path(), data, found);
        }
    }
}

/// Checks that no path of a request to upstream contains `..`.
fn check_upstream_requests(upstream: &HttpUpstream) {
    for seen in upstream.seen(&[]) {
        let target = seen.line.split_once(' ').unwrap().1;
        let path = target.split('?').next().unwrap();
        let lower = path
            .to_ascii_lowercase()
            .replace("%2e", ".")
            .replace("%2f", "/");
        assert!(lower.split('/').all(|part| part != ".."), "{}", seen.line);
    }
}

/// Checks that every hostile argument of git is harmless.
fn check_commands(log: &Path, upstream: &str, data: &Path) {
    let commands = recorded_commands(log);
    assert!(commands.len() > 20, "git ran too few commands");
    let mut hostile = 0;
    for arguments in &commands {
        for (index, argument) in arguments.iter().enumerate() {
            let is_harmless = is_harmless(arguments, index, upstream, data);
            assert!(is_harmless, "{argument:?} in {arguments:?}");
            hostile += usize::from(argument.contains(MARK));
        }
    }
    assert!(hostile > 0, "no valid name with the marker reached git");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_hostile_becomes_an_option_a_path_or_a_host() {
    let root = tempfile::tempdir().unwrap();
    let upstream = HttpUpstream::start(root.path().join("upstream")).await;
    let url = upstream.url();
    let bare = root.path().join("upstream/org/repo.git");
    let work = create_upstream(&bare, root.path().join("work"));
    commit_and_push(&work, "one");
    let (path, log) = record_git(root.path());
    let config = format!("jobs_per_host = 2\n[upstreams]\n'git.example.com' = '{url}'\n");
    let daemon = start_process(&root.path().join("daemon"), &config, &[("PATH", &path)]);
    let address = daemon.address().to_string();
    let refresh =
        format!("POST /git/{REPO}/refresh HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(send(&address, refresh.as_bytes()).await, 200);
    let (other, connected) = other_host().await;
    let data = root.path().join("daemon/data");
    let (mut before, mut after) = (BTreeSet::new(), BTreeSet::new());
    listing(root.path(), &data, &mut before);

    let requests = requests(&other);
    let statuses: Vec<u16> = stream::iter(&requests)
        .map(|request| send(&address, request))
        .buffered(16)
        .collect()
        .await;

    for (request, status) in requests.iter().zip(&statuses) {
        let shown = String::from_utf8_lossy(request);
        // 502 is allowed: upstream has no such repository, and its error is not recognised.
        assert!(
            *status < 500 || [502, 503].contains(status),
            "{status} for {shown}"
        );
    }
    assert!(statuses.iter().filter(|&&status| status == 0).count() < statuses.len() / 20);
    assert_eq!(
        connected.load(Ordering::Relaxed),
        0,
        "the daemon connected to a host that is not configured"
    );
    check_upstream_requests(&upstream);
    check_commands(&log, &url, &data);
    listing(root.path(), &data, &mut after);
    let new: Vec<_> = after
        .difference(&before)
        .filter(|path| !path.starts_with(&log))
        .collect();
    assert_eq!(new, [] as [&PathBuf; 0]);
    for (part, only) in [
        ("mirrors", "git.example.com"),
        ("store/v1", "git.example.com"),
    ] {
        for entry in fs::read_dir(data.join(part)).unwrap() {
            assert_eq!(entry.unwrap().file_name(), only);
        }
    }
    for path in ["/tmp/h0stile", "/etc/h0stile", "/h0stile", "h0stile"] {
        assert!(!Path::new(path).exists(), "{path} exists");
    }
    let health = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(send(&address, health).await, 200);
}
