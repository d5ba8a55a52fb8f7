//! Between tasks, which never block, and threads that may block.

use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

/// Runs a call of the store to its end. For threads of a runtime that may block: a publish runs on
/// one.
///
/// # Panics
///
/// If the caller is a task, or a thread outside of a runtime.
pub fn wait<T>(call: impl Future<Output = T>) -> T {
    Handle::current().block_on(call)
}

/// Runs `work` on a thread that may block. If the caller goes away, the work goes on to its end.
/// Returns `None` if the runtime is shutting down.
pub(super) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    match spawn_blocking(work).await {
        Ok(done) => Some(done),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}
