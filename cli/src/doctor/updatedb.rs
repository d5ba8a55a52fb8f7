//! Checks whether updatedb reads whole mounts, and so has them fetch everything.

use super::{Check, Subject};

const NAME: &str = "updatedb";
const FILE: &str = "/etc/updatedb.conf";
const TYPE: &str = "fuse.cachewfs";

pub(super) fn check(subject: &Subject) -> Check {
    let Ok(text) = std::fs::read_to_string(FILE) else {
        return Check::ok(NAME, format!("there is no {FILE}"));
    };
    if listed(&text, "PRUNEFS").any(|word| word.eq_ignore_ascii_case(TYPE)) {
        return Check::ok(NAME, format!("{FILE} leaves {TYPE} out"));
    }
    let mut points = subject
        .mounts
        .iter()
        .map(|mount| &mount.mount_point)
        .peekable();
    let are_pruned = points.peek().is_some()
        && points.all(|point| listed(&text, "PRUNEPATHS").any(|path| point.starts_with(path)));
    if are_pruned {
        return Check::ok(NAME, format!("{FILE} leaves the mount points out"));
    }
    let reason = format!(
        "PRUNEFS in {FILE} lacks {TYPE}: updatedb walks through each mount that root may read"
    );
    let check = Check::warning(NAME, reason);
    if text
        .lines()
        .any(|line| line.trim_start().starts_with("PRUNEFS"))
    {
        check.command(format!(
            r#"sudo sed -i 's/^ *PRUNEFS *= *"/&{TYPE} /' {FILE}"#
        ))
    } else {
        check.command(format!(r#"echo 'PRUNEFS = "{TYPE}"' | sudo tee -a {FILE}"#))
    }
}

/// Returns the words of a setting such as `PRUNEFS = "nfs proc"`.
fn listed<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = text.lines().filter_map(move |line| {
        let value = line
            .trim()
            .strip_prefix(key)?
            .trim_start()
            .strip_prefix('=')?;
        Some(value.trim().trim_matches('"'))
    });
    lines.flat_map(str::split_whitespace)
}
