//! hhalign: preference alignment of a small GPT, step by step.
//!
//! Pairs of replies ([`data`]) become ids ([`tokenize`]) and batches ([`batch`]); a GPT ([`model`]) is fine-tuned on the
//! preferred replies and then on the preferences themselves ([`train`], with the losses of [`loss`]); five metrics
//! ([`eval`]) say what changed. Notebook cells name all of it through [`prelude`].
//!
//! ```
//! use hhalign::prelude::*;
//! let data = Dataset::embedded(0, 120)?;
//! let split = data.split(0.1)?;
//! let tokenizer = Tokenizer::train(&split.train, 400)?;
//! let pairs = TokenizedPairs::new(&split.train, &tokenizer, 256)?;
//! let reference = Gpt::new(Preset::Toy.config(tokenizer.vocab_size()), 0)?;
//! let policy = reference.fork()?;
//! let before = reference_logps(&reference, &pairs, None)?;
//! let first = pair_logps(&policy, &before, &pairs, &[0, 1], &mut Dropout::off())?;
//! let loss = PreferenceLoss::Sigmoid.mean(&first, 0.1)?;
//! assert!((loss - 2f64.ln()).abs() < 1e-4);
//! # Ok::<(), Error>(())
//! ```

pub mod batch;
pub mod checkpoint;
pub mod data;
pub mod device;
pub mod display;
pub mod error;
pub mod eval;
pub(crate) mod executor;
pub mod export;
pub mod files;
pub mod fused;
pub mod gpu;
pub mod gradients;
pub mod hub;
pub mod kl;
pub mod lab;
pub mod lesson;
pub mod live;
pub mod loss;
pub mod model;
pub mod nn;
pub mod optim;
pub mod options;
pub mod pages;
pub mod parallel;
pub mod plot;
pub mod prelude;
pub mod report;
pub mod reward;
pub mod rng;
pub mod sample;
pub mod score;
pub mod secret;
pub mod server;
pub mod stats;
pub mod table;
pub mod tokenize;
pub mod train;
pub mod view;

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
