//! The GPU memory that a training run needs, computed before it starts.

use crate::base::error::Result;
use crate::compute::gpu::Storage;
use crate::compute::gpu::head::MAX_LOGITS_BYTES;
use crate::compute::gpu::weights::Layout;
use crate::model::GptConfig;
use crate::show::table::{Column, Table};

/// A planner of GPU memory. It uses the sizes that the passes request; the integration tests `gpu`
/// compare a plan with the memory in use.
pub struct Memory;

/// An upper bound of the GPU memory of a training run, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Weights in f32, and their copy for products.
    pub weights: usize,
    /// Gradients in f32.
    pub gradients: usize,
    /// Both moments of AdamW in f32.
    pub moments: usize,
    /// Activations that a pass keeps for its backward pass, and scratch.
    pub activations: usize,
    /// Logits of a chunk of rows, and their gradient.
    pub logits: usize,
    /// cuBLAS and the driver's own context, estimated from measured cards.
    pub context: usize,
}

impl Memory {
    /// Returns the plan for passes of `rows` tokens, of which `targets` are predicted.
    ///
    /// # Example
    /// ```
    /// use hhalign::compute::gpu::{Memory, Storage};
    /// use hhalign::model::Preset;
    /// let config = Preset::Gpt2.config(50_257);
    /// let plan = Memory::plan(&config, 8192, 4096, Storage::Bf16, false);
    /// let less = Memory::plan(&config, 8192, 4096, Storage::Bf16, true);
    /// assert!(less.total() < plan.total());
    /// ```
    pub fn plan(
        config: &GptConfig,
        rows: usize,
        targets: usize,
        storage: Storage,
        checkpoint: bool,
    ) -> MemoryPlan {
        let (layout, s) = (Layout::new(config), storage.bytes());
        let (r, n, c, h, n_layer) = (rows, targets, config.n_embd, config.n_head, config.n_layer);
        // BlockActivations: two mean_rstd, qkv, atty, lse, residual2, fch.
        let kept = r * (8 + 8) + r * 3 * c * s + r * c * s + r * h * 4 + r * c * 4 + r * 4 * c * s;
        let residuals = (n_layer + 1) * r * c * 4;
        let blocks = if checkpoint { 1 } else { n_layer };
        // ln, proj; fch_gelu; needed_residual, needed_atty; picked, lnf, lnf_mean_rstd; dlnf; two
        // of dresidual and dresidual_stored; dln, dfch; delta; partial sums.
        let rows_wide = r.max(n);
        let scratch = r * 2 * c * s
            + r * 4 * c * s
            + n * c * (4 + s)
            + n * (c * 4 + c * s + 8)
            + n * c * s
            + rows_wide * c * (8 + s)
            + r * 5 * c * s
            + r * h * 4
            + r.div_ceil(128) * 4 * c * 4;
        let small = n * 4 * 2 + 40 * r;
        let chunk = (MAX_LOGITS_BYTES / (4 * layout.vocab)).clamp(1, 4096).min(n.max(1));
        MemoryPlan {
            weights: layout.len * (4 + if storage == Storage::F32 { 0 } else { 2 }),
            gradients: layout.len * 4,
            moments: layout.len * 8,
            activations: residuals + blocks * kept + scratch + small,
            logits: chunk * layout.vocab * (4 + s),
            context: 500 << 20,
        }
    }
}

impl MemoryPlan {
    /// Returns the sum in bytes.
    pub fn total(&self) -> usize {
        self.weights + self.gradients + self.moments + self.activations + self.logits + self.context
    }

    /// Returns the parts as a table.
    ///
    /// # Errors
    /// The table library fails.
    pub fn table(&self) -> Result<Table> {
        let parts = [
            ("weights in f32, and a copy for products", self.weights),
            ("gradients", self.gradients),
            ("moments of AdamW", self.moments),
            ("activations of one pass", self.activations),
            ("logits of a chunk of rows", self.logits),
            ("CUDA itself, about", self.context),
            ("total", self.total()),
        ];
        let (names, sizes): (Vec<String>, Vec<i64>) =
            parts.iter().map(|(name, bytes)| (name.to_string(), (bytes >> 20) as i64)).unzip();
        Table::new(
            "GPU memory of a run",
            vec![Column::text("part", names), Column::int("MB", sizes)],
        )
    }

    /// Returns the sum in MB.
    pub fn megabytes(&self) -> usize {
        self.total() >> 20
    }
}
