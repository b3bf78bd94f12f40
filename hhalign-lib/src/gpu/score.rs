//! Passes over one model's weights, for scoring and for tests; training runs them itself.

use super::card::download;
use super::pass::{Pass, Sums};
use super::weights::Weights;
use super::{Gpu, Storage};
use crate::error::Result;
use crate::fused::{Compute, Guesses, Keep, Packed};
use crate::gradients::Gradients;
use crate::model::Gpt;

/// Passes over one model's weights on a GPU.
pub struct GpuPass {
    weights: Weights,
    pass: Pass,
}

/// The gradient of every parameter, on the GPU.
pub struct GpuGradients(Sums);

impl GpuPass {
    /// Copies a model's weights to the GPU.
    ///
    /// # Errors
    /// The GPU has no such precision or not enough memory, or its kernels do not fit the model.
    pub fn new(gpu: &Gpu, model: &Gpt, compute: &Compute) -> Result<Self> {
        let numbers = gpu.numbers(compute.precision, compute.tf32)?;
        Ok(Self { weights: Weights::new(gpu, model, numbers)?, pass: Pass::default() })
    }

    /// How activations are stored.
    pub fn storage(&self) -> Storage {
        self.weights.numbers.storage
    }

    /// As [`crate::fused::Workspace::forward`].
    ///
    /// # Errors
    /// An id or a position that the model does not have, or the GPU's memory is full.
    pub fn forward(&mut self, packed: &Packed, keep: Keep, guesses: Option<&mut Guesses>) -> Result<Vec<f32>> {
        self.pass.forward(&self.weights, packed, keep, guesses, None)
    }

    /// As [`crate::fused::Workspace::forward_known`].
    ///
    /// # Errors
    /// As [`GpuPass::forward`].
    pub fn forward_known(
        &mut self,
        packed: &Packed,
        keep: Keep,
        slopes: &[f32],
        gradients: &mut GpuGradients,
    ) -> Result<Vec<f32>> {
        packed.check_slopes(slopes)?;
        self.pass.forward(&self.weights, packed, keep, None, Some((slopes, 1.0, &gradients.0)))
    }

    /// Adds the gradient of Σ slopes · log π to `gradients`; the forward pass came just before.
    ///
    /// # Errors
    /// No such forward pass came before.
    pub fn backward(&mut self, packed: &Packed, slopes: &[f32], gradients: &mut GpuGradients) -> Result<()> {
        self.backward_ends(packed, slopes, &[], gradients)
    }

    /// As [`crate::fused::Workspace::backward_ends`].
    ///
    /// # Shapes
    /// slopes (N), d_ends (E, C) or none at all
    ///
    /// # Errors
    /// As [`GpuPass::backward`], or numbers that do not fit the pack.
    pub fn backward_ends(
        &mut self,
        packed: &Packed,
        slopes: &[f32],
        d_ends: &[f32],
        gradients: &mut GpuGradients,
    ) -> Result<()> {
        packed.check_slopes(slopes)?;
        packed.check_ends(d_ends, self.weights.config.n_embd)?;
        self.pass.backward(&self.weights, slopes, d_ends, 1.0, &gradients.0)
    }

    /// The last hidden states at the ends of whole replies, as the forward pass just before left them.
    ///
    /// # Shapes
    /// (E, C), one row for each reply pushed with `push_whole`
    ///
    /// # Errors
    /// The GPU fails.
    pub fn ends(&self) -> Result<Vec<f32>> {
        self.pass.ends(&self.weights)
    }

    /// Zeros for every parameter.
    ///
    /// # Errors
    /// The GPU's memory is full.
    pub fn zeros(&self) -> Result<GpuGradients> {
        Ok(GpuGradients(Sums::new(&self.weights)?))
    }

    /// Gradients back on the processor.
    ///
    /// # Errors
    /// The GPU fails.
    pub fn download(&self, gradients: &GpuGradients) -> Result<Gradients> {
        let w = &self.weights;
        let all: Vec<f32> = download(&*w.card, gradients.0.buffer.at(), w.layout.len)?;
        Gradients::from_tensors(&w.config, &w.layout.scatter(&all)?)
    }
}
