//! The compute settings of a run.

use serde::{Deserialize, Serialize};

use super::cpu::Keep;
use super::device::Device;
use super::gpu::{Dtypes, Gpu, Storage};
use super::precision::Precision;
use crate::base::error::Result;

/// The compute settings of a run. They do not change the computation itself, only its speed, its
/// memory and its rounding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compute {
    /// The device.
    #[serde(default)]
    pub device: Device,
    /// Lets a GPU round the operands of f32 products to TF32 (10 bits of precision), which is much
    /// faster from an A100 on. It has no effect on other precisions or on a CPU.
    #[serde(default)]
    pub tf32: bool,
    /// The precision of matrix products.
    pub precision: Precision,
    /// Uses the composed model and automatic differentiation, which is slower, for reading and
    /// checking.
    pub composed: bool,
    /// Lets the replies of a pair share the rows of their prompt. This is exact, since no prompt
    /// token attends to a reply.
    pub share_prompts: bool,
    /// Keeps only the input of each block for the backward pass and computes the rest again. This
    /// takes a third more work, and far less memory for long sequences and deep models.
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
    /// Returns the activations that a forward pass keeps for a backward pass.
    pub(crate) fn keep(&self) -> Keep {
        if self.checkpoint_activations { Keep::BlockInputs } else { Keep::Activations }
    }

    /// Returns the selected GPU, or `None` for a CPU. The composed model runs on the CPU.
    ///
    /// # Errors
    /// As [`Device::gpu`].
    pub fn gpu(&self) -> Result<Option<Gpu>> {
        if self.composed { Ok(None) } else { self.device.gpu() }
    }

    /// Returns a short name of the settings that determine rounding: `f32`, `bf16` or `composed`;
    /// `cuda-f32`, `cuda-tf32`, `cuda-bf16` or `cuda-f16` on a GPU.
    ///
    /// # Errors
    /// The hardware does not support the precision.
    pub fn name(&self) -> Result<&'static str> {
        if let Some(gpu) = self.gpu()? {
            return Ok(match gpu.dtypes(self.precision, self.tf32)? {
                Dtypes { storage: Storage::F32, tf32: false } => "cuda-f32",
                Dtypes { storage: Storage::F32, tf32: true } => "cuda-tf32",
                Dtypes { storage: Storage::Bf16, .. } => "cuda-bf16",
                Dtypes { storage: Storage::F16, .. } => "cuda-f16",
            });
        }
        Ok(match (self.composed, self.precision.is_bf16()?) {
            (true, _) => "composed",
            (_, true) => "bf16",
            (_, false) => "f32",
        })
    }
}
