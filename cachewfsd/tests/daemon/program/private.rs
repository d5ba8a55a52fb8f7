//! Other users of the machine cannot read the directories of the daemon.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::support::process::{refresh, start_process};
use crate::support::test_daemon::*;

/// Returns all paths in `directory`, and itself, that the group or others can access.
fn open_to_others(directory: &Path) -> Vec<PathBuf> {
    let mut open = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = path.symlink_metadata().unwrap();
        if metadata.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
        if !metadata.is_symlink() && metadata.permissions().mode() & 0o077 != 0 {
            open.push(path);
        }
    }
    open
}

/// Creates an upstream with one commit. Returns the configuration of a daemon whose git
/// configuration would make files accessible to everybody.
fn upstream_of(root: &Path) -> String {
    let bare = root.join("upstream/org/repo.git");
    let work = create_upstream(&bare, root.join("work"));
    write_file(&work.join("file"), "secret\n");
    commit_and_push(&work, "one");
    write_file(
        &root.join("gitconfig"),
        "[core]\n\tsharedRepository = 0666\n",
    );
    format!(
        "[git]\nconfig_file = '{0}/gitconfig'\n[store]\ndirectory = '{0}/elsewhere/store'\n\
         [upstreams]\n'git.example.com' = 'file://{0}/upstream'\n",
        root.display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_and_segments_are_accessible_only_to_the_daemon() {
    let root = tempfile::tempdir().unwrap();
    let config = upstream_of(root.path());

    let daemon = start_process(&root.path().join("daemon"), &config, &[]);
    refresh(&daemon).await;

    let data = root.path().join("daemon/data");
    assert!(data.join(format!("mirrors/{REPO}.git/HEAD")).exists());
    assert_eq!(open_to_others(&data), Vec::<PathBuf>::new());
    assert_eq!(
        open_to_others(&root.path().join("elsewhere")),
        Vec::<PathBuf>::new()
    );
    assert!(!daemon.log().contains("Other users"), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_is_open_to_others_is_logged() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("daemon/data");
    fs::create_dir_all(data.join("mirrors")).unwrap();
    for open in [data.clone(), data.join("mirrors")] {
        fs::set_permissions(open, Permissions::from_mode(0o755)).unwrap();
    }

    let daemon = start_process(&root.path().join("daemon"), "", &[]);

    let advice = format!("run chmod go= {0} {0}/*", data.display());
    assert!(daemon.log().contains(&advice), "{}", daemon.log());
}
