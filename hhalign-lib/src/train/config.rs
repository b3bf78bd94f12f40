//! The settings of the training loop.

use std::borrow::Cow;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::pitfall::Pitfall;
use crate::base::error::{Error, Result};
use crate::compute::Compute;
use crate::compute::optim::AdamWConfig;
use crate::data::batch::TokenizedPairs;

/// The settings of the training loop, shared by SFT, DPO and reward models.
// Skipped fields are read back as their defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainConfig {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Final learning rate of the cosine schedule, as a share of the peak.
    pub min_lr_ratio: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: usize,
    /// Number of optimiser steps.
    pub max_steps: usize,
    /// Pairs (or replies) in one optimiser step.
    pub batch_size: usize,
    /// Pairs in one forward and backward pass. A step runs its passes in parallel and adds up their
    /// gradients.
    pub micro_batch_size: usize,
    /// How a pass computes: precision, shared prompts, memory.
    pub compute: Compute,
    /// The optimiser's settings.
    pub adamw: AdamWConfig,
    /// Largest global norm of the gradients.
    pub max_grad_norm: f64,
    /// Steps between evaluations on held-out pairs.
    pub eval_every: usize,
    /// Number of evaluations without a better held-out loss after which the run stops; `None` never
    /// stops early.
    pub patience: Option<usize>,
    /// Steps between records of the training metrics.
    pub log_every: usize,
    /// Seed of data order and dropout.
    pub seed: u64,
    /// A deliberate mistake, to see its symptoms; `None` makes none.
    pub pitfall: Option<Pitfall>,
    /// Whether to print a line of progress with the time left at every record.
    pub progress: bool,
    /// Path of the run's checkpoint; `None` writes none.
    #[serde(skip)]
    pub checkpoint: Option<PathBuf>,
    /// Steps between checkpoints; the last step always writes one.
    #[serde(skip)]
    pub checkpoint_every: usize,
    /// The step at which the run stops, with a checkpoint to resume from; the schedule still ends
    /// at `max_steps`.
    #[serde(skip)]
    pub stop_at: Option<usize>,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            min_lr_ratio: 0.1,
            warmup_steps: 20,
            max_steps: 300,
            batch_size: 32,
            micro_batch_size: 16,
            compute: Compute::default(),
            adamw: AdamWConfig::default(),
            max_grad_norm: 1.0,
            eval_every: 50,
            patience: None,
            log_every: 10,
            seed: 0,
            pitfall: None,
            progress: true,
            checkpoint: None,
            checkpoint_every: 100,
            stop_at: None,
        }
    }
}

/// Describes the optimiser in one line, for a report.
///
/// # Example
/// ```
/// let line = hhalign::train::TrainConfig::default().to_string();
/// let start = "AdamW, learning rate 0.001 (20 steps of warm-up, then a cosine to a tenth of it)";
/// assert!(line.starts_with(start), "{line}");
/// ```
impl std::fmt::Display for TrainConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = if self.min_lr_ratio == 0.1 {
            "a tenth of it".into()
        } else {
            format!("{} of it", self.min_lr_ratio)
        };
        let AdamWConfig { beta1, beta2, weight_decay, .. } = self.adamw;
        write!(
            f,
            "AdamW, learning rate {} ({} steps of warm-up, then a cosine to {end}), \
             batches of {}, gradients clipped at {}, \
             betas {beta1} and {beta2}, weight decay {weight_decay}",
            self.learning_rate, self.warmup_steps, self.batch_size, self.max_grad_norm
        )
    }
}

impl TrainConfig {
    /// Returns the dropout of a training pass: the model's own, or one that a pitfall left on.
    pub(crate) fn dropout(&self, model: &crate::model::Gpt) -> f64 {
        match self.pitfall {
            Some(Pitfall::DropoutLeftOn) => model.config.dropout.max(0.1),
            _ => model.config.dropout,
        }
    }

    /// Checks the settings; `fit` calls it.
    ///
    /// # Errors
    /// A setting out of range: the message names it, its value and a valid one.
    pub fn check(&self) -> Result<()> {
        let positive = [
            ("learning_rate", self.learning_rate),
            ("max_grad_norm", self.max_grad_norm),
            ("epsilon", self.adamw.epsilon),
        ];
        if let Some((name, value)) = positive.iter().find(|(_, v)| !(*v > 0.0 && v.is_finite())) {
            return Err(Error::new(
                format!("{name} must be positive"),
                value.to_string(),
                "start from TrainConfig::default()",
            ));
        }
        let counts = [
            ("max_steps", self.max_steps),
            ("batch_size", self.batch_size),
            ("micro_batch_size", self.micro_batch_size),
            ("eval_every", self.eval_every),
            ("log_every", self.log_every),
            ("checkpoint_every", self.checkpoint_every),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, v)| *v == 0) {
            return Err(Error::new(
                format!("{name} must be at least 1"),
                "0",
                "start from TrainConfig::default()",
            ));
        }
        if !(self.adamw.weight_decay >= 0.0 && self.adamw.weight_decay.is_finite()) {
            let got = self.adamw.weight_decay.to_string();
            return Err(Error::new(
                "weight_decay must not be negative",
                got,
                "0.1 is usual, 0 leaves it out",
            ));
        }
        for (name, value) in [("beta1", self.adamw.beta1), ("beta2", self.adamw.beta2)] {
            if !(0.0..1.0).contains(&value) {
                return Err(Error::new(
                    format!("{name} must lie in [0, 1)"),
                    value.to_string(),
                    "0.9 and 0.95 are usual",
                ));
            }
        }
        let shares = [("min_lr_ratio", self.min_lr_ratio)];
        if let Some((name, value)) = shares.iter().find(|(_, v)| !(0.0..=1.0).contains(v)) {
            return Err(Error::new(
                format!("{name} must lie between 0 and 1"),
                value.to_string(),
                "start from TrainConfig::default()",
            ));
        }
        if self.warmup_steps > self.max_steps {
            return Err(Error::new(
                "the warm-up is longer than the run",
                format!("{} of {} steps", self.warmup_steps, self.max_steps),
                "a tenth of max_steps is usual",
            ));
        }
        Ok(())
    }

    /// Returns the pairs with the pitfall's mistake, if the config has one.
    pub(super) fn with_pitfall<'a>(
        &self,
        pairs: &'a TokenizedPairs,
    ) -> Result<Cow<'a, TokenizedPairs>> {
        match &self.pitfall {
            Some(pitfall) => pitfall.apply(pairs, self.seed),
            None => Ok(Cow::Borrowed(pairs)),
        }
    }
}
