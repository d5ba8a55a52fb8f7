//! Whether the kernel reads complete files of the cache itself (passthrough), and if not, why.

use std::path::Path;
use std::sync::OnceLock;

use crate::options::MountOptions;
use crate::report::PassthroughReport;

/// The first kernel that reads files of the cache itself.
const FIRST_KERNEL: (u32, u32) = (6, 9);
/// Filesystems on top of other filesystems: the kernel refuses to stack a mount upon them.
const STACKED: [(i64, &str); 2] = [(0x794c_7630, "overlayfs"), (0xf15f, "ecryptfs")];

/// The reason why passthrough can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PassthroughObstacle {
    /// The person who mounted doesn't want it.
    #[error("the mount has the option no_passthrough")]
    TurnedOff,
    /// The kernel is too old.
    #[error("the kernel is too old for it: Linux 6.9 is the first that has it")]
    OldKernel,
    /// The user who mounted is not root.
    #[error("the kernel allows it only to root's mounts")]
    NotRoot,
    /// The cache is on a filesystem that is on top of another.
    #[error("the cache is on {0}, which the kernel refuses for passthrough")]
    Stacked(&'static str),
    /// The kernel has refused a file of the cache for another reason.
    #[error("the kernel refuses it for files of the cache: {0}")]
    Refused(String),
    /// The kernel doesn't offer it, for a reason that isn't known.
    #[error("the kernel does not offer it")]
    NotOffered,
}

impl PassthroughObstacle {
    /// Returns the reason why a mount of `uid` with its cache in `directory` can't use passthrough,
    /// as far as that is known without a mount.
    pub fn find(is_wanted: bool, uid: u32, directory: &Path) -> Option<Self> {
        if !is_wanted {
            return Some(Self::TurnedOff);
        }
        if !kernel_has_passthrough() {
            return Some(Self::OldKernel);
        }
        if uid != 0 {
            return Some(Self::NotRoot);
        }
        let kind = rustix::fs::statfs(directory).ok()?.f_type;
        let stacked = STACKED.iter().find(|(stacked, _)| *stacked == kind)?;
        Some(Self::Stacked(stacked.1))
    }
}

/// Returns whether the running kernel supports passthrough.
pub fn kernel_has_passthrough() -> bool {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(|letter: char| !letter.is_ascii_digit())
        .map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= FIRST_KERNEL,
        // A release that can't be parsed is the user's own build.
        _ => true,
    }
}

/// The kernel's answers about passthrough, as a mount has noted them.
#[derive(Debug, Default)]
pub(crate) struct Passthrough {
    is_offered: OnceLock<bool>,
    /// The first reason for which the kernel refused a file.
    refusal: OnceLock<String>,
}

impl Passthrough {
    /// Notes whether the kernel and this program agreed on passthrough.
    pub(crate) fn note_offer(&self, is_offered: bool) {
        self.is_offered.set(is_offered).ok();
    }

    /// Notes that the kernel refused a file. Returns whether it is the first one.
    pub(crate) fn note_refusal(&self, reason: String) -> bool {
        self.refusal.set(reason).is_ok()
    }

    /// Returns whether passthrough is in use, and if not, why.
    pub(crate) fn report(&self, options: &MountOptions) -> PassthroughReport {
        let refusal = self.refusal.get();
        let is_used = refusal.is_none() && self.is_offered.get() == Some(&true);
        let obstacle = (!is_used).then(|| {
            let uid = rustix::process::geteuid().as_raw();
            let found = PassthroughObstacle::find(options.passthrough, uid, &options.cache_dir);
            let refused = refusal.cloned().map(PassthroughObstacle::Refused);
            found.or(refused).unwrap_or(PassthroughObstacle::NotOffered)
        });
        PassthroughReport {
            is_used,
            reason: obstacle.map(|obstacle| obstacle.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_why_passthrough_is_not_in_use() {
        let mut options = MountOptions::new("/mnt".into(), Vec::new());
        let state = Passthrough::default();
        state.note_offer(true);
        let used = state.report(&options);
        assert_eq!((used.is_used, used.reason), (true, None));

        assert!(state.note_refusal("Function not implemented".to_owned()));
        assert!(!state.note_refusal("again".to_owned()));
        let refused = state.report(&options);
        assert!(!refused.is_used);
        if PassthroughObstacle::find(true, 0, &options.cache_dir).is_none()
            && rustix::process::geteuid().is_root()
        {
            let reason = "the kernel refuses it for files of the cache: Function not implemented";
            assert_eq!(refused.reason.as_deref(), Some(reason));
        }

        options.passthrough = false;
        let reason = state.report(&options).reason;
        assert_eq!(
            reason.as_deref(),
            Some("the mount has the option no_passthrough")
        );
    }
}
