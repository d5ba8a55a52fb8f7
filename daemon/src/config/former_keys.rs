//! Keys that earlier versions of the daemon had, and what became of them.

/// Returns what became of a key that an earlier version had in `section`.
pub(super) fn advice(section: &str, key: &str) -> Option<&'static str> {
    Some(match (section, key) {
        ("", "keep_snapshots") => "it is snapshots in [keep] now",
        ("", "keep_age") => "it is age in [keep] now",
        ("", "delete_grace") => "it is grace in [keep] now",
        ("", "retain_orphans") => "it is retain_orphans in [publish] now",
        ("", "lfs") => "it is lfs in [publish] now",
        ("", "namespaces") => "it is namespaces in [mirrors] now",
        ("", "publishes") => "it is publishes in [jobs] now",
        ("", "jobs_per_host") => "it is updates_per_host in [jobs] now",
        ("mirrors", "jobs") => "it is updates in [jobs] now",
        ("", "publish_delay") | ("mirrors", "repack_interval") => {
            "its value follows from fetch_interval now"
        }
        ("mirrors", "retry_first") => "its value follows from retry_max now",
        ("git", "pack_timeout" | "lfs_timeout") | ("git_http", "answer_timeout") => {
            "its value follows from clone_timeout in [git] now"
        }
        ("git", "ls_remote_timeout") => "its value follows from fetch_timeout now",
        ("git_http", "max_requests") => "its value follows from max_processes now",
        ("store.s3", "connect_timeout") => "its value follows from timeout now",
        ("tracing", "service_name") => "the variable OTEL_SERVICE_NAME sets it",
        ("tracing", "sample_ratio") => "the variable OTEL_TRACES_SAMPLER_ARG sets it",
        ("", "ref_check_timeout" | "relayout_share" | "tip_commits")
        | ("git", "pack_window_memory")
        | (
            "git_http",
            "max_body_bytes" | "body_timeout" | "idle_timeout" | "connect_timeout"
            | "queue_timeout" | "spool_bytes",
        )
        | ("mirrors", "max_new" | "stop_timeout" | "repack_packs")
        | ("store.s3", "max_requests") => "its value can't be changed any more",
        _ => return None,
    })
}
