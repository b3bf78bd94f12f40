//! AdamW with decay groups, and a cosine schedule with warm-up.

use std::collections::BTreeMap;
use std::f64::consts::PI;
use std::sync::Mutex;

use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor};
use serde::{Deserialize, Serialize};

use crate::base::error::{Error, Result};
use crate::base::parallel;
use crate::compute::cpu::widest;
use crate::compute::gradients::{Gradients, named_tensors};
use crate::model::{Gpt, GptConfig, ParameterSpec, Parameters};

/// Settings of [`AdamW`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the square root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay of matrices and embeddings. Biases and layer norms do not decay.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1 }
    }
}

/// AdamW over the parameters of a model. Checkpoints can read and restore its moments.
///
/// # Source
/// arXiv 1711.05101, algorithm 2; the order of operations is PyTorch's.
#[derive(Clone)]
pub struct AdamW {
    config: AdamWConfig,
    steps: usize,
    specs: Parameters<ParameterSpec>,
    moments: Parameters<Moments>,
}

/// The first and second moment of one parameter.
#[derive(Clone, Default)]
struct Moments {
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Moments {
    fn zeros(n: usize) -> Self {
        Self { first: vec![0.0; n], second: vec![0.0; n] }
    }
}

impl AdamW {
    /// Makes an optimiser whose moments are zero.
    pub fn new(config: AdamWConfig, model: &GptConfig) -> Self {
        let specs = model.parameters();
        let moments = specs.as_ref().map(|spec| Moments::zeros(spec.elements()));
        Self { config, steps: 0, specs, moments }
    }

    /// Makes an optimiser from the moments of a checkpoint, by the names of the parameters.
    ///
    /// # Errors
    /// A moment is missing or has another shape.
    pub fn restore(
        config: AdamWConfig,
        model: &GptConfig,
        steps: usize,
        first: &BTreeMap<String, Tensor>,
        second: &BTreeMap<String, Tensor>,
    ) -> Result<Self> {
        let specs = model.parameters();
        let moments = specs.as_ref().try_map(|ParameterSpec { name, shape }| {
            let read = |moments: &BTreeMap<String, Tensor>| {
                let tensor = moments.get(name).filter(|t| t.dims() == shape).ok_or_else(|| {
                    Error::data(
                        "the checkpoint's optimiser does not fit the model",
                        name.as_str(),
                        "resume with the model it was saved from",
                    )
                })?;
                Ok::<_, Error>(tensor.flatten_all()?.to_vec1::<f32>()?)
            };
            Ok(Moments { first: read(first)?, second: read(second)? })
        })?;
        Ok(Self { config, steps, specs, moments })
    }

    /// Counts a step that a device takes and returns its coefficients, with the `decay_factor` of a
    /// parameter that decays.
    pub(crate) fn advance(&mut self, scale: f64, learning_rate: f64) -> StepCoefficients {
        self.steps += 1;
        self.config.coefficients(self.steps, scale, learning_rate, true)
    }

    /// Replaces the moments by those of a device.
    pub(crate) fn replace_moments(
        &mut self,
        model: &GptConfig,
        first: &BTreeMap<String, Tensor>,
        second: &BTreeMap<String, Tensor>,
    ) -> Result<()> {
        *self = Self::restore(self.config.clone(), model, self.steps, first, second)?;
        Ok(())
    }

    /// Returns the number of steps taken.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Returns the first moments as tensors, by the names of the parameters.
    pub fn first_moments(&self) -> Result<BTreeMap<String, Tensor>> {
        named_tensors(&self.specs, self.moments.as_ref().map(|m| m.first.as_slice()))
    }

    /// Returns the second moments as tensors, by the names of the parameters.
    pub fn second_moments(&self) -> Result<BTreeMap<String, Tensor>> {
        named_tensors(&self.specs, self.moments.as_ref().map(|m| m.second.as_slice()))
    }

    /// Takes one step on gradients multiplied by `scale`. Decay, moments, bias correction and
    /// update share one pass over memory.
    ///
    /// # Errors
    /// The model is frozen or not in f32 on the CPU, or the gradients or moments belong to another
    /// model.
    pub fn step(
        &mut self,
        model: &Gpt,
        gradients: &Gradients,
        scale: f64,
        learning_rate: f64,
    ) -> Result<()> {
        gradients.check(&model.config)?;
        if self.specs != model.config.parameters() {
            let got = format!(
                "{} parameters, model of {}",
                self.specs.as_ref().into_vec().len(),
                model.n_parameters()
            );
            return Err(Error::new(
                "the optimiser was made for another model",
                got,
                "make one with AdamW::new",
            ));
        }
        let vars = model.vars().ok_or_else(|| {
            Error::new(
                "a frozen model cannot change",
                "a model made by Gpt::freeze",
                "use Gpt::fork for a copy that can",
            )
        })?;
        self.steps += 1;
        let (config, steps) = (&self.config, self.steps);
        let parts = vars
            .as_ref()
            .zip(self.specs.as_ref())
            .zip(self.moments.as_mut())
            .zip(gradients.values().as_ref());
        let updates = parts.map(|(((var, spec), moments), gradient)| {
            let coefficients = config.coefficients(steps, scale, learning_rate, spec.is_matrix());
            (var, Update { moments: Mutex::new(moments), gradient, coefficients })
        });
        parallel::map(&updates.into_vec(), |(var, update)| Ok(var.inplace_op1(update)?))?;
        Ok(())
    }
}

/// AdamW over one vector outside a model, such as a reward head. The vector decays as a matrix
/// does.
#[derive(Clone)]
pub struct VectorAdamW {
    config: AdamWConfig,
    steps: usize,
    moments: Moments,
}

impl VectorAdamW {
    /// Makes an optimiser for `n` numbers whose moments are zero.
    pub fn new(config: AdamWConfig, n: usize) -> Self {
        Self { config, steps: 0, moments: Moments::zeros(n) }
    }

    /// Makes an optimiser from the moments of a checkpoint.
    pub fn restore(config: AdamWConfig, steps: usize, first: Vec<f32>, second: Vec<f32>) -> Self {
        Self { config, steps, moments: Moments { first, second } }
    }

    /// Returns the first moments.
    pub fn first_moments(&self) -> &[f32] {
        &self.moments.first
    }

    /// Returns the second moments.
    pub fn second_moments(&self) -> &[f32] {
        &self.moments.second
    }

    /// Takes one step on a gradient multiplied by `scale`.
    pub fn step(&mut self, values: &mut [f32], gradient: &[f32], scale: f64, learning_rate: f64) {
        self.steps += 1;
        self.config.coefficients(self.steps, scale, learning_rate, true).apply(
            values,
            &mut self.moments,
            gradient,
        );
    }
}

/// The update of one parameter.
struct Update<'a> {
    moments: Mutex<&'a mut Moments>,
    gradient: &'a [f32],
    coefficients: StepCoefficients,
}

/// The coefficients of one step: gradients are multiplied by `scale`, weights by `decay_factor`.
pub(crate) struct StepCoefficients {
    pub(crate) scale: f32,
    pub(crate) betas: [f32; 2],
    pub(crate) decay_factor: f32,
    pub(crate) step_size: f32,
    pub(crate) inv_sqrt_correction2: f32,
    pub(crate) epsilon: f32,
}

impl AdamWConfig {
    /// Returns the coefficients of a step with number `steps`, counted from 1.
    fn coefficients(
        &self,
        steps: usize,
        scale: f64,
        learning_rate: f64,
        decays: bool,
    ) -> StepCoefficients {
        let decay = if decays { self.weight_decay } else { 0.0 };
        let correction1 = 1.0 - self.beta1.powi(steps as i32);
        let correction2 = 1.0 - self.beta2.powi(steps as i32);
        StepCoefficients {
            scale: scale as f32,
            betas: [self.beta1 as f32, self.beta2 as f32],
            decay_factor: (1.0 - learning_rate * decay) as f32,
            step_size: (learning_rate / correction1) as f32,
            inv_sqrt_correction2: (1.0 / correction2.sqrt()) as f32,
            epsilon: self.epsilon as f32,
        }
    }
}

impl InplaceOp1 for Update<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets())
        else {
            candle_core::bail!("AdamW changes contiguous f32 parameters on the CPU");
        };
        let mut moments = self.moments.lock().expect("one thread");
        self.coefficients.apply(&mut values[start..end], &mut moments, self.gradient);
        Ok(())
    }
}

impl StepCoefficients {
    fn apply(&self, values: &mut [f32], Moments { first, second }: &mut Moments, gradient: &[f32]) {
        let [beta1, beta2] = self.betas;
        let parts = values.iter_mut().zip(first).zip(second).zip(gradient);
        widest!({
            for (((weight, m), v), g) in parts {
                let g = g * self.scale;
                *m = *m * beta1 + g * (1.0 - beta1);
                *v = *v * beta2 + g * g * (1.0 - beta2);
                *weight = *weight * self.decay_factor
                    - self.step_size * *m / (v.sqrt() * self.inv_sqrt_correction2 + self.epsilon);
            }
        });
    }
}

/// Returns the learning rate of a step, counted from 0: linear warm-up, then a cosine decay to
/// `min_ratio` of the peak.
///
/// # Example
/// ```
/// use hhalign::compute::optim::cosine_schedule;
/// assert_eq!(cosine_schedule(0, 10, 110, 1e-3, 0.1), 1e-4);
/// assert_eq!(cosine_schedule(10, 10, 110, 1e-3, 0.1), 1e-3);
/// assert!((cosine_schedule(110, 10, 110, 1e-3, 0.1) - 1e-4).abs() < 1e-12);
/// ```
pub fn cosine_schedule(
    step: usize,
    warmup_steps: usize,
    max_steps: usize,
    peak: f64,
    min_ratio: f64,
) -> f64 {
    if step < warmup_steps {
        return peak * (step + 1) as f64 / warmup_steps as f64;
    }
    let span = max_steps.saturating_sub(warmup_steps).max(1) as f64;
    let progress = ((step - warmup_steps) as f64 / span).min(1.0);
    let min_rate = peak * min_ratio;
    min_rate + (peak - min_rate) * 0.5 * (1.0 + (PI * progress).cos())
}
