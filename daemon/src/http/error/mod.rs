//! The border where errors become HTTP answers: a status, a stable code, and a message that ends
//! with the next step.
//!
//! Codes are part of the interface (`cachewfs_format::api::code`, `docs/http-api.md`); messages may
//! change.

mod answer;
mod api;
mod for_git;
mod git;
mod lfs;
mod repository;
mod store;

pub(super) use api::{ApiError, MovedTo};
pub(super) use for_git::answer_git_in_text;
pub(super) use git::GitHttpError;
pub(super) use lfs::lfs_answer;
pub(super) use repository::repository_answer;
pub(super) use store::store_answer;
