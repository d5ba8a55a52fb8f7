//! `mount.cachewfs`, which mount(8) runs for `mount -t cachewfs` and for lines of fstab.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

use crate::mounting::{MountSettings, OPTIONS_HELP, daemon_urls};

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

    /// Accepted for mount(8); unknown options are refused all the same.
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

pub(crate) fn run(args: &Args) -> Result<()> {
    let daemons = daemon_urls(&args.source)?;
    let mount_point = args.mount_point.clone();
    let options = args.options.iter().flat_map(|list| list.split(','));
    let (remount, options): (Vec<_>, Vec<_>) = options
        .map(str::to_owned)
        .partition(|option| option.trim() == "remount");
    let settings = MountSettings::parse(daemons.clone(), mount_point.clone(), &options)?;
    if args.fake {
        return Ok(());
    }
    let settings = if remount.is_empty() {
        settings
    } else {
        // `mount -o remount`, which `systemctl reload` runs, too.
        let mut settings = super::mount::replacing(mount_point, &options)?;
        settings.options.daemons = daemons;
        settings
    };
    super::mount::serve_settings(settings, None, false)
}
