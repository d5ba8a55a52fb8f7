//! Checks each step on the way to the daemons.

use std::collections::BTreeSet;
use std::path::Path;

use cachewfs_fuse::{Step, StepOutcome, probe_daemon};

use super::{Check, Subject};
use crate::mounts::block_on;

pub(super) fn check(subject: &Subject) -> Vec<Check> {
    let mut asked = BTreeSet::new();
    let mut checks = Vec::new();
    for url in &subject.daemons {
        if asked.insert(url.clone()) {
            checks.extend(check_one(url, subject.token_file.as_deref(), false));
        }
    }
    for mount in &subject.mounts {
        let options = mount.options.as_ref();
        let token_file = subject.token_file.as_deref();
        let token_file = token_file.or_else(|| options?.token_file.as_deref());
        // The process of `mount --local` has a token that it tells nobody. Without an outage, its
        // daemon accepts that token.
        let is_answered = mount
            .status
            .as_ref()
            .is_ok_and(|status| status.outage.is_none());
        for url in urls(
            mount.status.as_ref().ok().map(|status| &status.daemons[..]),
            &mount.source,
        ) {
            if asked.insert(url.clone()) {
                checks.extend(check_one(&url, token_file, is_answered));
            }
        }
    }
    if checks.is_empty() {
        let none = Check::skipped("daemon", "no mount names one");
        checks.push(none.remedy("name one: cachewfs doctor http://HOST:PORT"));
    }
    checks
}

/// Returns the URLs of a mount's daemons: those that its process says, or those of the mount table.
fn urls(said: Option<&[String]>, source: &str) -> Vec<String> {
    let from_table = || {
        let urls = source.split(',').filter(|url| url.starts_with("http"));
        urls.map(str::to_owned).collect()
    };
    said.map_or_else(from_table, <[String]>::to_vec)
}

fn check_one(url: &str, token_file: Option<&Path>, is_answered: bool) -> Vec<Check> {
    let probe = block_on(async { Ok(probe_daemon(url, token_file).await) });
    let steps = match probe {
        Ok(steps) => steps,
        Err(error) => return vec![Check::wrong("daemon", format!("{error:#}")).of(url)],
    };
    let check = |(step, outcome)| {
        let name = name_of(step);
        let check = match outcome {
            StepOutcome::Ok(state) => Check::ok(name, state),
            StepOutcome::Skipped(reason) => Check::skipped(name, reason),
            StepOutcome::Failed { .. }
                if step == Step::Token && token_file.is_none() && is_answered =>
            {
                Check::ok(name, "the mount's process has a token of its own")
            }
            StepOutcome::Failed { reason, remedy } => {
                let check = Check::wrong(name, reason);
                match remedy.filter(|remedy| !remedy.is_empty()) {
                    Some(remedy) => check.remedy(remedy),
                    None => check,
                }
            }
        };
        check.of(url)
    };
    steps.into_iter().map(check).collect()
}

fn name_of(step: Step) -> &'static str {
    match step {
        Step::Name => "daemon name",
        Step::Route => "daemon route",
        Step::Connection => "daemon connection",
        Step::Clock => "clock",
        Step::Tls => "daemon TLS",
        Step::Http => "daemon HTTP",
        Step::Token => "daemon token",
    }
}
