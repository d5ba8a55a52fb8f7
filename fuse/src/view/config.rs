//! The `config` of `.git` in the mount: written by the mount, except for the URL of upstream.

use cachewfs_format::ARE_CHANGED_PATHS_PORTABLE;

/// The protocols that only fetch. Others, such as `ext::`, would run a program on the workstation.
const SAFE_SCHEMES: [&str; 5] = ["https://", "http://", "ssh://", "git://", "file://"];

/// Returns the URL of `origin` in the `config` of an archive. Returns `None` if there is none, if
/// its protocol is not in [`SAFE_SCHEMES`], or if it has characters with a meaning in `config`.
pub(super) fn upstream_url(config: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(config).ok()?;
    let mut is_origin = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            is_origin = line == "[remote \"origin\"]";
        } else if is_origin
            && let Some((key, value)) = line.split_once('=')
            && key.trim() == "url"
        {
            let url = value.trim().trim_matches('"');
            // The mount writes the URL into its own `config`. A quote, a backslash or a comment
            // sign could change how git reads that line.
            let is_plain = url
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"\"\\;#".contains(&byte));
            let is_safe = SAFE_SCHEMES.iter().any(|scheme| url.starts_with(scheme));
            return (is_plain && is_safe).then(|| url.to_owned());
        }
    }
    None
}

/// Returns the `config` of a repository in the mount, or of the objects that clones borrow.
pub(super) fn mount_config(upstream_url: Option<&str>, is_bare: bool, uses_sha256: bool) -> String {
    let version = if uses_sha256 { "1" } else { "0" };
    // A mount is read-only, so git must not log refs or start maintenance. `checkStat = minimal`
    // and `trustctime = false` make git compare only time and size of a file with the index: the
    // publisher can't know the mount's device, for example.
    let mut config = format!(
        "[core]\n\
         \trepositoryformatversion = {version}\n\
         \tfilemode = true\n\
         \tbare = {is_bare}\n\
         \tlogallrefupdates = false\n\
         \tcommitGraph = true\n\
         \tcheckStat = minimal\n\
         \tfsmonitor = false\n\
         \ttrustctime = false\n\
         [gc]\n\
         \tauto = 0\n\
         [maintenance]\n\
         \tauto = false\n\
         [pack]\n\
         \tuseBitmaps = false\n"
    );
    if !ARE_CHANGED_PATHS_PORTABLE {
        config.push_str("[commitGraph]\n\treadChangedPaths = false\n");
    }
    if uses_sha256 {
        config.push_str("[extensions]\n\tobjectFormat = sha256\n");
    }
    if let Some(url) = upstream_url {
        config.push_str("[remote \"origin\"]\n\tfetch = +refs/heads/*:refs/heads/*\n\turl = ");
        config.push_str(url);
        config.push('\n');
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_url_of_origin() {
        let config = b"[core]\n\tbare = false\n[remote \"origin\"]\n\turl = https://h/a.git\n";

        assert_eq!(upstream_url(config).unwrap(), "https://h/a.git");
    }

    #[test]
    fn a_url_that_runs_a_program_or_breaks_the_line_is_left_out() {
        for bad in [
            "ext::sh -c x",
            "--upload-pack=x",
            "https://h/\\n",
            "https://h/\"x",
            "/etc",
        ] {
            let config = format!("[remote \"origin\"]\nurl = {bad}\n");
            assert_eq!(upstream_url(config.as_bytes()), None, "{bad}");
        }
    }
}
