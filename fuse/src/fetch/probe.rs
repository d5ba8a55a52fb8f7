//! Asks a daemon step by step, to find out where a connection to it fails.
//!
//! ```text
//! name ─► route ─► connection ─► clock ─► TLS ─► HTTP ─► token
//! └── not with a proxy ───────┘
//! ```
//!
//! The steps after the first that fails are skipped. A wrong clock alone fails no request, so the
//! steps after it are tried. But it is the reason if TLS then refuses a certificate.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, SystemTime};

use cachewfs_format::api::REPOS_PATH;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, DATE, LOCATION};
use reqwest::{Response, StatusCode, Url};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::FetchError;
use super::answer::{header, refusal, whole_body};
use super::clients::{CONNECT_TIMEOUT, build, local_address};
use super::connection::ConnectionError;
use super::host_list::HostList;
use crate::token::DaemonToken;

/// How long an answer to one request may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How far this machine's clock may be from the daemon's. Signed URLs and certificates allow more.
const CLOCK_TOLERANCE: Duration = Duration::from_mins(2);
/// At most this many bytes of an answer. It may be the page of a captive portal.
const MAX_ANSWER_LEN: u64 = 64 << 20;

/// A step on the way to an answer of a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The name of its host becomes addresses.
    Name,
    /// This machine knows a route to one of them.
    Route,
    /// The port accepts a connection.
    Connection,
    /// The daemon's clock and this machine's agree.
    Clock,
    /// The certificate is valid.
    Tls,
    /// The answer is one of a cachewfs daemon.
    Http,
    /// The daemon accepts the token.
    Token,
}

/// The outcome of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// It succeeded. The text says how.
    Ok(String),
    /// It was not tried. The text says why.
    Skipped(String),
    /// It failed.
    Failed {
        /// The reason, in one line.
        reason: String,
        /// The next step for a person, if the reason doesn't say it.
        remedy: Option<String>,
    },
}

/// The outcomes of all steps, in order.
#[derive(Debug, Default)]
struct Steps(Vec<(Step, StepOutcome)>);

/// An answer, and whether it is the one of a daemon.
#[derive(Debug)]
enum Answered {
    /// A daemon, with the list that it was asked for.
    Daemon,
    /// A daemon, which doesn't accept the token, or its absence.
    Unauthorised(String),
    /// Something else.
    Other {
        reason: String,
        remedy: &'static str,
    },
}

/// Asks the daemon at `url`, with the token in `token_file`. Returns the outcome of each step.
pub async fn probe_daemon(url: &str, token_file: Option<&Path>) -> Vec<(Step, StepOutcome)> {
    let mut steps = Steps::default();
    if let Err((step, outcome)) = try_steps(&mut steps, url, token_file).await {
        steps.0.push((step, outcome));
    }
    steps.skip_rest();
    steps.0
}

impl Steps {
    fn ok(&mut self, step: Step, text: impl Into<String>) {
        self.0.push((step, StepOutcome::Ok(text.into())));
    }

    fn skip(&mut self, step: Step, text: impl Into<String>) {
        self.0.push((step, StepOutcome::Skipped(text.into())));
    }

    fn skip_rest(&mut self) {
        use Step::{Clock, Connection, Http, Name, Route, Tls, Token};
        for step in [Name, Route, Connection, Clock, Tls, Http, Token] {
            if !self.0.iter().any(|(done, _)| *done == step) {
                self.skip(step, "a step before it failed");
            }
        }
    }
}

type Failure = (Step, StepOutcome);

fn failure(step: Step, reason: impl Into<String>, remedy: impl Into<String>) -> Failure {
    let (reason, remedy) = (reason.into(), Some(remedy.into()));
    (step, StepOutcome::Failed { reason, remedy })
}

async fn try_steps(steps: &mut Steps, url: &str, token_file: Option<&Path>) -> Result<(), Failure> {
    let base = url.trim_end_matches('/');
    let unusable = |error: String| failure(Step::Name, format!("the URL is wrong: {error}"), "");
    let url = Url::parse(&format!("{base}{REPOS_PATH}"));
    let url = url.map_err(|error| unusable(error.to_string()))?;
    let host = url.host_str().unwrap_or_default().to_owned();
    let port = url.port_or_known_default().unwrap_or_default();
    let proxy = proxy_variable(&url);
    if let Some(variable) = &proxy {
        for step in [Step::Name, Step::Route, Step::Connection] {
            steps.skip(step, format!("requests go through the proxy in {variable}"));
        }
    } else {
        connect(steps, &host, port).await?;
    }
    let clock = check_clock(&url).await;
    let is_clock_wrong = matches!(clock, StepOutcome::Failed { .. });
    steps.0.push((Step::Clock, clock));
    let (token, token_error) = match token_file.map(|path| (path, DaemonToken::open(path))) {
        Some((_, Ok(token))) => (Some(token), None),
        Some((path, Err(error))) => (None, Some(format!("{}: {error}", path.display()))),
        None => (None, None),
    };
    let client = build(|builder| builder.timeout(ANSWER_TIMEOUT));
    let client = client.map_err(|error| failure(Step::Tls, error.to_string(), ""))?;
    let mut request = client.get(url.clone());
    if let Some(token) = &token {
        request = request.header(AUTHORIZATION, token.header());
    }
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => {
            return Err(not_answered(
                &error.into(),
                is_clock_wrong,
                proxy.as_deref(),
            ));
        }
    };
    match url.scheme() {
        "https" => steps.ok(Step::Tls, "the certificate is valid"),
        _ => steps.skip(Step::Tls, "the URL starts with http://"),
    }
    let judged = judge(response).await;
    if let Answered::Other { reason, remedy } = judged {
        return Err(failure(Step::Http, reason, remedy));
    }
    steps.ok(Step::Http, "a daemon answers");
    let token = judge_token(&judged, token_file, token_error)?;
    steps.ok(Step::Token, token);
    Ok(())
}

/// Returns why the token is right, as a text, or the failure.
fn judge_token(
    judged: &Answered,
    token_file: Option<&Path>,
    token_error: Option<String>,
) -> Result<&'static str, Failure> {
    if let Some(error) = token_error {
        let remedy = "write the daemon's token into the file, as one line, and let only its user \
            read it";
        return Err(failure(Step::Token, error, remedy));
    }
    match judged {
        Answered::Unauthorised(reason) => {
            let remedy = if token_file.is_some() {
                "the token in the file is wrong, has been withdrawn, or allows something else"
            } else {
                "name a file with the daemon's token: --token-file FILE here, -o token_file=FILE \
                 for a mount"
            };
            Err(failure(Step::Token, reason, remedy))
        }
        _ if token_file.is_some() => Ok("the daemon accepts it"),
        _ => Ok("none is needed"),
    }
}

/// Resolves the name, looks for a route, and connects.
async fn connect(steps: &mut Steps, host: &str, port: u16) -> Result<(), Failure> {
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<SocketAddr> = if let Ok(address) = name.parse::<IpAddr>() {
        steps.ok(Step::Name, format!("{address} is an address"));
        vec![(address, port).into()]
    } else {
        let remedy =
            format!("check the name, and the resolver of this machine: getent hosts {name}");
        let lookup = timeout(CONNECT_TIMEOUT, lookup_host((name, port))).await;
        let found = match lookup {
            Ok(Ok(found)) => found.collect::<Vec<_>>(),
            Ok(Err(error)) => {
                let reason = format!("the name {name} has no address: {error}");
                return Err(failure(Step::Name, reason, remedy));
            }
            Err(_) => {
                let seconds = CONNECT_TIMEOUT.as_secs();
                let reason = format!("no resolver answered for {name} within {seconds} s");
                return Err(failure(Step::Name, reason, remedy));
            }
        };
        let texts: Vec<_> = found.iter().map(|each| each.ip().to_string()).collect();
        steps.ok(Step::Name, format!("{name} is {}", texts.join(", ")));
        found
    };
    let shown = addresses
        .first()
        .map(|each| each.ip().to_string())
        .unwrap_or_default();
    let routed: Vec<_> = addresses
        .into_iter()
        .filter(|each| local_address(*each).is_some())
        .collect();
    let Some(local) = routed.first().and_then(|each| local_address(*each)) else {
        return Err(failure(
            Step::Route,
            format!("this machine knows no route to {shown}"),
            format!("connect the network or the VPN: ip route get {shown}"),
        ));
    };
    steps.ok(Step::Route, format!("packets leave from {local}"));
    let mut last = None;
    for address in routed {
        let outcome = match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => {
                steps.ok(Step::Connection, format!("{address} accepts connections"));
                return Ok(());
            }
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => (
                format!("{address} refuses connections"),
                "start the daemon there, or correct the port; its key `listen` must not be an \
                 address of loopback only",
            ),
            Ok(Err(error)) => (
                format!("can't connect to {address}: {error}"),
                "check whether that machine runs, and whether a firewall is between",
            ),
            Err(_) => (
                format!(
                    "{address} doesn't answer within {} s",
                    CONNECT_TIMEOUT.as_secs()
                ),
                "check whether that machine runs, and whether a firewall drops the packets",
            ),
        };
        last = Some(outcome);
    }
    let (reason, remedy) = last.unwrap_or_default();
    Err(failure(Step::Connection, reason, remedy))
}

/// Compares this machine's clock with the date of an answer.
///
/// The request carries no token, and the certificate isn't checked: with a wrong clock each
/// certificate looks invalid. The date is used for nothing but this comparison.
async fn check_clock(url: &Url) -> StepOutcome {
    let unknown = || StepOutcome::Skipped("no answer has a date to compare with".to_owned());
    let client = build(|builder| {
        builder
            .timeout(ANSWER_TIMEOUT)
            .tls_danger_accept_invalid_certs(true)
    });
    let asked = async { client.ok()?.get(url.clone()).send().await.ok() };
    let Some(response) = asked.await else {
        return unknown();
    };
    let date = header(&response, DATE).and_then(|date| httpdate::parse_http_date(date).ok());
    let Some(theirs) = date else {
        return unknown();
    };
    let ours = SystemTime::now();
    let (apart, direction) = match ours.duration_since(theirs) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    if apart <= CLOCK_TOLERANCE {
        return StepOutcome::Ok("this machine and the daemon agree".to_owned());
    }
    let minutes = apart.as_secs() / 60;
    StepOutcome::Failed {
        reason: format!(
            "this machine's clock is {minutes} minutes {direction} the daemon's ({})",
            httpdate::fmt_http_date(theirs)
        ),
        remedy: Some("if this clock is the wrong one, set it: timedatectl set-ntp true".to_owned()),
    }
}

/// Returns the step at which a request failed that got no answer.
fn not_answered(error: &ConnectionError, is_clock_wrong: bool, proxy: Option<&str>) -> Failure {
    let reason = error.to_string();
    match error {
        ConnectionError::Certificate(_) if is_clock_wrong => (
            Step::Tls,
            StepOutcome::Skipped("with a wrong clock, each certificate looks invalid".to_owned()),
        ),
        ConnectionError::Certificate(_) => failure(
            Step::Tls,
            reason,
            "the operator of the daemon has to renew the certificate, or you write the name in \
             the URL for which it is valid",
        ),
        // These sentences say the next step.
        ConnectionError::UnknownAuthority
        | ConnectionError::NoAuthorities
        | ConnectionError::NotTls => {
            let remedy = None;
            (Step::Tls, StepOutcome::Failed { reason, remedy })
        }
        ConnectionError::Tls(_) => failure(
            Step::Tls,
            reason,
            "something between this machine and the daemon may intercept TLS",
        ),
        _ => match proxy {
            Some(variable) => failure(
                Step::Http,
                format!("no answer through the proxy in {variable}: {reason}"),
                format!("correct {variable}, or add the daemon's host to NO_PROXY"),
            ),
            None => failure(Step::Http, reason, "look into the daemon's log"),
        },
    }
}

/// Judges whether an answer comes from a cachewfs daemon.
async fn judge(mut response: Response) -> Answered {
    const PORTAL: &str = "log in to the network with a browser; or, behind a proxy, add the \
        daemon's host to NO_PROXY";
    const NO_DAEMON: &str = "correct the URL: it is scheme, host and port of a cachewfsd";
    let status = response.status();
    let content_type = header(&response, CONTENT_TYPE)
        .unwrap_or_default()
        .to_owned();
    let is_html = content_type.to_ascii_lowercase().starts_with("text/html");
    let other = |reason: String, remedy| Answered::Other { reason, remedy };
    if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        let remedy = "write the proxy's user into the variable with its URL, or use NO_PROXY";
        return other("a proxy demands a login (407)".to_owned(), remedy);
    }
    if status.is_redirection() {
        let to = header(&response, LOCATION).and_then(|to| response.url().join(to).ok());
        let to = to.map_or("elsewhere".to_owned(), |to| {
            to.origin().ascii_serialization()
        });
        let reason = format!("a proxy or captive portal answers: it redirects to {to} ({status})");
        return other(reason, PORTAL);
    }
    if is_html || status == StatusCode::NETWORK_AUTHENTICATION_REQUIRED {
        let reason = format!("a proxy or captive portal answers with a web page ({status})");
        return other(reason, PORTAL);
    }
    if !status.is_success() {
        let error = refusal(response).await;
        let reason = error.to_string();
        return match error {
            FetchError::Refused { .. }
                if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) =>
            {
                Answered::Unauthorised(reason)
            }
            FetchError::Status { .. } => other(reason, NO_DAEMON),
            _ => other(reason, "look into the daemon's log"),
        };
    }
    let body = match whole_body(&mut response, MAX_ANSWER_LEN).await {
        Ok(body) => body,
        Err(error) => return other(error.to_string(), "look into the daemon's log"),
    };
    match serde_json::from_slice::<HostList>(&body) {
        Ok(_) => Answered::Daemon,
        Err(_) if body.trim_ascii_start().starts_with(b"<") => {
            let reason = "a proxy or captive portal answers with a web page".to_owned();
            other(reason, PORTAL)
        }
        Err(_) => other(
            "the answer is none of a cachewfs daemon".to_owned(),
            NO_DAEMON,
        ),
    }
}

/// Returns the environment variable with the proxy that requests to `url` go through, or `None` if
/// they go straight to the daemon.
fn proxy_variable(url: &Url) -> Option<String> {
    let scheme = url.scheme();
    let names = [format!("{scheme}_proxy"), "all_proxy".to_owned()];
    let is_set = |name: &String| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let both = names
        .into_iter()
        .flat_map(|name| [name.to_ascii_uppercase(), name]);
    let variable = both.into_iter().find(is_set)?;
    let exempt = ["NO_PROXY", "no_proxy"]
        .iter()
        .find_map(|name| std::env::var(name).ok());
    let host = url.host_str().unwrap_or_default();
    let is_exempt = exempt.unwrap_or_default().split(',').any(|each| {
        let each = each.trim().trim_start_matches('.');
        each == "*" || (!each.is_empty() && (host == each || host.ends_with(&format!(".{each}"))))
    });
    (!is_exempt).then_some(variable)
}
