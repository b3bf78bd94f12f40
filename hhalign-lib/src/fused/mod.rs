//! The fast path: the model's forward and backward pass written out over plain slices.
//!
//! [`crate::model`] composes the model from operations that can be read one by one; it is the text, and the oracle that
//! this module is tested against (`tests/fused.rs`: values and every gradient). Here the same formulas run without
//! padding, without a graph, with the logits of a few rows at a time and with vector instructions chosen when the
//! program runs. A pass stays in one thread; a step's passes run side by side.

mod attention;
mod backward;
mod bf16;
mod decode;
mod few_rows;
mod gelu;
mod gemm;
mod head;
mod norm;
mod packed;
mod pass;
mod products;
mod vector;
mod weights;

use std::time::Instant;

use serde::{Deserialize, Serialize};

pub use self::decode::Decoder;
pub use self::head::TokenStats;
pub use self::packed::{Packed, TokenLayout};
pub use self::pass::{Keep, Workspace};
use self::products::{Products, Weight};
pub(crate) use self::vector::{ARCH, CallOnce, widest};
pub use self::weights::{Purpose, Weights, with_weights};
use crate::device::Device;
use crate::error::{Error, Result};

/// In what numbers the matrix products of training run. Weights, sums, gradients and the optimiser are f32 always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Precision {
    /// Products of f32 numbers: the exact path, and the same figures on every processor up to rounding.
    #[default]
    F32,
    /// Operands of products rounded to bf16 (8 bits of precision), sums in f32. Attention scores stay f32. Needs a
    /// processor with AVX512-BF16.
    Bf16,
    /// Operands of products rounded to f16, sums in f32, gradients scaled so that small ones are not lost. GPUs only: for
    /// a T4, which has no bf16.
    F16,
    /// [`Precision::Bf16`] where the hardware has it; elsewhere [`Precision::F16`] on a GPU, [`Precision::F32`] on a CPU.
    Auto,
}

/// How a run computes: nothing here changes what is computed, only how fast, in how much memory and how finely rounded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compute {
    /// On what.
    #[serde(default)]
    pub device: Device,
    /// Let a GPU round operands of f32 products to TF32 (10 bits of precision): much faster from an A100 on. No part of
    /// other precisions, and nothing to a CPU.
    #[serde(default)]
    pub tf32: bool,
    /// In what numbers matrix products run.
    pub precision: Precision,
    /// Use the composed model and automatic differentiation instead of this module: slower, for reading and checking.
    pub composed: bool,
    /// Let the replies of a pair share the rows of their prompt; exact, since nothing in a prompt sees a reply.
    pub share_prompts: bool,
    /// Keep only the input of each block for the backward pass and compute the rest again: a third more work, and far
    /// less memory for long sequences and deep models.
    pub checkpoint_activations: bool,
}

impl Default for Compute {
    fn default() -> Self {
        Self {
            device: Device::Auto,
            tf32: false,
            precision: Precision::F32,
            composed: false,
            share_prompts: true,
            checkpoint_activations: false,
        }
    }
}

impl Compute {
    /// What a forward pass before a backward pass keeps.
    pub(crate) fn keep(&self) -> Keep {
        if self.checkpoint_activations { Keep::BlockInputs } else { Keep::Activations }
    }
}

impl Precision {
    /// The precision of a name: `f32`, `bf16`, `f16` or `auto`.
    ///
    /// # Errors
    /// Another name.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            "auto" => Ok(Self::Auto),
            other => Err(Error::new("no such precision", other, "choose f32, bf16, f16 or auto")),
        }
    }

    /// Whether bf16 is to be used here.
    pub(crate) fn is_bf16(self) -> Result<bool> {
        match (self, bf16::available()) {
            (Self::F32, _) | (Self::Auto, false) => Ok(false),
            (Self::F16, _) => Err(Error::new(
                "a CPU does not train in f16",
                "Precision::F16 without a GPU",
                "use Precision::Auto, which takes what the hardware has",
            )),
            (_, true) => Ok(true),
            (Self::Bf16, false) => Err(Error::new(
                "this processor has no bf16 products",
                "Precision::Bf16 without AVX512-BF16",
                "use Precision::Auto, which takes f32 where bf16 is missing",
            )),
        }
    }
}

/// The rate of a product x W in one thread, in floating-point operations a second: the ceiling for a pass.
///
/// # Shapes
/// x (R, in), W (in, out)
///
/// # Errors
/// The processor cannot do what the precision asks for.
pub fn product_rate([rows, n_in, n_out]: [usize; 3], precision: Precision) -> Result<f64> {
    let mut products = Products::default();
    let (x, data) = (vec![0.5f32; rows * n_in], vec![0.25f32; n_in * n_out]);
    let mut weight = Weight::stored(&data, n_out);
    if precision.is_bf16()? {
        weight.pack(Default::default(), false);
    }
    let mut out = vec![0f32; rows * n_out];
    let mut best = f64::INFINITY;
    for _ in 0..20 {
        let clock = Instant::now();
        products.forward(&weight, &x, &mut out, gemm::Store::Overwrite);
        best = best.min(clock.elapsed().as_secs_f64());
    }
    Ok(2.0 * (rows * n_in * n_out) as f64 / best)
}
