//! Runs long parsing outside the threads that answer calls.
//!
//! The runtime has one thread for each core, and all repositories share them. The refs of an
//! archive may have 256 MiB and its index 1 GiB. If these were parsed on the runtime's threads, a
//! few archives could stop the calls of all other repositories, and timers as well.

use tokio::sync::Semaphore;

/// At most this many files are parsed at the same time. A parse takes about three times the memory
/// of its file.
static PARSERS: Semaphore = Semaphore::const_new(2);

/// Files up to this length are parsed at once, in bytes: it takes less time than a change of
/// threads and holds nobody up.
const MAX_SHORT: u64 = 256 << 10;

/// Runs `parse`, which parses `len` bytes. If these are many, it runs on a thread of its own, and
/// waits until few enough others run.
pub(crate) async fn parse<T: Send + 'static>(
    len: u64,
    parse: impl FnOnce() -> T + Send + 'static,
) -> T {
    if len <= MAX_SHORT {
        return parse();
    }
    // The semaphore is never closed, so there is a permit in the end.
    let _permit = PARSERS.acquire().await;
    match tokio::task::spawn_blocking(parse).await {
        Ok(parsed) => parsed,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is ending, so nobody waits for a result any more.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_long_parse_leaves_the_runtime_to_others() {
        let (sender, receiver) = std::sync::mpsc::channel();

        // The test has one thread. It could not send while it parses.
        let parsed = parse(MAX_SHORT + 1, move || receiver.recv().unwrap());
        let (parsed, ()) = tokio::join!(parsed, async move { sender.send("parsed").unwrap() });

        assert_eq!(parsed, "parsed");
        assert_eq!(parse(MAX_SHORT, || 7).await, 7);
    }
}
