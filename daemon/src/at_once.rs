//! The same work on many things, of which each waits for the network: some at once, on threads of their own.

use std::sync::{Mutex, PoisonError};

/// What `work` makes of each item, in their order; `limit` at most are worked on at once. Blocks.
pub(crate) fn map_at_once<T: Sync, R: Send>(
    items: &[T],
    limit: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let mut made: Vec<Option<R>> = items.iter().map(|_| None).collect();
    {
        let next = Mutex::new(items.iter().zip(&mut made));
        let work_on_some = || {
            loop {
                let taken = next.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((item, place)) = taken else { break };
                *place = Some(work(item));
            }
        };
        std::thread::scope(|scope| {
            // One of them is this thread.
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
    fn all_are_worked_on_and_stay_in_order() {
        let items: Vec<usize> = (0..1000).collect();

        assert_eq!(map_at_once(&items, 8, |item| *item), items);
        assert_eq!(map_at_once(&[0; 0], 8, |item| *item), [0; 0]);
    }
}
