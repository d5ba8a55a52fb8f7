//! `mount.cachewfs`, which mount(8) runs for `mount -t cachewfs` and for lines of fstab.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

use crate::mounting::{MountSettings, OPTIONS_HELP, daemon_urls};

/// Mount the repositories of a cachewfs daemon; run by mount(8).
///
///   mount -t cachewfs http://HOST:8080 /cachewfs -o allow_other
///
/// In /etc/fstab:
///
///   http://HOST:8080 /cachewfs cachewfs allow_other,_netdev,nofail 0 0
#[derive(Debug, Parser)]
#[command(name = "mount.cachewfs", version, verbatim_doc_comment, after_help = OPTIONS_HELP)]
pub(crate) struct Args {
    /// The daemon's URL, or several with commas between.
    source: String,

    /// The directory to mount at.
    mount_point: PathBuf,

    /// Mount options, separated by commas.
    #[arg(short, value_name = "OPTIONS")]
    options: Vec<String>,

    /// Accept options that are not known.
    #[arg(short)]
    sloppy: bool,

    /// Check the options only.
    #[arg(short)]
    fake: bool,

    /// Don't write /etc/mtab; it is never written.
    #[arg(short)]
    no_mtab: bool,

    /// Say more; nothing more is to be said.
    #[arg(short)]
    verbose: bool,

    /// The type of file system; it is always this one.
    #[arg(short = 't', value_name = "TYPE")]
    kind: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let daemons = daemon_urls(&args.source)?;
    let settings = MountSettings::parse(daemons, args.mount_point.clone(), &args.options)?;
    if args.fake {
        return Ok(());
    }
    super::mount::serve_settings(settings, None, false)
}
