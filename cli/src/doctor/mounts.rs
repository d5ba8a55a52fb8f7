//! Checks the mounts: whether a process serves each, and whether it reaches a daemon.

use super::check::quoted;
use super::subject::MountState;
use super::{Check, Subject};
use crate::report;

const NAME: &str = "mount";

pub(super) fn check(subject: &Subject) -> Vec<Check> {
    if subject.mounts.is_empty() && subject.daemons.is_empty() {
        let none = Check::skipped(NAME, "no cachewfs mount is running on this machine");
        return vec![none.remedy("start one: cachewfs mount http://HOST:PORT MOUNTPOINT")];
    }
    let mounts = subject.mounts.iter();
    mounts
        .map(|mount| check_one(mount).of(mount.mount_point.display().to_string()))
        .collect()
}

fn check_one(mount: &MountState) -> Check {
    let point = quoted(&mount.mount_point.display().to_string());
    if mount.is_dead {
        let again = if mount.source.starts_with("http") {
            format!(" && cachewfs mount {} {point}", quoted(&mount.source))
        } else {
            String::new()
        };
        let reason = "it is dead: no process serves it (transport endpoint is not connected)";
        return Check::wrong(NAME, reason)
            .remedy("unmount it, and mount it again with its options: no data is lost")
            .command(format!("cachewfs umount {point}{again}"));
    }
    let status = match &mount.status {
        Ok(status) => status,
        Err(_) if mount.is_foreign() => {
            let uid = mount.uid.unwrap_or_default();
            let reason = format!("it belongs to another user (uid {uid})");
            return Check::skipped(NAME, reason).remedy("run this command as that user");
        }
        Err(error) => {
            let check = Check::wrong(NAME, format!("{error:#}"));
            return match report::hint(error) {
                Some(hint) => check.remedy(hint),
                None => check,
            };
        }
    };
    let (version, pid) = (&status.version, status.pid);
    if let Some(outage) = &status.outage {
        let reason = format!(
            "it is offline, and shows what its cache has: {}",
            outage.reason
        );
        return Check::warning(NAME, reason);
    }
    if version != env!("CARGO_PKG_VERSION") {
        let reason = format!("its process {pid} still runs version {version}");
        return Check::warning(NAME, reason)
            .remedy("let this program take it over; nobody who works in it notices")
            .command(format!("cachewfs mount --replace {point}"));
    }
    Check::ok(NAME, format!("process {pid} serves it"))
}
