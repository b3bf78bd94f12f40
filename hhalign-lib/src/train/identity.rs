//! What decides the numbers of a run. Two runs with equal identities end with equal bits, so a name made of an identity
//! finds a run again. Housekeeping (how often to log, print and save, and where) is no part of it.

use std::fmt;

use serde::Serialize;

use super::{Pitfall, TrainConfig};
use crate::error::Result;
use crate::fused::Compute;
use crate::optim::AdamWConfig;
use crate::rng::sha256_hex;

/// All that decides the numbers of a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Identity {
    /// What is learnt, with its settings and held-out pairs, as [`Objective::identity`](super::objective::Objective) says it.
    pub(crate) objective: String,
    /// Hash of the training pairs, and the length that they were cut to.
    pub(crate) pairs: String,
    /// The part of the [`TrainConfig`] that decides, as JSON.
    pub(crate) settings: serde_json::Value,
    /// Where the run begins.
    pub(crate) origin: Origin,
}

/// The weights that a run begins with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Origin {
    /// A model's, by their hash.
    Weights(String),
    /// Those of another run at a step.
    Fork {
        /// The other run's name.
        parent: String,
        /// Its steps by then.
        step: usize,
        /// Hash of its weights there.
        weights: String,
    },
}

impl Identity {
    /// The first digits of a hash over all of it.
    pub(crate) fn hash(&self, digits: usize) -> String {
        sha256_hex([self.to_string().as_bytes()], digits)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { objective, pairs, settings, origin } = self;
        write!(f, "hhalign {}, {objective}, pairs {pairs}, {settings}, ", env!("CARGO_PKG_VERSION"))?;
        match origin {
            Origin::Weights(hash) => write!(f, "first weights {hash}"),
            Origin::Fork { parent, step, weights } => write!(f, "fork of {parent} at {step} with weights {weights}"),
        }
    }
}

/// The fields of a [`TrainConfig`] that decide numbers.
#[derive(Serialize)]
struct Deciding<'a> {
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
    /// What decides the numbers of a run, as JSON. A new field has to be put on one side or the other here.
    pub(crate) fn deciding(&self) -> Result<serde_json::Value> {
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
            // Decides which step is the best one, and when patience ends.
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
        Ok(serde_json::to_value(Deciding {
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
        Identity { objective: "sft".into(), pairs: "p".into(), settings: config.deciding().unwrap(), origin }.hash(16)
    }

    #[test]
    fn housekeeping_does_not_decide() {
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
    fn every_setting_of_the_training_decides() {
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
