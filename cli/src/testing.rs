//! Reports of mounts, for the tests of their texts.

use cachewfs_fuse::control::protocol::StatusReport;

/// Returns the report of a mount at `/mnt` with these repositories, as JSON. In them, `TRAFFIC`
/// stands for counters.
pub(crate) fn status_of(repos: &str) -> StatusReport {
    let traffic = r#"{"requests":9,"fetched_bytes":1000,"demand_bytes":0,"demand_requests":0,
        "retries":0}"#;
    let report = format!(
        r#"{{"version":"1","pid":7,"mount_point":"/mnt","daemons":["http://h"],"cache_dir":"/c",
        "cache_bytes":0,"cache_max_bytes":1048576,"traffic":TRAFFIC,"repos":[{repos}]}}"#
    );
    serde_json::from_str(&report.replace("TRAFFIC", traffic)).unwrap()
}

/// Returns the report of a repository, as JSON for [`status_of`].
pub(crate) fn repo_json(name: &str, rest: &str) -> String {
    format!(
        r#"{{"repo":"{name}","is_pinned":false,"archive_bytes":9000,"catch_ups":0,
        "checked_at":null,"traffic":TRAFFIC,{rest}}}"#
    )
}
