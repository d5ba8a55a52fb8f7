//! Runs the same blocking work on many items with a few threads, for work that waits for the
//! network.

use parking_lot::Mutex;
use tokio::runtime::Handle;

/// Returns the results of `work` in the order of `items`. At most `limit` run at the same time.
/// Blocks. The threads belong to the runtime of the caller.
pub fn map_concurrently<T: Sync, R: Send>(
    items: &[T],
    limit: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let mut made: Vec<Option<R>> = items.iter().map(|_| None).collect();
    {
        let next = Mutex::new(items.iter().zip(&mut made));
        let runtime = Handle::try_current().ok();
        let work_on_some = || {
            let _runtime = runtime.as_ref().map(Handle::enter);
            loop {
                let taken = next.lock().next();
                let Some((item, place)) = taken else { break };
                *place = Some(work(item));
            }
        };
        std::thread::scope(|scope| {
            // The caller's thread works too.
            for _ in 1..items.len().min(limit) {
                scope.spawn(work_on_some);
            }
            work_on_some();
        });
    }
    made.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items() {
        let items: Vec<usize> = (0..1000).collect();

        assert_eq!(map_concurrently(&items, 8, |item| *item), items);
        assert_eq!(map_concurrently(&[0; 0], 8, |item| *item), [0; 0]);
    }
}
