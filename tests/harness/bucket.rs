//! What is in a bucket, seen without the daemon.

use std::time::Duration;

use crate::http::{HttpAnswer, http_request};
use crate::s3::TestBucket;

const LIMIT: Duration = Duration::from_secs(30);

impl TestBucket {
    /// The keys of all objects whose key begins like this.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let mut keys = Vec::new();
        let mut after = String::new();
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

    /// An object's bytes, if there is one.
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
        http_request(self.address, ("GET", &target), &[], LIMIT).unwrap()
    }
}

fn between<'a>(text: &'a str, begin: &'a str, end: &'a str) -> impl Iterator<Item = &'a str> {
    let parts = text.split(begin).skip(1);
    parts.filter_map(move |part| part.split(end).next())
}
