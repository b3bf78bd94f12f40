//! The identity of a run: everything that affects its numbers.
//!
//! Two runs with equal identities end with equal bits, so a name made from the identity finds a run
//! again. Housekeeping settings (how often to log, print and save, and where) are not part of it.

use std::fmt;

use serde::Serialize;

use super::{Pitfall, TrainConfig};
use crate::base::error::Result;
use crate::base::rng::sha256_hex;
use crate::compute::Compute;
use crate::compute::optim::AdamWConfig;

/// Everything that affects the numbers of a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Identity {
    /// The objective with its settings and held-out pairs; see
    /// [`Objective::identity`](super::objective::Objective).
    pub(crate) objective: String,
    /// Hash of the training pairs, and the length to which they were cut.
    pub(crate) pairs: String,
    /// The part of the [`TrainConfig`] that affects the numbers, as JSON.
    pub(crate) settings: serde_json::Value,
    /// The first weights.
    pub(crate) origin: Origin,
}

/// The weights that a run begins with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Origin {
    /// The weights of a model, by their hash.
    Weights(String),
    /// The weights of another run at a step.
    Fork {
        /// The other run's name.
        parent: String,
        /// The other run's steps at the fork.
        step: usize,
        /// Hash of the weights at the fork.
        weights: String,
    },
}

impl Identity {
    /// Returns the first digits of a hash of the identity.
    pub(crate) fn hash(&self, digits: usize) -> String {
        sha256_hex([self.to_string().as_bytes()], digits)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { objective, pairs, settings, origin } = self;
        write!(
            f,
            "hhalign {}, {objective}, pairs {pairs}, {settings}, ",
            env!("CARGO_PKG_VERSION")
        )?;
        match origin {
            Origin::Weights(hash) => write!(f, "first weights {hash}"),
            Origin::Fork { parent, step, weights } => {
                write!(f, "fork of {parent} at {step} with weights {weights}")
            }
        }
    }
}

/// The fields of a [`TrainConfig`] that affect the numbers.
#[derive(Serialize)]
struct IdentityFields<'a> {
    learning_rate: f64,
    min_lr_ratio: f64,
    warmup_steps: usize,
    max_steps: usize,
    batch_size: usize,
    micro_batch_size: usize,
    compute: &'a Compute,
    adamw: &'a AdamWConfig,
    max_grad_norm: f64,
    eval_every: usize,
    patience: Option<usize>,
    seed: u64,
    pitfall: &'a Option<Pitfall>,
}

impl TrainConfig {
    /// Returns the fields that affect the numbers of a run, as JSON. The pattern names every field,
    /// so a new one must be put on one side or the other.
    pub(crate) fn identity(&self) -> Result<serde_json::Value> {
        let Self {
            learning_rate,
            min_lr_ratio,
            warmup_steps,
            max_steps,
            batch_size,
            micro_batch_size,
            compute,
            adamw,
            max_grad_norm,
            // Affects which step is the best one, and when patience ends.
            eval_every,
            patience,
            log_every: _,
            seed,
            pitfall,
            progress: _,
            checkpoint: _,
            checkpoint_every: _,
            stop_at: _,
        } = self;
        Ok(serde_json::to_value(IdentityFields {
            learning_rate: *learning_rate,
            min_lr_ratio: *min_lr_ratio,
            warmup_steps: *warmup_steps,
            max_steps: *max_steps,
            batch_size: *batch_size,
            micro_batch_size: *micro_batch_size,
            compute,
            adamw,
            max_grad_norm: *max_grad_norm,
            eval_every: *eval_every,
            patience: *patience,
            seed: *seed,
            pitfall,
        })?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(config: &TrainConfig) -> String {
        let origin = Origin::Weights("w".into());
        Identity {
            objective: "sft".into(),
            pairs: "p".into(),
            settings: config.identity().unwrap(),
            origin,
        }
        .hash(16)
    }

    #[test]
    fn housekeeping_is_not_part_of_the_identity() {
        let config = TrainConfig::default();
        let other = TrainConfig {
            log_every: 1,
            progress: false,
            checkpoint: Some("elsewhere".into()),
            checkpoint_every: 3,
            stop_at: Some(7),
            ..config.clone()
        };
        assert_eq!(identity(&config), identity(&other));
    }

    #[test]
    fn every_setting_of_the_training_is_part_of_the_identity() {
        let base = TrainConfig::default();
        let changes: [fn(&mut TrainConfig); 13] = [
            |c| c.learning_rate *= 2.0,
            |c| c.min_lr_ratio = 0.0,
            |c| c.warmup_steps += 1,
            |c| c.max_steps += 1,
            |c| c.batch_size += 1,
            |c| c.micro_batch_size += 1,
            |c| c.compute.share_prompts = false,
            |c| c.adamw.beta2 = 0.9,
            |c| c.max_grad_norm = 2.0,
            |c| c.eval_every += 1,
            |c| c.patience = Some(2),
            |c| c.seed += 1,
            |c| c.pitfall = Some(Pitfall::NoEos),
        ];
        for (i, change) in changes.iter().enumerate() {
            let mut config = base.clone();
            change(&mut config);
            assert_ne!(identity(&base), identity(&config), "change {i}");
        }
    }
}
