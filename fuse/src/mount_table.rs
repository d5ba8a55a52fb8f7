//! The cachewfs mounts in the mount table of this process.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The type of a cachewfs mount in the mount table.
pub(crate) const FILE_SYSTEM_TYPE: &str = "fuse.cachewfs";

/// An entry of the mount table that shows a cachewfs mount, or a part of one (a bind mount).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableEntry {
    /// The mount point.
    pub mount_point: PathBuf,
    /// The user who mounted it, if the mount options name one.
    pub uid: Option<u32>,
    /// The device number of the filesystem. A mount and its bind mounts have the same.
    pub device: DeviceNumber,
    /// The directory of the mount that the entry shows: `/`, or another for a bind mount of a part.
    pub root: PathBuf,
    /// The URLs of the daemons, separated by spaces.
    pub source: String,
}

impl TableEntry {
    /// Returns whether the entry shows the mount from its root on, not only a directory of it.
    pub fn is_whole(&self) -> bool {
        self.root == Path::new("/")
    }
}

/// The device number of a mounted filesystem, such as `0:52`.
///
/// The kernel gives each FUSE filesystem a number of its own, which is the same in all mount
/// namespaces. The filesystem keeps the number until its last user is gone, even if it is no longer
/// in the mount table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNumber(pub String);

/// Returns the entries of cachewfs mounts. If several are at one mount point, the last one hides
/// the others.
pub fn mount_table() -> io::Result<Vec<TableEntry>> {
    let table = fs::read("/proc/self/mountinfo")?;
    Ok(parse(&table))
}

/// Returns the lines of the mount table that show cachewfs mounts, as the kernel writes them.
pub fn mount_table_lines() -> io::Result<Vec<String>> {
    let table = fs::read("/proc/self/mountinfo")?;
    let lines = table.split(|&byte| byte == b'\n');
    let shown = lines.filter(|line| entry(line).is_some());
    Ok(shown
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect())
}

/// Returns the entry that is visible at `mount_point`, which is an absolute path without symbolic
/// links.
pub(crate) fn mount_at(mount_point: &Path) -> io::Result<Option<TableEntry>> {
    let mut entries = mount_table()?.into_iter();
    Ok(entries.rfind(|entry| entry.mount_point == mount_point))
}

fn parse(table: &[u8]) -> Vec<TableEntry> {
    table
        .split(|&byte| byte == b'\n')
        .filter_map(entry)
        .collect()
}

/// Parses a line of `proc_pid_mountinfo(5)`. Returns `None` if it isn't a cachewfs mount.
fn entry(line: &[u8]) -> Option<TableEntry> {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    if *fields.get(dash + 1)? != FILE_SYSTEM_TYPE.as_bytes() {
        return None;
    }
    let options = fields.get(dash + 3).copied().unwrap_or_default();
    let uid = options
        .split(|&byte| byte == b',')
        .find_map(|option| option.strip_prefix(b"user_id="));
    Some(TableEntry {
        mount_point: unescape(fields.get(4)?),
        uid: uid.and_then(|uid| std::str::from_utf8(uid).ok()?.parse().ok()),
        device: DeviceNumber(String::from_utf8(fields.get(2)?.to_vec()).ok()?),
        root: unescape(fields.get(3)?),
        source: unescape(fields.get(dash + 2)?).display().to_string(),
    })
}

/// Decodes the octal escapes of the mount table, such as `\040` for a space.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\').then(|| tail.get(..3)).flatten();
        let value = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(value.unwrap_or(first));
        rest = if value.is_some() {
            tail.get(3..).unwrap_or_default()
        } else {
            tail
        };
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_table_names_the_mounts_their_users_and_devices() {
        let lines =
            b"36 1 0:40 / /a\\040b ro,nosuid - fuse.cachewfs http://h ro,user_id=7,group_id=7\n\
            37 1 0:41 / /c ro shared:1 - fuse.cachewfs http://h ro\n\
            38 1 0:41 /host/repo /bound ro - fuse.cachewfs http://h ro\n\
            39 1 0:42 / /d rw - ext4 /dev/sda rw\n\
            40 1";

        let entry = |point: &str, uid, device: &str, root: &str| TableEntry {
            mount_point: point.into(),
            uid,
            device: DeviceNumber(device.to_owned()),
            root: root.into(),
            source: "http://h".to_owned(),
        };
        assert_eq!(
            parse(lines),
            [
                entry("/a b", Some(7), "0:40", "/"),
                entry("/c", None, "0:41", "/"),
                entry("/bound", None, "0:41", "/host/repo")
            ]
        );
    }

    #[test]
    fn octal_escapes_are_undone() {
        assert_eq!(unescape(br"/a\040b\134"), PathBuf::from("/a b\\"));
    }
}
