//! What a run learns: a loss over training pairs, and an evaluation on held-out ones.

use std::collections::BTreeMap;

use candle_core::Tensor;

use crate::batch::{Side, TokenizedPairs};
use crate::error::Result;
use crate::fused::{Compute, Guesses};
use crate::model::Gpt;

/// Sums and weights by metric name; a mean is taken when they are logged.
#[derive(Default)]
pub(super) struct Metrics(BTreeMap<&'static str, (f64, f64)>);

impl Metrics {
    pub(super) fn add(&mut self, name: &'static str, mean: f64, weight: f64) {
        let entry = self.0.entry(name).or_default();
        *entry = (entry.0 + mean * weight, entry.1 + weight);
    }

    pub(super) fn merge(&mut self, other: Self) {
        for (name, (sum, weight)) in other.0 {
            let entry = self.0.entry(name).or_default();
            *entry = (entry.0 + sum, entry.1 + weight);
        }
    }

    pub(super) fn means(&self, prefix: &str) -> Vec<(String, f64)> {
        self.0.iter().map(|(name, (sum, weight))| (format!("{prefix}{name}"), sum / weight)).collect()
    }
}

/// What the policy made of a pass.
pub(super) struct Scored<'a> {
    /// log π of every reply token, (N), with a gradient: pair by pair, side by side.
    pub(super) token_logps: &'a Tensor,
    /// What it would have said by itself, where it is to be logged.
    pub(super) guesses: Option<&'a Guesses>,
}

/// What is learnt: a loss over some of the training pairs, and an evaluation on the held-out ones.
pub(super) trait Objective: Sync {
    /// `sft` or `dpo`, for lines of progress.
    fn name(&self) -> &'static str;
    /// Everything besides [`TrainConfig`] that decides the numbers, as text.
    fn identity(&self) -> String;
    fn data(&self) -> &TokenizedPairs;
    fn held_out(&self) -> &TokenizedPairs;
    /// The replies of a pair that go through the model.
    fn sides(&self) -> &'static [Side];
    /// This pass's share of the loss of a whole step, so that shares add up whatever the size of a pass.
    fn loss(&self, pass: &[usize], step: &[usize], scored: &Scored<'_>, log: Option<&mut Metrics>) -> Result<Tensor>;
    /// The gradient of the loss with respect to each log π, where it does not depend on their values: (N).
    fn known_slopes(&self, _pass: &[usize], _step: &[usize]) -> Option<Vec<f32>> {
        None
    }
    /// Tokens that go through the model for these pairs.
    fn tokens(&self, indices: &[usize]) -> usize;
    fn evaluate(&self, policy: &Gpt, compute: &Compute) -> Result<Vec<(String, f64)>>;
    /// Another β from here on.
    fn set_beta(&mut self, beta: f64) -> Result<()>;
    /// A check before the first step.
    fn before_first_step(&self, _policy: &Gpt) -> Result<()> {
        Ok(())
    }
    /// The metrics of a progress line.
    fn headline(&self) -> &'static [&'static str];
}
