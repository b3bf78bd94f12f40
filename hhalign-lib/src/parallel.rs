//! Work on several items at once whose results do not depend on how many threads there are.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

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
    let mut results = Vec::with_capacity(items.len());
    for_each_in_order(items, work, |result| results.push(result))?;
    Ok(results)
}

/// `work` on every item as in [`map`]; each result goes to `take` in the order of the items, as soon as its turn has
/// come, so that results need not all exist at once and a sum does not depend on the number of threads.
///
/// # Errors
/// As [`map`].
pub fn for_each_in_order<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
    mut take: impl FnMut(R) + Send,
) -> Result<()> {
    let threads = threads().min(items.len());
    let (gate, quiet) = (GATE.with_borrow(Clone::clone), QUIET.get());
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
        QUIET.set(quiet);
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

/// `work` on every item in this thread, behind the same gate: for work that one device does.
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

/// Something that holds work back for a while, as a paused run does.
pub trait Gate: Send + Sync {
    /// Returns when work may go on.
    fn pass(&self);
}

thread_local! {
    static GATE: RefCell<Option<Arc<dyn Gate>>> = const { RefCell::new(None) };
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Does `work`; every item that it shares out through this module passes the gate before it is begun.
pub fn behind<R>(gate: Option<Arc<dyn Gate>>, work: impl FnOnce() -> R) -> R {
    struct Restore(Option<Arc<dyn Gate>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            GATE.set(self.0.take());
        }
    }
    let _restore = Restore(GATE.replace(gate));
    work()
}

/// Marks this thread, and those that will share its work, as ones whose panics are read and not printed.
pub fn keep_quiet() {
    QUIET.set(true);
}

/// Whether a panic in this thread is kept from the terminal.
pub fn is_quiet() -> bool {
    QUIET.get()
}

/// Threads that share work: what [`set_threads`] or `HHALIGN_THREADS` says, or else one for each core.
pub fn threads() -> usize {
    static DEFAULT: LazyLock<usize> = LazyLock::new(|| {
        let asked = std::env::var("HHALIGN_THREADS").ok().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
        asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    });
    match THREADS.load(Ordering::Relaxed) {
        0 => *DEFAULT,
        n => n,
    }
}

/// Sets the number of threads from here on; 0 goes back to the default. No result depends on it.
pub fn set_threads(n: usize) {
    THREADS.store(n, Ordering::Relaxed);
}

static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Results on their way to their turn.
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

/// A panic as an error.
pub fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let message = panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(|s| s.to_string()));
    Error::new(
        "a worker thread panicked",
        message.unwrap_or_default(),
        "this is a bug: please report it with the settings used",
    )
}

/// Things that are costly to make, lent to one thread at a time and kept for the next.
#[derive(Debug)]
pub struct Pool<T>(Mutex<Vec<T>>);

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Pool<T> {
    /// An empty pool.
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// One that was given back, if there is any.
    pub fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Keeps one for the next.
    pub fn give(&self, thing: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(thing);
    }

    /// Lends one to `work`: one that was used before, or a new one.
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
