//! hhalign: preference alignment of a small GPT, step by step.

pub mod batch;
pub mod checkpoint;
pub mod data;
pub mod display;
pub mod error;
pub mod eval;
pub mod files;
pub mod lesson;
pub mod loss;
pub mod model;
pub mod nn;
pub mod optim;
pub mod options;
pub mod parallel;
pub mod plot;
pub mod prelude;
pub mod rng;
pub mod sample;
pub mod score;
pub mod table;
pub mod tokenize;
pub mod train;

/// Counts its calls: 1, 2, 3, ... A cell that sees the count of an earlier cell shares its memory with it.
///
/// # Example
/// ```
/// let first = hhalign::kernel_probe();
/// assert_eq!(hhalign::kernel_probe(), first + 1);
/// ```
pub fn kernel_probe() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static CALLS: AtomicU64 = AtomicU64::new(0);
    CALLS.fetch_add(1, Ordering::SeqCst) + 1
}
