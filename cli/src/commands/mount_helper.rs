//! `mount.cachewfs`, which mount(8) runs for `mount -t cachewfs` and for lines of fstab.
//!
//! mount(8) runs it as `mount.fuse.cachewfs` for the type that the mount table shows. If only the
//! package fuse3 is there for that type, its `mount.fuse3` runs `cachewfs URL MOUNTPOINT`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Parser;

use crate::json_choice::JsonChoice;
use crate::mounting::{MountSettings, OPTIONS_HELP, UnknownOptions, daemon_urls};

/// Mount the repositories of a cachewfs daemon. mount(8) runs this program.
///
///   mount -t cachewfs http://HOST:8080 /cachewfs -o allow_other
///
/// In /etc/fstab:
///
///   http://HOST:8080 /cachewfs cachewfs allow_other,_netdev,nofail 0 0
#[derive(Debug, Parser)]
#[command(name = "mount.cachewfs", version, verbatim_doc_comment, after_help = OPTIONS_HELP)]
pub(crate) struct Args {
    /// The daemon's URL, or several URLs separated by commas.
    source: String,

    /// The directory to mount at.
    mount_point: PathBuf,

    /// Mount options, separated by commas.
    #[arg(short, value_name = "OPTIONS")]
    options: Vec<String>,

    /// Ignore unknown options.
    #[arg(short)]
    sloppy: bool,

    /// Only check the options, and don't mount.
    #[arg(short)]
    fake: bool,

    /// Accepted for mount(8); /etc/mtab is never written.
    #[arg(short)]
    no_mtab: bool,

    /// Accepted for mount(8); the output stays the same.
    #[arg(short)]
    verbose: bool,

    /// Accepted for mount(8); the type is always cachewfs.
    #[arg(short = 't', value_name = "TYPE")]
    kind: Option<String>,
}

/// Returns whether this program was called as a helper of mount(8).
pub(crate) fn is_helper(mut arguments: impl Iterator<Item = OsString>) -> bool {
    let program = arguments.next().map(PathBuf::from);
    let name = program.as_deref().and_then(Path::file_name);
    let is_url = |argument: OsString| {
        let argument = argument.as_encoded_bytes();
        argument.starts_with(b"http://") || argument.starts_with(b"https://")
    };
    name.is_some_and(|name| name == "mount.cachewfs" || name == "mount.fuse.cachewfs")
        || arguments.next().is_some_and(is_url)
}

fn key(option: &str) -> &str {
    option.split('=').next().unwrap_or_default().trim()
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let daemons = daemon_urls(&args.source)?;
    let unknown = if args.sloppy {
        UnknownOptions::Ignored
    } else {
        UnknownOptions::Refused
    };
    let mount_point = args.mount_point.clone();
    let options = args.options.iter().flat_map(|list| list.split(','));
    let (remount, mut options): (Vec<_>, Vec<_>) = options
        .map(str::to_owned)
        .partition(|option| option.trim() == "remount");
    if !remount.is_empty() {
        // Without a line in fstab, mount(8) adds the options that the mount table shows.
        options.retain(|option| !["user_id", "group_id"].contains(&key(option)));
    }
    let mut settings =
        MountSettings::parse(daemons.clone(), mount_point.clone(), &options, unknown)?;
    if args.fake {
        return Ok(());
    }
    if !remount.is_empty() {
        // `mount -o remount`, which `systemctl reload` runs, too.
        settings = super::mount::replacing(mount_point, &options, unknown)?;
        settings.options.daemons = daemons;
    }
    super::mount::serve_settings(settings, None, (false, JsonChoice::default()))
}
