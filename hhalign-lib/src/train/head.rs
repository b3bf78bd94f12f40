//! The head of a reward model: a vector above the model, trained with it.

use candle_core::{Device, Tensor};

use crate::base::error::Result;
use crate::compute::optim::{AdamWConfig, VectorAdamW};

/// The head's name in transformers.
pub(crate) const HEAD: &str = "score.weight";

/// A head between two steps: w of r = w · h, its optimiser's moments, and its weights at the best
/// step.
#[derive(Clone)]
pub(crate) struct Head {
    pub(crate) weights: Vec<f32>,
    pub(crate) optimizer: VectorAdamW,
    pub(crate) best: Vec<f32>,
}

impl Head {
    /// Makes a head of zeros: before the first step every reward is 0 and the loss is ln 2.
    pub(crate) fn zeros(width: usize, adamw: &AdamWConfig) -> Self {
        Self {
            weights: vec![0.0; width],
            optimizer: VectorAdamW::new(adamw.clone(), width),
            best: vec![],
        }
    }

    /// Converts one of its vectors to a checkpoint's tensor.
    pub(crate) fn tensor(values: &[f32]) -> Result<Tensor> {
        Ok(Tensor::new(values, &Device::Cpu)?)
    }
}

/// Returns Σ x².
pub(crate) fn square_sum(values: &[f32]) -> f64 {
    values.iter().map(|&x| f64::from(x) * f64::from(x)).sum()
}
