//! An HTTP client that asks a replica, and another one if the first fails.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cachewfs_tests::{Dice, HttpAnswer, http_request};

use super::cluster::REPLICAS;
use super::counts::Counts;
use super::storm::StopSignal;

/// How long a replica may take to answer before another one is asked.
const TRY_LIMIT: Duration = Duration::from_secs(5);
/// How long a request may take with all retries. Two of three replicas may be faulty at a time, and
/// each answers a second or two after its fault has ended.
const FAILOVER_LIMIT: Duration = Duration::from_secs(30);
/// How long to wait after all replicas have failed.
const PAUSE: Duration = Duration::from_millis(200);

/// A client of all replicas.
#[derive(Debug)]
pub(super) struct Client<'a> {
    pub(super) addresses: [SocketAddr; REPLICAS],
    pub(super) counts: &'a Counts,
    pub(super) stop: &'a StopSignal,
    pub(super) dice: Dice,
}

impl Client<'_> {
    /// Returns the first answer that isn't a server error (5xx). Panics if there is none in time.
    pub(super) fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> HttpAnswer {
        let began = Instant::now();
        let first = self.dice.below(REPLICAS);
        let mut failures = Vec::new();
        for attempt in 0.. {
            let replica = (first + attempt) % REPLICAS;
            match self.try_get(replica, path, headers) {
                Ok(answer) => {
                    self.counts.answered_after(began.elapsed());
                    return answer;
                }
                Err(failure) => failures.push(format!("replica {}: {failure}", replica + 1)),
            }
            let waited = began.elapsed();
            assert!(
                waited < FAILOVER_LIMIT,
                "no replica answered in {waited:?}: {path} {headers:?}: {failures:#?}"
            );
            self.counts.add("retries");
            if attempt % REPLICAS == REPLICAS - 1 {
                self.counts.add("retries after all three had failed");
                self.stop.wait_up_to(PAUSE);
            }
        }
        unreachable!("attempts don't end");
    }

    fn try_get(
        &self,
        replica: usize,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<HttpAnswer, String> {
        self.counts.add("requests");
        match http_request(self.addresses[replica], ("GET", path), headers, TRY_LIMIT) {
            Ok(answer) if answer.status < 500 => Ok(answer),
            Ok(answer) => {
                let said: serde_json::Value =
                    serde_json::from_slice(&answer.body).unwrap_or_default();
                let code = said["error"]["code"].as_str().unwrap_or("without a code");
                self.counts.add(format!("answers {} {code}", answer.status));
                Err(format!("{} {}", answer.status, answer.text()))
            }
            Err(error) => {
                self.counts.add(format!("connections: {}", error.kind()));
                Err(error.to_string())
            }
        }
    }
}
