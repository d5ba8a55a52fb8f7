//! End-to-end tests: real daemons, mounts and CLI commands. One file for each topic.

#![expect(
    clippy::unwrap_used,
    reason = "a test that can't be set up has to fail"
)]

mod addresses;
mod archives;
mod bad_input;
mod bare;
mod cache;
mod catch_up;
mod clone;
mod clone_options;
mod command_line;
mod control;
mod crash;
mod day;
mod direct;
mod dissociate;
mod doctor;
mod faults;
mod for_programs;
mod frozen;
mod git_versions;
mod hand_over;
mod heads;
mod helper;
mod kept;
mod killed;
mod local;
mod messages;
mod model;
mod mounted;
mod odd_trees;
mod offline;
mod publish;
mod replicas;
mod restart;
mod restore;
mod restore_again;
mod restore_ready;
mod right_bytes;
mod several_mounts;
mod silence;
mod stored;
mod submodules;
mod tokens;
