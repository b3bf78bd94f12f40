//! Supervised fine-tuning: imitate the preferred replies, and not the prompts.

use std::borrow::Cow;
use std::path::Path;

use candle_core::{DType, Tensor};

use super::objective::{Metrics, Objective, Pass, PassGradient, Scored, gradient_of};
use super::outcome::Outcome;
use super::recipe::{Recipe, Sft};
use super::trainer;
use crate::base::error::{Error, Result};
use crate::compute::Compute;
use crate::compute::executor;
use crate::compute::executor::{Executor, Forward};
use crate::data::batch::{Side, TokenizedPairs};
use crate::data::packed::Packed;
use crate::infer::score;
use crate::model::Gpt;

impl Sft {
    /// Trains `model` on `pairs` and evaluates on `held_out`; the model keeps its last weights.
    ///
    /// # Errors
    /// A setting out of range, or pairs that do not fit the model.
    pub fn fit(
        &self,
        model: &mut Gpt,
        pairs: &TokenizedPairs,
        held_out: &TokenizedPairs,
    ) -> Result<Outcome> {
        trainer::fit(&mut self.objective(pairs, held_out)?, &Recipe::Sft(self.clone()), model, None)
    }

    /// Resumes from a checkpoint and ends with the same bits as an uninterrupted run.
    ///
    /// # Errors
    /// The checkpoint was written with other settings, data or model.
    pub fn resume(
        &self,
        checkpoint: impl AsRef<Path>,
        model: &mut Gpt,
        pairs: &TokenizedPairs,
        held_out: &TokenizedPairs,
    ) -> Result<Outcome> {
        trainer::fit(
            &mut self.objective(pairs, held_out)?,
            &Recipe::Sft(self.clone()),
            model,
            Some(checkpoint.as_ref()),
        )
    }

    pub(super) fn objective<'a>(
        &self,
        pairs: &'a TokenizedPairs,
        held_out: &'a TokenizedPairs,
    ) -> Result<SftObjective<'a>> {
        let share_prompts = self.train.compute.share_prompts;
        Ok(SftObjective { pairs: self.train.with_pitfall(pairs)?, held_out, share_prompts })
    }
}

/// The objective of supervised fine-tuning.
pub(super) struct SftObjective<'a> {
    pairs: Cow<'a, TokenizedPairs>,
    held_out: &'a TokenizedPairs,
    share_prompts: bool,
}

impl Objective for SftObjective<'_> {
    fn identity(&self) -> String {
        identity(&self.held_out.hash)
    }

    fn data(&self) -> &TokenizedPairs {
        &self.pairs
    }

    fn held_out(&self) -> &TokenizedPairs {
        self.held_out
    }

    fn sides(&self) -> &'static [Side] {
        &[Side::Chosen]
    }

    fn constant_grad(&self, pass: &Pass<'_>, _packed: &Packed) -> Option<Vec<f32>> {
        let gradient = -1.0 / self.pairs.n_reply_tokens(pass.batch, Side::Chosen) as f64;
        Some(vec![gradient as f32; self.pairs.n_reply_tokens(pass.pairs, Side::Chosen)])
    }

    fn gradient(
        &self,
        pass: &Pass<'_>,
        forward: &Forward,
        _head: &[f32],
        log: Option<&mut Metrics>,
    ) -> Result<PassGradient> {
        gradient_of(forward, |scored| self.loss(pass, scored, log))
    }

    fn evaluate(
        &self,
        _policy: &Gpt,
        _head: &[f32],
        executor: &mut dyn Executor,
    ) -> Result<Vec<(String, f64)>> {
        Ok(vec![("eval_loss".into(), mean_nll(executor, self.held_out, self.share_prompts)?)])
    }

    fn set_beta(&mut self, beta: f64) -> Result<()> {
        Err(Error::new(
            "supervised fine-tuning has no beta",
            beta.to_string(),
            "set it on a DPO run",
        ))
    }
}

impl SftObjective<'_> {
    fn loss(
        &self,
        pass: &Pass<'_>,
        scored: &Scored<'_>,
        log: Option<&mut Metrics>,
    ) -> Result<Tensor> {
        let sum = scored.logps.values.sum_all()?;
        if let (Some(metrics), Some(stats)) = (log, scored.stats) {
            let n = self.pairs.n_reply_tokens(pass.pairs, Side::Chosen) as f64;
            let entropy: f64 = stats.entropy.iter().copied().map(f64::from).sum();
            metrics.add("loss", -to_f64(&sum)? / n, n);
            metrics.add(
                "mean_token_accuracy",
                stats.right.iter().filter(|r| **r).count() as f64 / n,
                n,
            );
            metrics.add("entropy", entropy / n, n);
        }
        Ok((sum * (-1.0 / self.pairs.n_reply_tokens(pass.batch, Side::Chosen) as f64))?)
    }
}

/// Returns everything that affects an SFT run's numbers, except its [`TrainConfig`].
pub(super) fn identity(held_out_hash: &str) -> String {
    format!("sft, held-out {held_out_hash}")
}

/// Returns the mean -log π of the chosen replies' tokens, in nats, over all pairs.
///
/// # Errors
/// The pairs do not fit the model.
pub fn evaluate_replies(model: &Gpt, pairs: &TokenizedPairs) -> Result<f64> {
    evaluate_replies_with(model, pairs, &Compute::default())
}

/// Evaluates as [`evaluate_replies`] does, with a run's `compute`.
///
/// # Errors
/// The pairs do not fit the model, or the hardware does not support `compute`.
pub fn evaluate_replies_with(
    model: &Gpt,
    pairs: &TokenizedPairs,
    compute: &Compute,
) -> Result<f64> {
    mean_nll(&mut *executor::for_model(compute, model)?, pairs, compute.share_prompts)
}

fn mean_nll(
    executor: &mut dyn Executor,
    pairs: &TokenizedPairs,
    share_prompts: bool,
) -> Result<f64> {
    let logps = score::score_replies_on(executor, pairs, &[Side::Chosen], share_prompts)?.remove(0);
    let tokens: usize = pairs.pairs.iter().map(|p| p.chosen.len()).sum();
    Ok(-logps.into_iter().map(f64::from).sum::<f64>() / tokens as f64)
}

fn to_f64(x: &Tensor) -> Result<f64> {
    Ok(x.to_dtype(DType::F64)?.to_scalar()?)
}
