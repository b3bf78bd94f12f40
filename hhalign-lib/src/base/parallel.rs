//! Parallel work on items, with results that do not depend on the number of threads.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use crate::base::error::{Error, Result};

/// Applies `work` to every item, in one thread for each core; returns the results in the order of
/// the items.
///
/// # Errors
/// The first error in the order of the items, or a panic in `work`.
///
/// # Example
/// ```
/// assert_eq!(hhalign::base::parallel::map(&[1, 2, 3], |x| Ok(x * x))?, [1, 4, 9]);
/// # Ok::<(), hhalign::base::error::Error>(())
/// ```
pub fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let mut results = Vec::with_capacity(items.len());
    for_each_in_order(items, work, |result| results.push(result))?;
    Ok(results)
}

/// Applies `work` to every item as [`map`] does, and passes each result to `take` in the order of
/// the items as soon as possible: results need not all exist at once, and a sum does not depend on
/// the number of threads.
///
/// # Errors
/// As [`map`].
pub fn for_each_in_order<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
    mut take: impl FnMut(R) + Send,
) -> Result<()> {
    let threads = threads().min(items.len());
    let (gate, silent) = (GATE.with_borrow(Clone::clone), SILENT.get());
    let work = |item: &T| {
        if let Some(gate) = &gate {
            gate.pass();
        }
        catch_unwind(AssertUnwindSafe(|| work(item))).unwrap_or_else(|panic| Err(panicked(&*panic)))
    };
    if threads <= 1 {
        return items.iter().try_for_each(|item| work(item).map(&mut take));
    }
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let order = Mutex::new(Order { turn: 0, waiting: BTreeMap::new(), error: None, take });
    let run = || {
        SILENT.set(silent);
        while !failed.load(Ordering::Relaxed) {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(i) else { break };
            let result = work(item);
            failed.fetch_or(result.is_err(), Ordering::Relaxed);
            order.lock().unwrap_or_else(PoisonError::into_inner).add(i, result);
        }
    };
    std::thread::scope(|scope| {
        (1..threads).for_each(|_| drop(scope.spawn(run)));
        run();
    });
    order.into_inner().unwrap_or_else(PoisonError::into_inner).error.map_or(Ok(()), Err)
}

/// Applies `work` to every item in this thread, with the same gate: for work on one device.
///
/// # Errors
/// The first error.
pub fn one_by_one<T, R>(items: &[T], mut work: impl FnMut(&T) -> Result<R>) -> Result<Vec<R>> {
    let gate = GATE.with_borrow(Clone::clone);
    let each = items.iter().map(|item| {
        if let Some(gate) = &gate {
            gate.pass();
        }
        work(item)
    });
    each.collect()
}

/// Delays work, as a paused run does.
pub trait Gate: Send + Sync {
    /// Returns as soon as work may continue.
    fn pass(&self);
}

thread_local! {
    static GATE: RefCell<Option<Arc<dyn Gate>>> = const { RefCell::new(None) };
    static SILENT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; every item that it distributes through this module passes the gate first.
pub fn with_gate<R>(gate: Option<Arc<dyn Gate>>, work: impl FnOnce() -> R) -> R {
    struct Restore(Option<Arc<dyn Gate>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            GATE.set(self.0.take());
        }
    }
    let _restore = Restore(GATE.replace(gate));
    work()
}

/// Silences panics of this thread and of those that will share its work: they become errors and are
/// not printed.
pub fn silence_panics() {
    SILENT.set(true);
}

/// Whether panics of this thread are silenced.
pub fn is_silent() -> bool {
    SILENT.get()
}

#[doc(hidden)]
#[deprecated(since = "0.2.0", note = "renamed to with_gate")]
pub fn behind<R>(gate: Option<Arc<dyn Gate>>, work: impl FnOnce() -> R) -> R {
    with_gate(gate, work)
}

#[doc(hidden)]
#[deprecated(since = "0.2.0", note = "renamed to silence_panics")]
pub fn keep_quiet() {
    silence_panics();
}

#[doc(hidden)]
#[deprecated(since = "0.2.0", note = "renamed to is_silent")]
pub fn is_quiet() -> bool {
    is_silent()
}

/// The number of threads that share work: that of [`set_threads`] or `HHALIGN_THREADS`, or else one
/// for each core.
pub fn threads() -> usize {
    static DEFAULT: LazyLock<usize> = LazyLock::new(|| {
        let asked =
            std::env::var("HHALIGN_THREADS").ok().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
        asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    });
    match THREADS.load(Ordering::Relaxed) {
        0 => *DEFAULT,
        n => n,
    }
}

/// Sets the number of threads; 0 restores the default. No result depends on it.
pub fn set_threads(n: usize) {
    THREADS.store(n, Ordering::Relaxed);
}

static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Results that wait for those of earlier items.
struct Order<R, F> {
    turn: usize,
    waiting: BTreeMap<usize, Result<R>>,
    error: Option<Error>,
    take: F,
}

impl<R, F: FnMut(R)> Order<R, F> {
    fn add(&mut self, i: usize, result: Result<R>) {
        self.waiting.insert(i, result);
        while self.error.is_none()
            && let Some(result) = self.waiting.remove(&self.turn)
        {
            self.turn += 1;
            match result {
                Ok(value) => (self.take)(value),
                Err(error) => self.error = Some(error),
            }
        }
    }
}

/// Converts a panic into an error.
pub fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let message = panic
        .downcast_ref::<String>()
        .cloned()
        .or(panic.downcast_ref::<&str>().map(|s| s.to_string()));
    Error::bug("a worker thread panicked", message.unwrap_or_default())
}

/// Costly objects, each lent to one thread at a time and kept for the next.
#[derive(Debug)]
pub struct Pool<T>(Mutex<Vec<T>>);

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Pool<T> {
    /// Creates an empty pool.
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Takes an object that was given back, if there is one.
    pub fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Gives an object back.
    pub fn give(&self, object: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(object);
    }

    /// Lends a used or a new object to `work`.
    pub fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R
    where
        T: Default,
    {
        let mut lent = self.take().unwrap_or_default();
        let result = work(&mut lent);
        self.give(lent);
        result
    }
}
