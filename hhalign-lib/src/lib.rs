//! hhalign: preference alignment of a small GPT, step by step.
//!
//! Pairs of replies ([`data`]) become ids and batches; a GPT ([`model`]) is fine-tuned on the
//! preferred replies and then on the preferences themselves ([`train`], with the losses of
//! [`loss`]); five metrics ([`eval`]) say what changed. Notebook cells name all of it through
//! [`prelude`]. docs/DESIGN.md lists the modules in layers.
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

/// Modules of version 0.1 that have moved: their old paths work until 0.3, with a warning.
macro_rules! moved {
    ($($old:ident to $new:literal { $($item:item)* })*) => {$(
        #[doc(hidden)]
        #[deprecated(since = "0.2.0", note = $new)]
        pub mod $old {
            $($item)*
        }
    )*};
}

pub mod base;
pub mod compute;
pub mod data;
pub mod eval;
pub mod infer;
pub mod live;
pub mod loss;
pub mod model;
pub mod notebook;
pub mod prelude;
pub mod report;
pub mod show;
pub mod stats;
pub mod train;

moved! {
    batch to "moved to hhalign::data::batch" {
        pub use crate::data::batch::*;
    }
    checkpoint to "moved to hhalign::model::checkpoint" {
        pub use crate::model::checkpoint::*;
    }
    device to "moved to hhalign::compute::Device" {
        pub use crate::compute::Device;
    }
    error to "moved to hhalign::base::error" {
        pub use crate::base::error::*;
    }
    export to "moved to hhalign::train::export" {
        pub use crate::train::export::*;
    }
    files to "moved to hhalign::base::files" {
        pub use crate::base::files::*;
    }
    fused to "moved to hhalign::compute::cpu" {
        pub use crate::compute::cpu::*;
        pub use crate::compute::{Compute, Precision};
        pub use crate::data::packed::{Packed, TokenLayout};
    }
    gpu to "moved to hhalign::compute::gpu" {
        pub use crate::compute::gpu::*;
    }
    gradients to "moved to hhalign::compute::gradients" {
        pub use crate::compute::gradients::*;
    }
    hub to "moved to hhalign::base::hub" {
        pub use crate::base::hub::*;
    }
    kl to "moved to hhalign::infer::kl" {
        pub use crate::infer::kl::*;
    }
    lab to "moved to hhalign::notebook::lab" {
        pub use crate::notebook::lab::*;
    }
    lesson to "moved to hhalign::notebook::lesson" {
        pub use crate::notebook::lesson::*;
    }
    nn to "moved to hhalign::model::ops" {
        pub use crate::model::ops::*;
    }
    optim to "moved to hhalign::compute::optim" {
        pub use crate::compute::optim::*;
    }
    options to "moved to hhalign::notebook::options" {
        pub use crate::notebook::options::*;
    }
    pages to "moved to hhalign::show::pages" {
        pub use crate::show::pages::*;
    }
    parallel to "moved to hhalign::base::parallel" {
        pub use crate::base::parallel::*;
    }
    plot to "moved to hhalign::show::plot" {
        pub use crate::show::plot::*;
        pub use crate::eval::figures;
    }
    reward to "moved to hhalign::train::reward" {
        pub use crate::train::reward::*;
    }
    rng to "moved to hhalign::base::rng" {
        pub use crate::base::rng::*;
    }
    sample to "moved to hhalign::infer::sample" {
        pub use crate::infer::sample::*;
    }
    score to "moved to hhalign::infer::score" {
        pub use crate::infer::score::*;
    }
    secret to "moved to hhalign::base::secret" {
        pub use crate::base::secret::*;
    }
    server to "moved to hhalign::show::server" {
        pub use crate::show::server::*;
    }
    table to "moved to hhalign::show::table" {
        pub use crate::show::table::*;
    }
    tokenize to "moved to hhalign::data::tokenize" {
        pub use crate::data::tokenize::*;
    }
    view to "moved to hhalign::show::view" {
        pub use crate::show::view::*;
    }
}

/// Counts its calls: 1, 2, 3, ... A cell that sees the count of an earlier cell shares its memory
/// with it.
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
