//! The file that replaces the user's git configuration for all git processes of the daemon.

use std::io;
use std::path::{Path, PathBuf};

/// The settings that every git process of the daemon gets.
///
/// Versions of git differ in their defaults, and files in the home directory of the daemon's user
/// must not change a snapshot. So everything that a snapshot depends on is set here:
///
/// - `safe.directory`: upstreams on this machine may belong to other users.
/// - `safe.bareRepository`: programs that git starts find bare repositories by their directory.
/// - `gc.auto`, `maintenance.auto`: the daemon maintains mirrors itself (`mirror/maintain.rs`).
const GIT_CONFIG: &str = "\
[safe]
\tdirectory = *
\tbareRepository = all
[core]
\tattributesFile = /dev/null
\texcludesFile = /dev/null
\thooksPath = /dev/null
\tfsmonitor = false
[init]
\tdefaultBranch = main
[gc]
\tauto = 0
[maintenance]
\tauto = false
";

/// A setting that overrides the operator's file. With any other value, git would let other users of
/// the machine read a mirror.
const PRIVATE_MIRRORS: &str = "[core]\n\tsharedRepository = umask\n";

/// Writes the file into `directory`, and returns its path. It includes the operator's file, which
/// may name credential helpers.
pub(crate) fn write_global_config(
    directory: &Path,
    operators_file: Option<&Path>,
) -> io::Result<PathBuf> {
    let directory = std::path::absolute(directory)?;
    std::fs::create_dir_all(&directory)?;
    let path = directory.join("config");
    let mut text = GIT_CONFIG.to_owned();
    if let Some(file) = operators_file {
        let file = std::path::absolute(file)?
            .to_string_lossy()
            .replace('\\', "\\\\")
            .replace('"', "\\\"");
        text.extend(["[include]\n\tpath = \"", &file, "\"\n"]);
    }
    // Of several values of a setting, git takes the last one.
    text.push_str(PRIVATE_MIRRORS);
    let mut file = tempfile::NamedTempFile::new_in(&directory)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    file.persist(&path)?;
    Ok(path)
}
