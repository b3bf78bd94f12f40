//! Work on several items at once whose results do not depend on how many threads there are.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};

/// `work` on every item, in as many threads as there are cores; the results come in the order of the items.
///
/// # Errors
/// The first error in the order of the items, or a panic in `work`.
///
/// # Example
/// ```
/// assert_eq!(hhalign::parallel::map(&[1, 2, 3], |x| Ok(x * x))?, [1, 4, 9]);
/// # Ok::<(), hhalign::error::Error>(())
/// ```
pub fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len());
    if threads <= 1 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = vec![];
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else {
                return done;
            };
            done.push((index, work(item)));
        }
    };
    let parts = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(take)).collect();
        handles.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let mut results = vec![];
    for part in parts {
        results.extend(part.map_err(|panic| {
            let message =
                panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(|s| s.to_string()));
            Error::new(
                "a worker thread panicked",
                message.unwrap_or_default(),
                "this is a bug: please report it with the settings used",
            )
        })?);
    }
    results.sort_by_key(|r| r.0);
    results.into_iter().map(|r| r.1).collect()
}
