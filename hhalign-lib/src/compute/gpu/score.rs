//! Passes over one model's weights, for scoring and for tests. Training uses
//! [`Trainer`](crate::compute::gpu::Trainer).

use crate::base::error::Result;
use crate::compute::Compute;
use crate::compute::cpu::{Keep, TokenStats};
use crate::compute::gpu::card::download;
use crate::compute::gpu::pass::{GpuGradients, Pass, Upstream};
use crate::compute::gpu::weights::Weights;
use crate::compute::gpu::{Gpu, Storage};
use crate::compute::gradients::Gradients;
use crate::data::packed::Packed;
use crate::model::Gpt;

/// The passes over one model's weights on a GPU.
pub struct GpuPass {
    weights: Weights,
    pass: Pass,
}

impl GpuPass {
    /// Copies a model's weights to the GPU.
    ///
    /// # Errors
    /// The GPU does not support the precision, has not enough memory, or its kernels do not support
    /// the model.
    pub fn new(gpu: &Gpu, model: &Gpt, compute: &Compute) -> Result<Self> {
        let dtypes = gpu.dtypes(compute.precision, compute.tf32)?;
        Ok(Self { weights: Weights::new(gpu, model, dtypes)?, pass: Pass::default() })
    }

    /// Returns the dtype of activations.
    pub fn storage(&self) -> Storage {
        self.weights.dtypes.storage
    }

    /// Computes the same as [`crate::compute::cpu::Workspace::forward`].
    ///
    /// # Shapes
    /// N reply tokens -> (N)
    ///
    /// # Errors
    /// The model does not have an id or a position, or the GPU's memory is full.
    pub fn forward(
        &mut self,
        packed: &Packed,
        keep: Keep,
        stats: Option<&mut TokenStats>,
    ) -> Result<Vec<f32>> {
        self.pass.forward(&self.weights, packed, keep, stats, None)
    }

    /// Computes the same as [`crate::compute::cpu::Workspace::forward_constant_grad`].
    ///
    /// # Shapes
    /// dlogps (N) -> (N)
    ///
    /// # Errors
    /// As [`GpuPass::forward`], or `dlogps` does not fit the pack.
    pub fn forward_constant_grad(
        &mut self,
        packed: &Packed,
        keep: Keep,
        dlogps: &[f32],
        gradients: &mut GpuGradients,
    ) -> Result<Vec<f32>> {
        packed.check_dlogps(dlogps)?;
        let upstream = Upstream { dlogps, dends: &[], scale: 1.0, gradients };
        self.pass.forward(&self.weights, packed, keep, None, Some(upstream))
    }

    /// Adds the gradient of Σ dlogps · log π to `gradients`. The previous call must be the forward
    /// pass.
    ///
    /// # Shapes
    /// dlogps (N)
    ///
    /// # Errors
    /// The previous call was not this forward pass.
    pub fn backward(
        &mut self,
        packed: &Packed,
        dlogps: &[f32],
        gradients: &mut GpuGradients,
    ) -> Result<()> {
        self.backward_ends(packed, dlogps, &[], gradients)
    }

    /// Computes the same as [`crate::compute::cpu::Workspace::backward_ends`].
    ///
    /// # Shapes
    /// dlogps (N), dends (E, C) or empty
    ///
    /// # Errors
    /// As [`GpuPass::backward`], or `dlogps` or `dends` does not fit the pack.
    pub fn backward_ends(
        &mut self,
        packed: &Packed,
        dlogps: &[f32],
        dends: &[f32],
        gradients: &mut GpuGradients,
    ) -> Result<()> {
        packed.check_dlogps(dlogps)?;
        packed.check_ends(dends, self.weights.config.n_embd)?;
        self.pass.backward(&self.weights, Upstream { dlogps, dends, scale: 1.0, gradients })
    }

    /// Returns the last hidden states at the ends of whole replies, from the preceding forward
    /// pass.
    ///
    /// # Shapes
    /// (E, C), one row for each reply pushed with `push_whole`
    ///
    /// # Errors
    /// The GPU fails.
    pub fn ends(&self) -> Result<Vec<f32>> {
        self.pass.ends(&self.weights)
    }

    /// Returns whole rows of logits of the targets of the preceding forward pass.
    ///
    /// # Shapes
    /// (N, V)
    ///
    /// # Errors
    /// The GPU fails.
    pub fn logits(&mut self) -> Result<Vec<f32>> {
        self.pass.target_logits(&self.weights)
    }

    /// Makes gradients of zero.
    ///
    /// # Errors
    /// The GPU's memory is full.
    pub fn zeros(&self) -> Result<GpuGradients> {
        GpuGradients::zeros(&self.weights)
    }

    /// Copies gradients to the host.
    ///
    /// # Errors
    /// The GPU fails.
    pub fn download(&self, gradients: &GpuGradients) -> Result<Gradients> {
        let w = &self.weights;
        let all: Vec<f32> = download(&*w.card, gradients.buffer.address(), w.layout.len)?;
        Gradients::from_tensors(&w.config, &w.layout.unflatten(&all)?)
    }
}
