//! The status page: as JSON, as HTML, and in a browser.
//!
//! Browser tests need Chromium and are skipped, with a line that says so, where it isn't installed
//! (`packaging/test` installs it). `CACHEWFS_SCREENSHOTS` names a directory to keep screenshots in.

use std::path::{Path, PathBuf};
use std::process::Command;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{Html, IntoResponse as _};
use axum::routing::get;
use reqwest::{Client, Method};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::support::test_daemon::*;

/// Starts a daemon with a repository with two snapshots, an empty one, which can't be published,
/// and a name that upstream doesn't have, which needs no attention.
async fn start_with_repositories() -> TestDaemon {
    let daemon = TestDaemon::start().await;
    publish(&daemon).await;
    daemon
}

async fn publish(daemon: &TestDaemon) {
    let work = daemon.create_upstream();
    for index in 0..200_u64 {
        write_file(&work.join(format!("{index}/noise")), noise(index, 3000));
    }
    commit_and_push(&work, "one");
    daemon.refresh().await;
    write_file(&work.join("7/noise"), "other");
    commit_and_push(&work, "two");
    daemon.refresh().await;
    let empty = daemon.root.path().join("upstream/org/empty.git");
    git(
        daemon.root.path(),
        ["init", "-q", "--bare", empty.to_str().unwrap()],
    );
    for name in ["empty", "missing"] {
        let path = format!("/git/git.example.com/org/{name}/refresh");
        daemon.request(Method::POST, &path, &[]).await;
    }
}

async fn page(daemon: &TestDaemon) -> String {
    daemon.get("/", &[]).await.text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_json_reports_shared_bytes_and_failures() {
    let daemon = start_with_repositories().await;

    let report: Value = daemon
        .get("/api/v1/status", &[])
        .await
        .json()
        .await
        .unwrap();

    assert_eq!(report["readiness"], "ready");
    assert_eq!(report["repositories_total"], 2);
    assert_eq!(report["failing_total"], 1);
    let [empty, good] = report["repositories"].as_array().unwrap().as_slice() else {
        panic!("{report}");
    };
    assert_eq!(
        empty["repo"], "git.example.com/org/empty",
        "failures come first"
    );
    let error = empty["failure"]["message"].as_str().unwrap();
    assert!(error.contains("no branches and no tags"), "{error}");
    assert_eq!(empty["failure"]["tries"], 1);
    assert_eq!(
        (good["repo"].as_str(), good["state"].as_str()),
        (Some(REPO), Some("ready"))
    );
    assert!(good["failure"].is_null());
    assert!(good["lag_seconds"].as_u64().unwrap() < 60);
    let [second, first] = good["snapshots"].as_array().unwrap().as_slice() else {
        panic!("{good}");
    };
    assert!(first["shared_bytes"].is_null(), "{first}");
    let (size, shared) = (&second["bytes"], &second["shared_bytes"]);
    let share = shared.as_f64().unwrap() / size.as_f64().unwrap();
    assert!((0.5..1.0).contains(&share), "{second}");
    let published = daemon.get(&format!("/api/v1/repos/{REPO}"), &[]).await;
    let published: Value = published.json().await.unwrap();
    assert_eq!(second["snapshot"], published["published"]["snapshot"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_complete_without_its_script_and_has_no_inline_script() {
    let daemon = start_with_repositories().await;

    let response = daemon.get("/", &[]).await;

    let headers = response.headers().clone();
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert_eq!(headers["x-content-type-options"], "nosniff");
    let page = response.text().await.unwrap();
    for text in [
        "1 of 2 repositories needs attention",
        "Publishing failed: the repository has no branches and no tags.",
        &format!("<th scope=\"row\">{REPO}</th><td>ready</td>"),
        "<html lang=\"en\">",
    ] {
        assert!(page.contains(text), "no {text:?} in {page}");
    }
    for part in ["<style", " style=", "onload=", "onclick=", "javascript:"] {
        assert!(!page.contains(part), "{part:?} is in {page}");
    }
    assert_eq!(page.matches("<script").count(), 1);
    for (asset, kind) in [
        ("style.css", "text/css"),
        ("script.js", "text/javascript"),
        ("icon.svg", "image/svg"),
    ] {
        let asset = daemon.get(&format!("/status/{asset}"), &[]).await;
        assert_eq!(asset.status(), 200);
        assert!(
            asset.headers()["content-type"]
                .to_str()
                .unwrap()
                .starts_with(kind)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_without_repositories_explains_how_to_add_one() {
    let daemon = TestDaemon::start().await;

    let page = page(&daemon).await;

    assert!(page.contains("No repositories yet"), "{page}");
    assert!(
        page.contains("<section hidden>\n<h2 id=\"about-repositories\">Repositories"),
        "{page}"
    );
}

/// Returns the path of Chromium, or `None` if it is not installed.
#[expect(clippy::print_stdout, reason = "a skipped test has to tell why")]
fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let mut found = std::env::split_paths(&path)
        .flat_map(|directory| names.map(|name| directory.join(name)))
        .filter(|program| program.is_file());
    let found = found.next();
    if found.is_none() {
        println!("skipped: Chromium is not installed");
    }
    found
}

/// Loads a page, and lets its script run for some seconds. Returns the document after that.
async fn browse(chromium: &Path, url: String, screenshot: Option<&str>) -> String {
    let chromium = chromium.to_owned();
    let screenshot = screenshot.zip(std::env::var_os("CACHEWFS_SCREENSHOTS"));
    let screenshot = screenshot.map(|(name, directory)| PathBuf::from(directory).join(name));
    let run = move || {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new(chromium);
        command
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
            ])
            .args(["--no-first-run", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync"])
            .args(["--virtual-time-budget=5000", "--window-size=1400,1300"])
            .arg(format!("--user-data-dir={}", profile.path().display()));
        if let Some(screenshot) = screenshot {
            command.arg(format!("--screenshot={}", screenshot.display()));
        }
        let output = command.arg("--dump-dom").arg(url).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        assert!(!stderr.contains("Content Security Policy"), "{stderr}");
        String::from_utf8(output.stdout).unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_shows_the_page() {
    let Some(chromium) = chromium() else { return };
    let daemon = start_with_repositories().await;

    let shown = browse(&chromium, daemon.url("/"), Some("status.png")).await;

    assert!(
        shown.contains("data-live=\"yes\""),
        "the script did not run: {shown}"
    );
    assert!(
        shown.contains("1 of 2 repositories needs attention"),
        "{shown}"
    );
    assert!(
        shown.contains("id=\"silence\" role=\"alert\" hidden"),
        "{shown}"
    );
}

/// Starts a proxy of the daemon that serves the old `page` at `/`. Returns its URL.
async fn serve_old_page(daemon: &TestDaemon, page: String) -> String {
    let base = daemon.url("");
    let pass = async |State(base): State<String>, request: Request| {
        let answer = Client::new().get(format!("{base}{}", request.uri())).send();
        let answer = answer.await.unwrap();
        let kind = answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .to_owned();
        ([("content-type", kind)], answer.bytes().await.unwrap()).into_response()
    };
    let router = Router::new()
        .route("/", get(async move || Html(page)))
        .fallback(pass)
        .with_state(base);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_page_shows_later_changes() {
    let Some(chromium) = chromium() else { return };
    let daemon = TestDaemon::start().await;
    let old = page(&daemon).await;
    assert!(!old.contains(REPO));
    let url = serve_old_page(&daemon, old).await;
    publish(&daemon).await;

    let shown = browse(&chromium, url, None).await;

    assert!(
        shown.contains("1 of 2 repositories needs attention"),
        "{shown}"
    );
    let row = format!("<th scope=\"row\">{REPO}</th><td>ready</td>");
    assert!(shown.contains(&row), "{shown}");
    let section = |shown: &str, heading: &str| {
        let heading = format!(">{heading}</h2>");
        let (before, _) = shown.split_once(&heading).unwrap();
        before
            .rsplit_once("<h2")
            .unwrap()
            .0
            .trim_end()
            .ends_with("<section>")
    };
    assert!(
        section(&shown, "Needs attention"),
        "the section is still hidden: {shown}"
    );
    assert!(
        section(&shown, "Snapshots"),
        "the section is still hidden: {shown}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_page_says_when_the_daemon_is_gone() {
    let Some(chromium) = chromium() else { return };
    let daemon = TestDaemon::start().await;
    let old = page(&daemon).await;
    let script = daemon
        .get("/status/script.js", &[])
        .await
        .text()
        .await
        .unwrap();
    let router = Router::new()
        .route("/", get(async move || Html(old)))
        .route(
            "/status/script.js",
            get(async move || ([("content-type", "text/javascript")], script)),
        );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });

    let shown = browse(&chromium, url, None).await;

    assert!(
        shown.contains("<p id=\"silence\" role=\"alert\">"),
        "{shown}"
    );
}
