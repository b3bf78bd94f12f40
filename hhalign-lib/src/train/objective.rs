//! The interface of an objective: a loss over training pairs, and an evaluation on held-out ones.

use std::collections::BTreeMap;

use candle_core::Tensor;

use crate::base::error::Result;
use crate::compute::Compute;
use crate::compute::cpu::TokenStats;
use crate::compute::executor::{Executor, Forward, TokenLogps, Upstream};
use crate::data::batch::{Side, TokenizedPairs};
use crate::data::packed::Packed;
use crate::model::Gpt;

/// The metrics of a step by name, averaged when they are logged.
#[derive(Default)]
pub(crate) struct Metrics {
    weighted: BTreeMap<&'static str, Weighted>,
    cases: BTreeMap<&'static str, Vec<f64>>,
}

/// A weighted sum and its total weight.
#[derive(Default)]
struct Weighted {
    sum: f64,
    weight: f64,
}

impl Metrics {
    /// Adds a mean with its weight.
    pub(crate) fn add(&mut self, name: &'static str, mean: f64, weight: f64) {
        self.add_sum(name, mean * weight, weight);
    }

    /// Adds a sum with its weight.
    pub(crate) fn add_sum(&mut self, name: &'static str, sum: f64, weight: f64) {
        let entry = self.weighted.entry(name).or_default();
        entry.sum += sum;
        entry.weight += weight;
    }

    /// Adds individual cases, which are summed one by one, whatever the size of a pass.
    pub(crate) fn add_cases(&mut self, name: &'static str, cases: impl IntoIterator<Item = f64>) {
        self.cases.entry(name).or_default().extend(cases);
    }

    pub(crate) fn merge(&mut self, other: Self) {
        other.weighted.into_iter().for_each(|(name, w)| self.add_sum(name, w.sum, w.weight));
        other.cases.into_iter().for_each(|(name, cases)| self.add_cases(name, cases));
    }

    pub(crate) fn means(&self, prefix: &str) -> Vec<(String, f64)> {
        let weighted =
            self.weighted.iter().map(|(name, w)| (format!("{prefix}{name}"), w.sum / w.weight));
        let of_cases = |cases: &Vec<f64>| cases.iter().sum::<f64>() / cases.len() as f64;
        weighted
            .chain(
                self.cases.iter().map(|(name, cases)| (format!("{prefix}{name}"), of_cases(cases))),
            )
            .collect()
    }
}

/// One pass of a step.
pub(crate) struct Pass<'a> {
    /// The pairs of the pass.
    pub(crate) pairs: &'a [usize],
    /// The pairs of the step.
    pub(crate) batch: &'a [usize],
    /// The step's number.
    pub(crate) step: usize,
}

/// The gradient of a pass with respect to the model's outputs and to the head above it.
#[derive(Default)]
pub(crate) struct PassGradient {
    pub(crate) upstream: Upstream,
    /// The gradient of the head's weights, (C); empty for an objective without a head.
    pub(crate) dhead: Vec<f32>,
}

/// An objective: a loss over training pairs, and an evaluation on held-out ones.
pub(crate) trait Objective: Sync {
    /// Returns as text everything that affects the numbers, except
    /// [`TrainConfig`](super::TrainConfig).
    fn identity(&self) -> String;
    fn data(&self) -> &TokenizedPairs;
    fn held_out(&self) -> &TokenizedPairs;
    /// The replies of a pair that pass through the model.
    fn sides(&self) -> &'static [Side];
    /// Packs the tokens of a pass.
    fn pack(&self, pass: &Pass<'_>, compute: &Compute) -> Result<Packed> {
        self.data().packed(pass.pairs, self.sides(), compute.share_prompts)
    }
    /// Returns the gradient of the loss with respect to each log π, (N), if it does not depend on
    /// their values.
    fn constant_grad(&self, _pass: &Pass<'_>, _packed: &Packed) -> Option<Vec<f32>> {
        None
    }
    /// Returns whether the objective logs statistics of the model's own predictions.
    fn wants_stats(&self) -> bool {
        true
    }
    /// Returns the gradient of this pass's share of the step's loss. The shares add up to the
    /// step's gradient, whatever the size of a pass.
    fn gradient(
        &self,
        pass: &Pass<'_>,
        forward: &Forward,
        head: &[f32],
        log: Option<&mut Metrics>,
    ) -> Result<PassGradient>;
    /// Counts the tokens that pass through the model for these pairs.
    fn tokens(&self, indices: &[usize]) -> usize {
        self.data().n_tokens(indices, self.sides())
    }
    /// Evaluates on the held-out pairs; the metrics include `eval_loss`. `executor` holds the
    /// weights of `policy`, which is in sync.
    fn evaluate(
        &self,
        policy: &Gpt,
        head: &[f32],
        executor: &mut dyn Executor,
    ) -> Result<Vec<(String, f64)>>;
    /// Returns whether a head (C) follows the model and is trained with it.
    fn has_head(&self) -> bool {
        false
    }
    /// Sets β for the next steps.
    fn set_beta(&mut self, beta: f64) -> Result<()>;
    /// Checks the run before its first step.
    fn before_first_step(&self, _policy: &Gpt) -> Result<()> {
        Ok(())
    }
}

/// The inputs of a loss: log-probabilities and statistics.
pub(super) struct Scored<'a> {
    /// log π of every reply token, with a gradient.
    pub(super) logps: &'a TokenLogps<Tensor>,
    /// Statistics of the model's own predictions, if they are logged.
    pub(super) stats: Option<&'a TokenStats>,
}

/// Returns the upstream gradient of a loss over log-probabilities. The loss is composed from tensor
/// operations: a lesson and a run call the same function.
pub(super) fn gradient_of(
    forward: &Forward,
    loss: impl FnOnce(&Scored<'_>) -> Result<Tensor>,
) -> Result<PassGradient> {
    let (leaf, logps) = forward.logps.leaf()?;
    let loss = loss(&Scored { logps: &logps, stats: forward.stats.as_ref() })?;
    let dlogps = match loss.backward()?.get(&leaf) {
        Some(gradient) => gradient.to_vec1::<f32>()?,
        None => vec![0.0; forward.logps.values.len()],
    };
    Ok(PassGradient { upstream: Upstream { dlogps, dends: vec![] }, dhead: vec![] })
}
