//! AdamW with decay groups, clipping by global norm, and a cosine schedule with warm-up.

use std::collections::BTreeMap;
use std::f64::consts::PI;

use candle_core::{DType, Tensor, Var};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Settings of [`AdamW`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay, on matrices and embeddings only; biases and layer norms are left alone.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1 }
    }
}

/// AdamW over named variables, with its moments open to checkpoints.
///
/// # Source
/// arXiv 1711.05101, algorithm 2; the order of operations is PyTorch's.
pub struct AdamW {
    config: AdamWConfig,
    steps: usize,
    first: BTreeMap<String, Tensor>,
    second: BTreeMap<String, Tensor>,
}

impl AdamW {
    /// Fresh moments of zero for every variable.
    ///
    /// # Errors
    /// A failure of the tensor library.
    pub fn new(config: AdamWConfig, vars: &BTreeMap<String, Var>) -> Result<Self> {
        let zeros = |_: ()| {
            vars.iter()
                .map(|(n, v)| Ok((n.clone(), v.as_tensor().zeros_like()?.detach())))
                .collect::<Result<BTreeMap<_, _>>>()
        };
        Ok(Self { config, steps: 0, first: zeros(())?, second: zeros(())? })
    }

    /// Moments out of a checkpoint.
    ///
    /// # Errors
    /// A moment is missing or has another shape.
    pub fn restore(
        config: AdamWConfig,
        vars: &BTreeMap<String, Var>,
        steps: usize,
        first: BTreeMap<String, Tensor>,
        second: BTreeMap<String, Tensor>,
    ) -> Result<Self> {
        for moments in [&first, &second] {
            if let Some((name, _)) = vars.iter().find(|(n, v)| moments.get(*n).is_none_or(|m| m.dims() != v.dims())) {
                return Err(Error::new(
                    "the checkpoint's optimiser does not fit the model",
                    name.as_str(),
                    "resume with the model it was saved from",
                ));
            }
        }
        Ok(Self { config, steps, first, second })
    }

    /// Steps taken.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// First and second moments, by the names of the variables.
    pub fn moments(&self) -> (&BTreeMap<String, Tensor>, &BTreeMap<String, Tensor>) {
        (&self.first, &self.second)
    }

    /// One step: decay, moments, bias correction, update.
    ///
    /// # Errors
    /// A variable without a gradient: some operation cut it off.
    pub fn step(
        &mut self,
        vars: &BTreeMap<String, Var>,
        gradients: &BTreeMap<String, Tensor>,
        learning_rate: f64,
    ) -> Result<()> {
        self.steps += 1;
        let AdamWConfig { beta1, beta2, epsilon, weight_decay } = self.config;
        let correction1 = 1.0 - beta1.powi(self.steps as i32);
        let correction2 = 1.0 - beta2.powi(self.steps as i32);
        for (name, var) in vars {
            let gradient = gradients.get(name).ok_or_else(|| {
                Error::new(
                    format!("{name} received no gradient"),
                    "nothing",
                    "an operation in the forward pass has no backward",
                )
            })?;
            let m = ((&self.first[name] * beta1)? + (gradient * (1.0 - beta1))?)?;
            let v = ((&self.second[name] * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
            let decay = if var.dims().len() >= 2 { weight_decay } else { 0.0 };
            let weight = (var.as_tensor().detach() * (1.0 - learning_rate * decay))?;
            let divisor = ((v.sqrt()? / correction2.sqrt())? + epsilon)?;
            var.set(&(weight - ((&m / divisor)? * (learning_rate / correction1))?)?)?;
            self.first.insert(name.clone(), m);
            self.second.insert(name.clone(), v);
        }
        Ok(())
    }
}

/// Scales gradients so that their global norm is at most `max_norm`; returns the norm before.
///
/// # Errors
/// A failure of the tensor library.
///
/// # Source
/// The coefficient is PyTorch's `clip_grad_norm_`: min(1, max_norm / (norm + 1e-6)).
pub fn clip_by_global_norm(gradients: &mut BTreeMap<String, Tensor>, max_norm: f64) -> Result<f64> {
    let mut squares = 0f64;
    for gradient in gradients.values() {
        squares += gradient.sqr()?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
    }
    let norm = squares.sqrt();
    let scale = max_norm / (norm + 1e-6);
    if scale < 1.0 {
        for gradient in gradients.values_mut() {
            *gradient = (&*gradient * scale)?;
        }
    }
    Ok(norm)
}

/// The learning rate of a step, counted from 0: linear warm-up, then a cosine down to `min_ratio` of the peak.
///
/// # Example
/// ```
/// use hhalign::optim::cosine_schedule;
/// assert_eq!(cosine_schedule(0, 10, 110, 1e-3, 0.1), 1e-4);
/// assert_eq!(cosine_schedule(10, 10, 110, 1e-3, 0.1), 1e-3);
/// assert!((cosine_schedule(110, 10, 110, 1e-3, 0.1) - 1e-4).abs() < 1e-12);
/// ```
pub fn cosine_schedule(step: usize, warmup_steps: usize, max_steps: usize, peak: f64, min_ratio: f64) -> f64 {
    if step < warmup_steps {
        return peak * (step + 1) as f64 / warmup_steps as f64;
    }
    let span = max_steps.saturating_sub(warmup_steps).max(1) as f64;
    let progress = ((step - warmup_steps) as f64 / span).min(1.0);
    let floor = peak * min_ratio;
    floor + (peak - floor) * 0.5 * (1.0 + (PI * progress).cos())
}
