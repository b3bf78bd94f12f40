//! Direct preference optimisation: raise the chosen reply above the rejected one, relative to a
//! frozen reference.

use std::borrow::Cow;
use std::path::Path;

use candle_core::Tensor;

use super::objective::{Metrics, Objective, Pass, PassGradient, Scored, gradient_of};
use super::outcome::Outcome;
use super::pitfall::Pitfall;
use super::recipe::{Dpo, Recipe};
use super::trainer;
use crate::base::error::{Error, Result};
use crate::compute::Compute;
use crate::compute::executor::{Executor, Forward};
use crate::data::batch::{Side, TokenizedPairs};
use crate::infer::kl;
use crate::infer::score;
use crate::infer::score::ReferenceLogps;
use crate::loss;
use crate::loss::PairLogps;
use crate::model::Gpt;

impl Dpo {
    /// Trains `policy` on `pairs` against `reference`, and evaluates on held-out pairs.
    ///
    /// # Errors
    /// A setting out of range, pairs that do not fit, or a policy that differs from the reference
    /// at step 0.
    pub fn fit(
        &self,
        policy: &mut Gpt,
        reference: &Gpt,
        pairs: &TokenizedPairs,
        held_out: &TokenizedPairs,
    ) -> Result<Outcome> {
        trainer::fit(
            &mut self.objective(reference, pairs, held_out)?,
            &Recipe::Dpo(self.clone()),
            policy,
            None,
        )
    }

    /// Resumes from a checkpoint and ends with the same bits as an uninterrupted run.
    ///
    /// # Errors
    /// The checkpoint was written with other settings, data, reference or model.
    pub fn resume(
        &self,
        checkpoint: impl AsRef<Path>,
        policy: &mut Gpt,
        reference: &Gpt,
        pairs: &TokenizedPairs,
        held_out: &TokenizedPairs,
    ) -> Result<Outcome> {
        trainer::fit(
            &mut self.objective(reference, pairs, held_out)?,
            &Recipe::Dpo(self.clone()),
            policy,
            Some(checkpoint.as_ref()),
        )
    }

    pub(super) fn objective<'a>(
        &'a self,
        reference: &'a Gpt,
        pairs: &'a TokenizedPairs,
        held_out: &'a TokenizedPairs,
    ) -> Result<DpoObjective<'a>> {
        self.loss.check(self.beta)?;
        if !(self.rpo_alpha >= 0.0 && self.rpo_alpha.is_finite()) {
            return Err(Error::new(
                "rpo_alpha must not be negative",
                self.rpo_alpha.to_string(),
                "0 leaves the term out",
            ));
        }
        let pairs = self.train.with_pitfall(pairs)?;
        let reference_hash = reference.hash()?;
        let wrong_reference = match self.train.pitfall {
            Some(Pitfall::WrongReference) => {
                Some(Gpt::new(reference.config.clone(), self.train.seed)?.freeze()?)
            }
            _ => None,
        };
        let scored_by = wrong_reference.as_ref().unwrap_or(reference);
        let logps = |pairs| {
            score::reference_logps_with(
                scored_by,
                pairs,
                self.cache.as_deref(),
                &self.train.compute,
            )
        };
        let (scores, held_out_scores) = (logps(&pairs)?, logps(held_out)?);
        Ok(DpoObjective {
            dpo: self,
            beta: self.beta,
            pairs,
            held_out,
            reference,
            wrong_reference,
            scores,
            held_out_scores,
            reference_hash,
        })
    }

    /// Returns everything that affects the run's numbers, except its [`TrainConfig`].
    pub(super) fn identity(&self, reference_hash: &str, held_out_hash: &str) -> String {
        let Self { loss, beta, rpo_alpha, kl_prompts, .. } = self;
        let kl = if *kl_prompts > 0 { format!(", kl_prompts {kl_prompts}") } else { String::new() };
        format!(
            "dpo {loss:?}, beta {beta}, rpo_alpha {rpo_alpha}{kl}, \
             reference {reference_hash}, held-out {held_out_hash}"
        )
    }
}

/// Both replies of a pair pass through the model.
const SIDES: [Side; 2] = [Side::Chosen, Side::Rejected];

pub(super) struct DpoObjective<'a> {
    dpo: &'a Dpo,
    /// The current β, which may change during the run.
    beta: f64,
    pairs: Cow<'a, TokenizedPairs>,
    held_out: &'a TokenizedPairs,
    reference: &'a Gpt,
    wrong_reference: Option<Gpt>,
    scores: ReferenceLogps,
    held_out_scores: ReferenceLogps,
    reference_hash: String,
}

impl Objective for DpoObjective<'_> {
    fn identity(&self) -> String {
        self.dpo.identity(&self.reference_hash, &self.held_out.hash)
    }

    fn data(&self) -> &TokenizedPairs {
        &self.pairs
    }

    fn held_out(&self) -> &TokenizedPairs {
        self.held_out
    }

    fn sides(&self) -> &'static [Side] {
        &SIDES
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
        policy: &Gpt,
        _head: &[f32],
        executor: &mut dyn Executor,
    ) -> Result<Vec<(String, f64)>> {
        let compute = &self.dpo.train.compute;
        let scored = score::score_pairs_on(executor, self.held_out, compute.share_prompts)?;
        let logps = self.held_out_scores.with_policy_scores(scored, self.held_out)?;
        let mut metrics = Metrics::default();
        log_preferences(
            &mut metrics,
            &logps,
            &self.dpo.loss.losses(&logps, self.beta)?,
            self.beta,
        )?;
        let n_prompts = self.dpo.kl_prompts;
        if n_prompts > 0 {
            let reference = self.wrong_reference.as_ref().unwrap_or(self.reference);
            let seed = self.dpo.train.seed;
            let kl = kl::from_held_out(policy, reference, self.held_out, n_prompts, seed, compute)?;
            let n = kl.len() as f64;
            let mean = kl.iter().sum::<f64>() / n;
            let variance = kl.iter().map(|k| (k - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
            metrics.add("kl", mean, 1.0);
            // Half of a 95% interval of the mean.
            metrics.add("kl_half_width", 1.96 * (variance / n).sqrt(), 1.0);
        }
        Ok(metrics.means("eval_"))
    }

    fn set_beta(&mut self, beta: f64) -> Result<()> {
        self.dpo.loss.check(beta)?;
        self.beta = beta;
        Ok(())
    }

    fn before_first_step(&self, policy: &Gpt) -> Result<()> {
        let differs_on_purpose = self.dpo.train.pitfall.is_some_and(Pitfall::breaks_the_self_test);
        if !self.dpo.self_test || !self.dpo.loss.uses_reference() || differs_on_purpose {
            return Ok(());
        }
        let first = self.pairs.head(8);
        let scored = score::score_pairs_with(policy, &first, &self.dpo.train.compute)?;
        let logps = self.scores.with_policy_scores(scored, &first)?;
        let logratios = logps.logratios().map(|ratios| loss::to_f64(&ratios));
        let largest = logratios
            .into_iter()
            .flatten()
            .map(f64::abs)
            .fold(0.0, |a, b| if a > b || a.is_nan() { a } else { b });
        // The rounding error of a sum over some hundred tokens is far below this, the effect of a
        // wrong reference far above.
        if largest > 0.02 || largest.is_nan() {
            return Err(Error::new(
                "step 0: policy and reference give different log-probabilities, \
                 so the rewards are not 0 and the loss is not ln 2",
                format!("log-ratios up to {largest:.3} nats"),
                "make the policy a fork of the reference (reference.fork()), \
                 or set self_test = false if this is intended",
            ));
        }
        Ok(())
    }
}

impl DpoObjective<'_> {
    fn loss(
        &self,
        pass: &Pass<'_>,
        scored: &Scored<'_>,
        log: Option<&mut Metrics>,
    ) -> Result<Tensor> {
        let logps = self.scores.with_policy_tokens(scored.logps, &self.pairs, pass.pairs)?;
        let mut losses = self.dpo.loss.losses(&logps, self.beta)?;
        if self.dpo.rpo_alpha > 0.0 {
            let lengths: Vec<f32> = logps.chosen_tokens.iter().map(|&n| n as f32).collect();
            let per_token = (&logps.policy_chosen / Tensor::new(lengths, losses.device())?)?;
            losses = (losses - (per_token * self.dpo.rpo_alpha)?)?;
        }
        if let Some(metrics) = log {
            log_preferences(metrics, &logps, &losses, self.beta)?;
        }
        Ok((losses.sum_all()? / pass.batch.len() as f64)?)
    }
}

fn log_preferences(
    metrics: &mut Metrics,
    logps: &PairLogps,
    losses: &Tensor,
    beta: f64,
) -> Result<()> {
    let n = logps.len() as f64;
    let mean = |v: &[f64]| v.iter().sum::<f64>() / n;
    let rewards = logps.rewards(beta);
    metrics.add("loss", loss::mean(&losses.detach())?, n);
    metrics.add("rewards/chosen", mean(&rewards.chosen), n);
    metrics.add("rewards/rejected", mean(&rewards.rejected), n);
    metrics.add("rewards/margins", mean(&rewards.margins()), n);
    metrics.add("rewards/accuracies", rewards.correct() / n, n);
    metrics.add("logps/chosen", loss::mean(&logps.policy_chosen)?, n);
    metrics.add("logps/rejected", loss::mean(&logps.policy_rejected)?, n);
    Ok(())
}

/// Returns the log-probabilities of all pairs under `policy` and under the reference, without
/// gradients.
///
/// # Errors
/// The pairs do not fit the model.
pub fn evaluate_preferences(
    policy: &Gpt,
    reference: &ReferenceLogps,
    pairs: &TokenizedPairs,
) -> Result<PairLogps> {
    evaluate_preferences_with(policy, reference, pairs, &Compute::default())
}

/// Evaluates as [`evaluate_preferences`] does, with a run's `compute`.
///
/// # Errors
/// The pairs do not fit the model, or the hardware does not support `compute`.
pub fn evaluate_preferences_with(
    policy: &Gpt,
    reference: &ReferenceLogps,
    pairs: &TokenizedPairs,
    compute: &Compute,
) -> Result<PairLogps> {
    reference.with_policy_scores(score::score_pairs_with(policy, pairs, compute)?, pairs)
}
