//! One file for each subcommand. `Args` has its arguments, whose doc comments are the help text;
//! `run` runs it.

pub(crate) mod before_sleep;
pub(crate) mod clone;
pub(crate) mod completions;
pub(crate) mod dissociate;
pub(crate) mod doctor;
pub(crate) mod forget;
pub(crate) mod man;
pub(crate) mod mount;
pub(crate) mod mount_helper;
pub(crate) mod pin;
pub(crate) mod pins;
pub(crate) mod prefetch;
pub(crate) mod refresh;
pub(crate) mod report;
pub(crate) mod restore;
pub(crate) mod status;
pub(crate) mod umount;
pub(crate) mod unpin;
pub(crate) mod verify;
