//! Lists and reads a bucket's objects directly, without the daemon.

use std::time::Duration;

use crate::http::{HttpAnswer, http_request};
use crate::s3::TestBucket;

/// How long one request to the bucket may take.
const TIMEOUT: Duration = Duration::from_secs(30);

impl TestBucket {
    /// Returns all keys that begin with `prefix`.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let mut keys = Vec::new();
        let mut after = String::new();
        // The server lists at most 1,000 keys in one answer.
        loop {
            let query = format!("?list-type=2&prefix={prefix}&start-after={after}");
            let listed = self.get(&query).text();
            keys.extend(between(&listed, "<Key>", "</Key>").map(str::to_owned));
            if !listed.contains("<IsTruncated>true</IsTruncated>") {
                return keys;
            }
            after.clone_from(keys.last().unwrap());
        }
    }

    /// Returns an object's bytes, or `None` if the bucket has no such object.
    pub fn object(&self, key: &str) -> Option<Vec<u8>> {
        let answer = self.get(key);
        match answer.status {
            200 => Some(answer.body),
            404 => None,
            status => panic!("{status} for {key}: {}", answer.text()),
        }
    }

    fn get(&self, target: &str) -> HttpAnswer {
        let target = format!("/{}/{target}", self.name);
        http_request(self.address, ("GET", &target), &[], TIMEOUT).unwrap()
    }
}

fn between<'a>(text: &'a str, begin: &'a str, end: &'a str) -> impl Iterator<Item = &'a str> {
    let parts = text.split(begin).skip(1);
    parts.filter_map(move |part| part.split(end).next())
}
