//! Host names that only the processes of one test see: a hosts file and a resolver configuration of
//! their own.
//!
//! The processes run in a mount namespace of their own, where these files hide those of `/etc`. The
//! directory of the workstation is shared between both namespaces, so this process sees the mounts
//! in it, too.

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rustix::mount::{MountPropagationFlags, UnmountFlags};

/// Hides two files of `/etc`, and executes the rest of the command line. The mounts in `/etc` must
/// not appear in the namespace outside.
const ENTER: &str = "for file in hosts resolv.conf; do \
    mount --make-slave \"$(stat --dereference --format %m /etc/$file)\" && \
    mount --bind \"$0/$file\" \"$(readlink --canonicalize /etc/$file)\" || exit; done; exec \"$@\"";

/// The host names of a workstation. Dropping this unmounts its directory.
#[derive(Debug)]
pub struct HostNames {
    workstation: PathBuf,
    files: PathBuf,
}

impl HostNames {
    /// Prepares the directory `workstation` for mounts that see other names. Until
    /// [`Self::set_resolver`], there is no DNS server.
    pub fn create(workstation: &Path) -> Self {
        let files = workstation.with_extension("names");
        for directory in [workstation, &files] {
            fs::create_dir_all(directory).unwrap();
        }
        rustix::mount::mount_bind(workstation, workstation).unwrap();
        rustix::mount::mount_change(workstation, MountPropagationFlags::SHARED).unwrap();
        let names = Self {
            workstation: workstation.to_owned(),
            files,
        };
        names.set(&[]);
        names.write("resolv.conf", "");
        names
    }

    /// Replaces the names by `names`, each with its address. A name may have several.
    pub fn set(&self, names: &[(&str, IpAddr)]) {
        let lines = names
            .iter()
            .map(|(name, address)| format!("{address} {name}\n"));
        self.write("hosts", &lines.collect::<String>());
    }

    /// Makes `server` answer for all other names.
    pub fn set_resolver(&self, server: IpAddr) {
        self.write("resolv.conf", &format!("nameserver {server}\n"));
    }

    /// Returns the command line in front of a program that sees the names.
    pub fn wrapper(&self) -> Vec<String> {
        let files = self.files.display().to_string();
        let words = ["unshare", "--mount", "--propagation", "unchanged"];
        let words = words.iter().chain(&["sh", "-c", ENTER]);
        let words = words.map(|&word| word.to_owned());
        words.chain([files]).collect()
    }

    /// Writes into the file that there is: the other namespace shows this file, not its name.
    fn write(&self, name: &str, text: &str) {
        let file = fs::File::create(self.files.join(name));
        file.unwrap().write_all(text.as_bytes()).unwrap();
    }
}

impl Drop for HostNames {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.workstation, UnmountFlags::DETACH).ok();
    }
}
