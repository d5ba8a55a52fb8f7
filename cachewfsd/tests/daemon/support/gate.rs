//! A gate at upstream: git sends its packs only while a test keeps the gate open, and they are
//! counted.

use std::fs;
use std::path::{Path, PathBuf};

use cachewfs_daemon::Config;

use crate::support::test_daemon::{TestDaemon, eventually, write_file};

/// A hook that upstream's git runs for each pack that it sends, and a trace of all git commands.
pub(crate) struct Gate {
    directory: PathBuf,
}

impl Gate {
    /// Starts a daemon whose upstream is behind an open gate.
    pub(crate) async fn start(change: impl FnOnce(&mut Config)) -> (TestDaemon, Self) {
        let mut gate = None;
        let daemon = TestDaemon::start_with(|config| {
            let (made, file) = Self::create(config.data_dir.path().with_file_name("gate"));
            gate = Some(made);
            config.git.config_file = Some(file);
            change(config);
        })
        .await;
        (daemon, gate.unwrap())
    }

    /// Creates an open gate. Returns it with the git configuration for the daemon and its upstream.
    pub(crate) fn create(directory: PathBuf) -> (Self, PathBuf) {
        let hook = directory.join("hook");
        let (shown, trace) = (directory.display(), directory.join("trace"));
        let script = format!(
            "#!/bin/sh\necho >> {shown}/packs\n\
                 while [ ! -e {shown}/open ]; do\n\
                 if [ -e {shown}/broken ]; then exit 1; fi\nsleep 0.02\ndone\nexec \"$@\"\n"
        );
        write_script(&hook, &script);
        write_file(&directory.join("open"), "");
        let smudge = directory.join("smudge");
        let script =
            format!("#!/bin/sh\nwhile [ -e {shown}/no-checkout ]; do sleep 0.02; done\nexec cat\n");
        write_script(&smudge, &script);
        let file = directory.join("config");
        let hook = hook.display();
        let trace = trace.display();
        let smudge = smudge.display();
        let text = format!(
            "[uploadpack]\npackObjectsHook = {hook}\n[trace2]\neventTarget = {trace}\n\
                 [filter \"gate\"]\nsmudge = {smudge}\n"
        );
        write_file(&file, text);
        (Self { directory }, file)
    }

    pub(crate) fn open(&self) {
        write_file(&self.directory.join("open"), "");
    }

    pub(crate) fn close(&self) {
        fs::remove_file(self.directory.join("open")).unwrap();
    }

    /// Blocks the checkout of files that have the attribute `filter=gate`.
    pub(crate) fn hold_checkout(&self) {
        write_file(&self.directory.join("no-checkout"), "");
    }

    pub(crate) fn release_checkout(&self) {
        fs::remove_file(self.directory.join("no-checkout")).unwrap();
    }

    /// Makes upstream fail for the requests that wait at the closed gate.
    pub(crate) fn fail(&self) {
        write_file(&self.directory.join("broken"), "");
    }

    /// Makes upstream work again, and opens the gate.
    pub(crate) fn repair(&self) {
        fs::remove_file(self.directory.join("broken")).unwrap();
        self.open();
    }

    /// Returns how many packs were requested from upstream.
    pub(crate) fn packs(&self) -> usize {
        lines(&self.directory.join("packs")).len()
    }

    /// Waits until `count` packs were requested.
    pub(crate) async fn wait_for_packs(&self, count: usize) {
        eventually(|| self.packs() >= count).await;
    }

    /// Returns how often this subcommand of git ran, started by the daemon or by git itself.
    pub(crate) fn runs(&self, subcommand: &str) -> usize {
        let name = "\"event\":\"cmd_name\"";
        let wanted = format!("\"name\":\"{subcommand}\"");
        let trace = lines(&self.directory.join("trace"));
        let is_run = |line: &&String| line.contains(name) && line.contains(&wanted);
        trace.iter().filter(is_run).count()
    }
}

fn write_script(path: &Path, text: &str) {
    write_file(path, text);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(path, mode).unwrap();
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
