//! What a run learns: a loss over training pairs, and an evaluation on held-out ones.

use std::collections::BTreeMap;

use candle_core::Tensor;

use crate::batch::{Side, TokenizedPairs};
use crate::error::Result;
use crate::executor::{Executor, Forward, TokenLogps, Upstream};
use crate::fused::{Compute, Packed, TokenStats};
use crate::model::Gpt;

/// Metrics of a step by name; a mean is taken when they are logged.
#[derive(Default)]
pub(crate) struct Metrics {
    weighted: BTreeMap<&'static str, Weighted>,
    cases: BTreeMap<&'static str, Vec<f64>>,
}

/// A sum and its weight.
#[derive(Default)]
struct Weighted {
    sum: f64,
    weight: f64,
}

impl Metrics {
    /// Adds a mean over something of this weight.
    pub(crate) fn add(&mut self, name: &'static str, mean: f64, weight: f64) {
        self.add_sum(name, mean * weight, weight);
    }

    /// Adds a sum over something of this weight.
    pub(crate) fn add_sum(&mut self, name: &'static str, sum: f64, weight: f64) {
        let entry = self.weighted.entry(name).or_default();
        entry.sum += sum;
        entry.weight += weight;
    }

    /// Adds single cases, which are summed up one by one whatever the size of a pass.
    pub(crate) fn add_cases(&mut self, name: &'static str, cases: impl IntoIterator<Item = f64>) {
        self.cases.entry(name).or_default().extend(cases);
    }

    pub(crate) fn merge(&mut self, other: Self) {
        other.weighted.into_iter().for_each(|(name, w)| self.add_sum(name, w.sum, w.weight));
        other.cases.into_iter().for_each(|(name, cases)| self.add_cases(name, cases));
    }

    pub(crate) fn means(&self, prefix: &str) -> Vec<(String, f64)> {
        let weighted = self.weighted.iter().map(|(name, w)| (format!("{prefix}{name}"), w.sum / w.weight));
        let of_cases = |cases: &Vec<f64>| cases.iter().sum::<f64>() / cases.len() as f64;
        weighted.chain(self.cases.iter().map(|(name, cases)| (format!("{prefix}{name}"), of_cases(cases)))).collect()
    }
}

/// One pass of a step.
pub(crate) struct Pass<'a> {
    /// The pairs that go through the model.
    pub(crate) pairs: &'a [usize],
    /// The pairs of the whole step.
    pub(crate) batch: &'a [usize],
    /// The step's number.
    pub(crate) step: usize,
}

/// The gradient of a pass with respect to what the model gave, and to the head above it.
#[derive(Default)]
pub(crate) struct PassGradient {
    pub(crate) upstream: Upstream,
    /// Of the head's weights, (C); empty for an objective without a head.
    pub(crate) dhead: Vec<f32>,
}

/// What is learnt: a loss over some of the training pairs, and an evaluation on the held-out ones.
pub(crate) trait Objective: Sync {
    /// Everything besides [`TrainConfig`](super::TrainConfig) that decides the numbers, as text.
    fn identity(&self) -> String;
    fn data(&self) -> &TokenizedPairs;
    fn held_out(&self) -> &TokenizedPairs;
    /// The replies of a pair that go through the model.
    fn sides(&self) -> &'static [Side];
    /// The tokens of a pass.
    fn pack(&self, pass: &Pass<'_>, compute: &Compute) -> Result<Packed> {
        self.data().packed(pass.pairs, self.sides(), compute.share_prompts)
    }
    /// The gradient of the loss with respect to each log π, (N), where it does not depend on their values.
    fn constant_grad(&self, _pass: &Pass<'_>, _packed: &Packed) -> Option<Vec<f32>> {
        None
    }
    /// Whether it logs what the model would have said by itself.
    fn wants_stats(&self) -> bool {
        true
    }
    /// The gradient of this pass's share of the loss of a whole step, so that shares add up whatever the size of a pass.
    fn gradient(
        &self,
        pass: &Pass<'_>,
        forward: &Forward,
        head: &[f32],
        log: Option<&mut Metrics>,
    ) -> Result<PassGradient>;
    /// Tokens that go through the model for these pairs.
    fn tokens(&self, indices: &[usize]) -> usize {
        self.data().n_tokens(indices, self.sides())
    }
    /// Metrics on the held-out pairs, `eval_loss` among them. `executor` holds the weights of `policy`, which is up to date.
    fn evaluate(&self, policy: &Gpt, head: &[f32], executor: &mut dyn Executor) -> Result<Vec<(String, f64)>>;
    /// Whether a head (C) follows the model and is trained with it.
    fn has_head(&self) -> bool {
        false
    }
    /// Another β from here on.
    fn set_beta(&mut self, beta: f64) -> Result<()>;
    /// A check before the first step.
    fn before_first_step(&self, _policy: &Gpt) -> Result<()> {
        Ok(())
    }
}

/// Log-probabilities as a loss of the lesson reads them.
pub(super) struct Scored<'a> {
    /// log π of every reply token, with a gradient.
    pub(super) logps: &'a TokenLogps<Tensor>,
    /// What the model would have said by itself, where it is to be logged.
    pub(super) stats: Option<&'a TokenStats>,
}

/// The upstream gradient of a loss over log-probabilities. From here to the loss it is the composed path: a lesson and a
/// run call one and the same loss.
pub(super) fn gradient_of(forward: &Forward, loss: impl FnOnce(&Scored<'_>) -> Result<Tensor>) -> Result<PassGradient> {
    let (leaf, logps) = forward.logps.leaf()?;
    let loss = loss(&Scored { logps: &logps, stats: forward.stats.as_ref() })?;
    let dlogps = match loss.backward()?.get(&leaf) {
        Some(gradient) => gradient.to_vec1::<f32>()?,
        None => vec![0.0; forward.logps.values.len()],
    };
    Ok(PassGradient { upstream: Upstream { dlogps, dends: vec![] }, dhead: vec![] })
}
