//! What takes a run's steps: this processor's cores, or a GPU.

use super::TrainConfig;
use crate::error::{Error, Result};
use crate::fused::Workspace;
use crate::gpu::Trainer;
use crate::gradients::{Gradients, clip_scale};
use crate::model::{Gpt, GptConfig};
use crate::optim::AdamW;
use crate::parallel::Pool;

/// A step, as both can take it.
pub(crate) trait Work {
    /// What is told of a step besides its gradients.
    type Report;
    /// The step's number.
    fn number(&self) -> usize;
    /// The gradients on this processor.
    fn gradients(&self, spare: &Spare) -> Result<(Gradients, Self::Report)>;
    /// The same on a GPU, where the gradients stay.
    fn gradients_on(&self, trainer: &mut Trainer) -> Result<Self::Report>;
}

/// Memory between one step and the next: fresh memory would have to be cleared by the system first.
#[derive(Default)]
pub(crate) struct Spare {
    pub(crate) workspaces: Pool<Workspace>,
    pub(crate) gradients: Pool<Gradients>,
}

impl Spare {
    /// Zeros for every parameter.
    pub(crate) fn zeros(&self, config: &GptConfig) -> Gradients {
        let mut gradients = self.gradients.take().unwrap_or_else(|| Gradients::zeros(config));
        gradients.clear();
        gradients
    }

    /// Adds a pass's gradients to those of the passes before it.
    pub(crate) fn add(&self, sum: &mut Option<Gradients>, gradients: Gradients) {
        match sum {
            Some(sum) => {
                sum.add(&gradients);
                self.gradients.give(gradients);
            }
            None => *sum = Some(gradients),
        }
    }
}

/// Memory of a run between its steps; on a GPU, its weights and moments as well.
pub(crate) enum Engine {
    Cpu { spare: Spare, gradients: Option<Gradients> },
    Gpu(Box<Trainer>),
}

impl Engine {
    pub(crate) fn new(config: &TrainConfig, model: &Gpt, optimizer: &AdamW) -> Result<Self> {
        // Dropout is drawn by the composed model only.
        let gpu = if config.dropout(model) > 0.0 { None } else { config.compute.gpu()? };
        Ok(match gpu {
            Some(gpu) => Self::Gpu(Box::new(Trainer::new(&gpu, model, optimizer, &config.compute)?)),
            None => Self::Cpu { spare: Spare::default(), gradients: None },
        })
    }

    /// The gradients of a step, kept here: their norm, and the step's report.
    pub(crate) fn gradients<W: Work>(&mut self, step: &W) -> Result<(f64, W::Report)> {
        match self {
            Self::Cpu { spare, gradients } => {
                let (found, report) = step.gradients(spare)?;
                let norm = found.norm()?;
                *gradients = Some(found);
                Ok((finite(norm, step.number())?, report))
            }
            Self::Gpu(trainer) => loop {
                let report = step.gradients_on(trainer)?;
                let norm = trainer.norm()?;
                if norm.is_finite() || !trainer.try_smaller()? {
                    return Ok((finite(norm, step.number())?, report));
                }
            },
        }
    }

    /// The optimiser's step on these gradients, clipped.
    pub(crate) fn apply(
        &mut self,
        model: &Gpt,
        optimizer: &mut AdamW,
        norm: f64,
        max_norm: f64,
        rate: f64,
    ) -> Result<()> {
        let clip = clip_scale(norm, max_norm);
        match self {
            Self::Cpu { spare, gradients } => {
                let found = gradients.take().expect("gradients come before their step");
                optimizer.step(model, &found, clip, rate)?;
                spare.gradients.give(found);
                Ok(())
            }
            Self::Gpu(trainer) => trainer.step(optimizer, clip, rate),
        }
    }

    /// Memory of the GPU that is taken, by whomever, in MB.
    pub(super) fn gpu_memory_mb(&self) -> Result<Option<f64>> {
        match self {
            Self::Cpu { .. } => Ok(None),
            Self::Gpu(trainer) => trainer.memory_taken().map(|bytes| Some((bytes >> 20) as f64)),
        }
    }

    /// Whether the model on this processor is behind.
    pub(super) fn lags(&self) -> bool {
        matches!(self, Self::Gpu(_))
    }

    /// Brings model and optimiser on this processor up to date, for somebody who will look at them.
    pub(crate) fn write_all(&mut self, model: &Gpt, optimizer: &mut AdamW) -> Result<()> {
        self.write_weights(model)?;
        match self {
            Self::Cpu { .. } => Ok(()),
            Self::Gpu(trainer) => trainer.write_moments(optimizer),
        }
    }

    /// Brings the model alone up to date.
    pub(crate) fn write_weights(&mut self, model: &Gpt) -> Result<()> {
        match self {
            Self::Cpu { .. } => Ok(()),
            Self::Gpu(trainer) => trainer.write_weights(model),
        }
    }
}

fn finite(norm: f64, step: usize) -> Result<f64> {
    if norm.is_finite() {
        return Ok(norm);
    }
    Err(Error::new(
        format!("the gradient is not finite at step {step}"),
        norm.to_string(),
        "lower learning_rate or raise warmup_steps, and start from the last checkpoint",
    ))
}
