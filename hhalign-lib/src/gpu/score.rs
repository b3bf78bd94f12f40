//! Passes over one model's weights, for scoring and for tests; training has a [`Trainer`](super::Trainer).

use super::card::download;
use super::pass::{GpuGradients, Pass, Upstream};
use super::weights::Weights;
use super::{Gpu, Storage};
use crate::error::Result;
use crate::fused::{Compute, Keep, Packed, TokenStats};
use crate::gradients::Gradients;
use crate::model::Gpt;

/// Passes over one model's weights on a GPU.
pub struct GpuPass {
    weights: Weights,
    pass: Pass,
}

impl GpuPass {
    /// Copies a model's weights to the GPU.
    ///
    /// # Errors
    /// The GPU has no such precision or not enough memory, or its kernels do not fit the model.
    pub fn new(gpu: &Gpu, model: &Gpt, compute: &Compute) -> Result<Self> {
        let dtypes = gpu.dtypes(compute.precision, compute.tf32)?;
        Ok(Self { weights: Weights::new(gpu, model, dtypes)?, pass: Pass::default() })
    }

    /// The dtype of activations.
    pub fn storage(&self) -> Storage {
        self.weights.dtypes.storage
    }

    /// As [`crate::fused::Workspace::forward`].
    ///
    /// # Shapes
    /// N reply tokens -> (N)
    ///
    /// # Errors
    /// An id or a position that the model does not have, or the GPU's memory is full.
    pub fn forward(&mut self, packed: &Packed, keep: Keep, stats: Option<&mut TokenStats>) -> Result<Vec<f32>> {
        self.pass.forward(&self.weights, packed, keep, stats, None)
    }

    /// As [`crate::fused::Workspace::forward_constant_grad`].
    ///
    /// # Shapes
    /// dlogps (N) -> (N)
    ///
    /// # Errors
    /// As [`GpuPass::forward`], or numbers that do not fit the pack.
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

    /// Adds the gradient of Σ dlogps · log π to `gradients`; the forward pass came just before.
    ///
    /// # Shapes
    /// dlogps (N)
    ///
    /// # Errors
    /// No such forward pass came before.
    pub fn backward(&mut self, packed: &Packed, dlogps: &[f32], gradients: &mut GpuGradients) -> Result<()> {
        self.backward_ends(packed, dlogps, &[], gradients)
    }

    /// As [`crate::fused::Workspace::backward_ends`].
    ///
    /// # Shapes
    /// dlogps (N), dends (E, C) or empty
    ///
    /// # Errors
    /// As [`GpuPass::backward`], or numbers that do not fit the pack.
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

    /// The last hidden states at the ends of whole replies, from the forward pass just before.
    ///
    /// # Shapes
    /// (E, C), one row for each reply pushed with `push_whole`
    ///
    /// # Errors
    /// The GPU fails.
    pub fn ends(&self) -> Result<Vec<f32>> {
        self.pass.ends(&self.weights)
    }

    /// Whole rows of logits of the targets, as the forward pass just before left their hidden states.
    ///
    /// # Shapes
    /// (N, V)
    ///
    /// # Errors
    /// The GPU fails.
    pub fn logits(&mut self) -> Result<Vec<f32>> {
        self.pass.target_logits(&self.weights)
    }

    /// Zeros for every parameter.
    ///
    /// # Errors
    /// The GPU's memory is full.
    pub fn zeros(&self) -> Result<GpuGradients> {
        GpuGradients::zeros(&self.weights)
    }

    /// Copies gradients to the processor.
    ///
    /// # Errors
    /// The GPU fails.
    pub fn download(&self, gradients: &GpuGradients) -> Result<Gradients> {
        let w = &self.weights;
        let all: Vec<f32> = download(&*w.card, gradients.buffer.at(), w.layout.len)?;
        Gradients::from_tensors(&w.config, &w.layout.scatter(&all)?)
    }
}
