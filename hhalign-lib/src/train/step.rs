//! The gradients of one optimiser step: its passes side by side, by the fast path or by the composed model.

use candle_core::{Device, Var};

use super::TrainConfig;
use super::engine::{Spare, Work};
use super::objective::{Metrics, Objective, Scored};
use crate::error::Result;
use crate::fused::{Guesses, Purpose, Weights, with_weights};
use crate::gpu::Trainer;
use crate::gradients::Gradients;
use crate::model::Gpt;
use crate::nn::Dropout;
use crate::parallel;
use crate::rng::stream;
use crate::score;

/// One step: which pairs, for what, and how.
pub(super) struct Step<'a> {
    pub(super) objective: &'a dyn Objective,
    pub(super) config: &'a TrainConfig,
    pub(super) model: &'a Gpt,
    /// The pairs of the whole step.
    pub(super) batch: &'a [usize],
    /// The step's number: it decides the draws of dropout.
    pub(super) number: usize,
    /// Whether metrics are wanted.
    pub(super) log: bool,
}

impl Work for Step<'_> {
    type Report = Metrics;

    fn number(&self) -> usize {
        self.number
    }

    /// Added up over the passes in their order.
    fn gradients(&self, spare: &Spare) -> Result<(Gradients, Metrics)> {
        let data = self.objective.data();
        let passes = data.balanced(self.batch, self.config.micro_batch_size, self.objective.sides());
        let passes: Vec<(usize, Vec<usize>)> = passes.into_iter().enumerate().collect();
        let (mut sum, mut logged) = (None, Metrics::default());
        let add = |(gradients, metrics): (Gradients, Metrics)| {
            logged.merge(metrics);
            spare.add(&mut sum, gradients);
        };
        // Dropout is drawn by the composed model only.
        if self.config.compute.composed || self.config.dropout(self.model) > 0.0 {
            parallel::for_each_in_order(&passes, |(i, pass)| self.composed_pass(*i, pass), add)?;
        } else {
            with_weights(self.model, self.config.compute.precision, Purpose::Train, |weights| {
                parallel::for_each_in_order(&passes, |(_, pass)| self.fused_pass(weights, pass, spare), add)
            })?;
        }
        Ok((sum.expect("a step has a pass"), logged))
    }

    /// Pass after pass.
    fn gradients_on(&self, trainer: &mut Trainer) -> Result<Metrics> {
        let (data, compute, mut logged) = (self.objective.data(), &self.config.compute, Metrics::default());
        for pass in data.balanced(self.batch, self.config.micro_batch_size, self.objective.sides()) {
            let packed = data.packed(&pass, self.objective.sides(), compute.share_prompts)?;
            let mut guesses = self.log.then(Guesses::default);
            let known = self.objective.known_slopes(&pass, self.batch);
            let logps = trainer.forward(&packed, compute, guesses.as_mut(), known.as_deref())?;
            let (slopes, metrics) = self.slopes(&pass, logps, guesses.as_ref(), known)?;
            logged.merge(metrics);
            trainer.backward(&slopes)?;
        }
        Ok(logged)
    }
}

impl Step<'_> {
    fn fused_pass(&self, weights: &Weights<'_>, pass: &[usize], spare: &Spare) -> Result<(Gradients, Metrics)> {
        let compute = &self.config.compute;
        let packed = self.objective.data().packed(pass, self.objective.sides(), compute.share_prompts)?;
        let mut guesses = self.log.then(Guesses::default);
        let mut gradients = spare.zeros(weights.config());
        spare.workspaces.with(|workspace| {
            let (keep, known) = (compute.keep(), self.objective.known_slopes(pass, self.batch));
            let logps = match &known {
                Some(known) => {
                    workspace.forward_known(weights, &packed, keep, guesses.as_mut(), known, &mut gradients)?
                }
                None => workspace.forward(weights, &packed, keep, guesses.as_mut())?,
            };
            let (slopes, metrics) = self.slopes(pass, logps, guesses.as_ref(), known)?;
            workspace.backward(weights, &packed, &slopes, &mut gradients)?;
            Ok((gradients, metrics))
        })
    }

    /// What flows back into each log π. From here to the loss it is the composed path: a lesson and a run call one and the
    /// same loss.
    fn slopes(
        &self,
        pass: &[usize],
        logps: Vec<f32>,
        guesses: Option<&Guesses>,
        known: Option<Vec<f32>>,
    ) -> Result<(Vec<f32>, Metrics)> {
        let (n, mut metrics) = (logps.len(), Metrics::default());
        let leaf = Var::from_vec(logps, n, &Device::Cpu)?;
        let scored = Scored { token_logps: leaf.as_tensor(), guesses };
        let loss = self.objective.loss(pass, self.batch, &scored, self.log.then_some(&mut metrics))?;
        let slopes = match (known, loss.backward()?.get(&leaf)) {
            (Some(known), _) => known,
            (None, Some(slopes)) => slopes.to_vec1::<f32>()?,
            (None, None) => vec![0.0; n],
        };
        Ok((slopes, metrics))
    }

    fn composed_pass(&self, i: usize, pass: &[usize]) -> Result<(Gradients, Metrics)> {
        let config = &self.model.config;
        let rng = stream(self.config.seed, "dropout", &[self.number as u64, i as u64]);
        let batch = self.objective.data().batch_of(pass, self.objective.sides())?;
        let logits = score::reply_logits(self.model, &batch, &mut Dropout::new(self.config.dropout(self.model), rng))?;
        let token_logps = score::logps_of_targets(&logits, &batch)?;
        let guesses = if self.log { Some(score::guesses(&logits, &batch.targets)?) } else { None };
        let mut metrics = Metrics::default();
        let scored = Scored { token_logps: &token_logps, guesses: guesses.as_ref() };
        let loss = self.objective.loss(pass, self.batch, &scored, self.log.then_some(&mut metrics))?;
        let mut gradients = loss.backward()?;
        // Detached: a gradient that kept its history would hold the whole pass in memory.
        let named = self.model.vars().iter();
        let named = named.filter_map(|(name, var)| Some((name.clone(), gradients.remove(var)?.detach())));
        Ok((Gradients::from_tensors(config, &named.collect())?, metrics))
    }
}
