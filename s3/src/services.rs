//! Fake services that don't do what publishing relies on, to test that the probe finds out. Each
//! has one object.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use super::*;

/// How a service differs from S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quirk {
    None,
    /// Loses every other answer after it has carried out the request.
    LosesAnswers,
    /// Ignores this header.
    Ignores(&'static str),
    /// Treats every `ETag` as stale.
    NeverMatches,
    /// Answers 501 to this header.
    LacksHeader(&'static str),
    /// Answers 400 to this header, with the error code of a 501.
    RefusesHeader(&'static str),
}

const NONE_MATCH: &str = "if-none-match";
const MATCH: &str = "if-match";

#[derive(Debug)]
struct Service {
    quirk: Quirk,
    object: Option<Vec<u8>>,
    /// Each write gives another `ETag`, as with some kinds of encryption.
    writes: u32,
    requests: u32,
}

impl Service {
    /// Starts a service. Returns its URL.
    fn start(quirk: Quirk) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = Arc::new(Mutex::new(Self {
            quirk,
            object: None,
            writes: 0,
            requests: 0,
        }));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let service = Arc::clone(&service);
                std::thread::spawn(move || serve(&service, stream));
            }
        });
        url
    }

    fn etag(&self) -> String {
        format!("\"{}\"", self.writes)
    }

    /// Returns status and body of the answer.
    fn answer(&mut self, head: &[String], body: Vec<u8>) -> (u16, Vec<u8>) {
        self.requests += 1;
        let answer = match head[0].split(' ').next().unwrap() {
            "put" => (self.write(head, body), Vec::new()),
            _ if head[0].contains("list-type") => (200, b"<ListBucketResult/>".to_vec()),
            _ => match (&self.object, value(head, "range")) {
                (None, _) => (404, Vec::new()),
                (Some(object), None) => (200, object.clone()),
                (Some(object), Some(range)) => {
                    let last = range.rsplit('-').next().unwrap();
                    let end = last.parse::<usize>().unwrap() + 1;
                    (206, object[..end].to_vec())
                }
            },
        };
        if self.quirk == Quirk::LosesAnswers && self.requests % 2 == 1 {
            return (503, Vec::new());
        }
        answer
    }

    fn write(&mut self, head: &[String], body: Vec<u8>) -> u16 {
        let is_met = |header, condition: &str| match self.quirk {
            Quirk::LacksHeader(of) if of == header => Err(501),
            Quirk::RefusesHeader(of) if of == header => Err(400),
            Quirk::Ignores(of) if of == header => Ok(true),
            _ if header == NONE_MATCH => Ok(self.object.is_none()),
            Quirk::NeverMatches => Ok(false),
            _ => Ok(self.object.is_some() && condition == self.etag()),
        };
        for header in [NONE_MATCH, MATCH] {
            match value(head, header).map(|condition| is_met(header, condition)) {
                Some(Err(status)) => return status,
                Some(Ok(false)) => return 412,
                Some(Ok(true)) | None => {}
            }
        }
        (self.object, self.writes) = (Some(body), self.writes + 1);
        200
    }
}

/// Returns the value of a header.
fn value<'a>(head: &'a [String], name: &str) -> Option<&'a str> {
    let value = |line: &'a String| line.strip_prefix(name)?.strip_prefix(':');
    head.iter().find_map(value).map(str::trim)
}

fn serve(service: &Mutex<Service>, stream: TcpStream) {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if line != "\r\n" {
            head.push(line.trim_end().to_lowercase());
            continue;
        }
        let len = value(&head, "content-length").map_or(0, |len| len.parse().unwrap());
        let mut body = vec![0; len];
        reader.read_exact(&mut body).unwrap();
        let mut service = service.lock().unwrap();
        let (status, mut body) = service.answer(&head, body);
        if status == 400 {
            body = b"<Error><Code>NotImplemented</Code></Error>".to_vec();
        }
        let (etag, len) = (service.etag(), body.len());
        let last = len.saturating_sub(1);
        let answer = format!(
            "HTTP/1.1 {status} So\r\nETag: {etag}\r\nContent-Range: bytes 0-{last}/100\r\n\
             Content-Length: {len}\r\n\r\n"
        );
        reader.get_mut().write_all(answer.as_bytes()).unwrap();
        reader.get_mut().write_all(&body).unwrap();
        head.clear();
    }
}

async fn probe(quirk: Quirk) -> Result<(), S3Error> {
    let directory = tempfile::tempdir().unwrap();
    let credentials = directory.path().join("credentials");
    let keys = "[default]\naws_access_key_id = a\naws_secret_access_key = b\n";
    let mut file = std::fs::File::create(&credentials).unwrap();
    file.write_all(keys.as_bytes()).unwrap();
    let config = S3Config {
        bucket: "bucket".to_owned(),
        endpoint: Some(Service::start(quirk)),
        credentials_file: Some(credentials),
        ..S3Config::default()
    };
    let stop = CancellationToken::new();
    let tier = S3Tier::open(&config, NoticePeriod::default(), stop).await?;
    tier.probe().await?;
    // The object of an earlier start is no obstacle.
    tier.probe().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_honours_conditions_will_do() {
    probe(Quirk::None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_honours_conditions_will_do_through_a_bad_network() {
    probe(Quirk::LosesAnswers).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_honour_conditions_is_found_out() {
    for (quirk, header) in [
        (Quirk::Ignores(NONE_MATCH), "If-None-Match"),
        (Quirk::Ignores(MATCH), "If-Match"),
        (Quirk::NeverMatches, "If-Match"),
        (Quirk::LacksHeader(NONE_MATCH), "If-None-Match"),
        (Quirk::LacksHeader(MATCH), "If-Match"),
        (Quirk::RefusesHeader(NONE_MATCH), "If-None-Match"),
        (Quirk::RefusesHeader(MATCH), "If-Match"),
    ] {
        let error = probe(quirk).await.unwrap_err();

        let is_of = |condition| condition == header;
        assert!(
            matches!(&error, S3Error::Unconditional { condition } if is_of(*condition)),
            "{quirk:?}: {error:?}"
        );
        assert!(error.is_lasting() && !error.is_transient(), "{quirk:?}");
    }
}
