//! Direct preference optimisation: raise the chosen reply above the rejected one, measured from a frozen reference.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::TrainConfig;
use super::objective::{Metrics, Objective, Pass, PassGradient, Scored, gradient_of};
use super::outcome::Outcome;
use super::pitfall::Pitfall;
use super::recipe::Recipe;
use super::trainer;
use crate::batch::{Side, TokenizedPairs};
use crate::error::{Error, Result};
use crate::executor::{Executor, Forward};
use crate::fused::Compute;
use crate::kl;
use crate::loss::{self, PairLogps, PreferenceLoss};
use crate::model::Gpt;
use crate::score::{self, ReferenceLogps};

/// Preference optimisation with one of the losses of [`PreferenceLoss`].
///
/// # Source
/// arXiv 2305.18290. The reference is scored once, before training, which changes no number: it is frozen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dpo {
    /// How to go through the data.
    pub train: TrainConfig,
    /// Which loss; [`PreferenceLoss::Sigmoid`] is DPO proper.
    pub loss: PreferenceLoss,
    /// How strongly the policy is held to the reference: the β of the paper.
    pub beta: f64,
    /// RPO's weight of a likelihood term on the chosen reply, per token; 0 leaves it out. arXiv 2404.19733.
    pub rpo_alpha: f64,
    /// Where to keep the reference's log-probabilities between runs; `None` computes them each time.
    #[serde(skip)]
    pub cache: Option<PathBuf>,
    /// Held-out prompts to sample at each evaluation for the metric `eval_kl`: how far the policy went from its
    /// reference, in nats for a whole reply; 0 leaves it out.
    pub kl_prompts: usize,
    /// Stop before the first step when policy and reference differ: all rewards must be 0 there.
    pub self_test: bool,
}

impl Default for Dpo {
    fn default() -> Self {
        let train = TrainConfig {
            learning_rate: 3e-4,
            max_steps: 200,
            batch_size: 32,
            micro_batch_size: 16,
            ..TrainConfig::default()
        };
        Self {
            train,
            loss: PreferenceLoss::default(),
            beta: 0.1,
            rpo_alpha: 0.0,
            cache: None,
            kl_prompts: 0,
            self_test: true,
        }
    }
}

impl Dpo {
    /// Trains `policy` on `pairs` against `reference`, and watches held-out pairs.
    ///
    /// # Errors
    /// A setting out of range, pairs that do not fit, or a policy that is not the reference at step 0.
    pub fn fit(
        &self,
        policy: &mut Gpt,
        reference: &Gpt,
        pairs: &TokenizedPairs,
        held_out: &TokenizedPairs,
    ) -> Result<Outcome> {
        trainer::fit(&mut self.objective(reference, pairs, held_out)?, &Recipe::Dpo(self.clone()), policy, None)
    }

    /// Goes on from a checkpoint, and ends as the uninterrupted run would have.
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
            Some(Pitfall::WrongReference) => Some(Gpt::new(reference.config.clone(), self.train.seed)?.freeze()?),
            _ => None,
        };
        let scored_by = wrong_reference.as_ref().unwrap_or(reference);
        let logps = |pairs| score::reference_logps_with(scored_by, pairs, self.cache.as_deref(), &self.train.compute);
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

    /// What decides the run's numbers besides its [`TrainConfig`].
    pub(super) fn identity(&self, reference_hash: &str, held_out_hash: &str) -> String {
        let Self { loss, beta, rpo_alpha, kl_prompts, .. } = self;
        let kl = if *kl_prompts > 0 { format!(", kl_prompts {kl_prompts}") } else { String::new() };
        format!(
            "dpo {loss:?}, beta {beta}, rpo_alpha {rpo_alpha}{kl}, reference {reference_hash}, held-out {held_out_hash}"
        )
    }
}

/// Both replies of a pair go through the model.
const SIDES: [Side; 2] = [Side::Chosen, Side::Rejected];

/// The metrics of a progress line.
pub(crate) const HEADLINE: &[&str] = &["loss", "eval_rewards/accuracies"];

pub(super) struct DpoObjective<'a> {
    dpo: &'a Dpo,
    /// β in force: it may be changed while the run goes on.
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

    fn evaluate(&self, policy: &Gpt, _head: &[f32], executor: &mut dyn Executor) -> Result<Vec<(String, f64)>> {
        let compute = &self.dpo.train.compute;
        let scored = score::score_pairs_by(executor, self.held_out, compute.share_prompts)?;
        let logps = self.held_out_scores.beside_scores(scored, self.held_out)?;
        let mut metrics = Metrics::default();
        log_preferences(&mut metrics, &logps, &self.dpo.loss.losses(&logps, self.beta)?, self.beta)?;
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
        let mistaken = self.dpo.train.pitfall.is_some_and(Pitfall::breaks_the_self_test);
        if !self.dpo.self_test || !self.dpo.loss.uses_reference() || mistaken {
            return Ok(());
        }
        let first = self.pairs.head(8);
        let scored = score::score_pairs_with(policy, &first, &self.dpo.train.compute)?;
        let logps = self.scores.beside_scores(scored, &first)?;
        let moved = logps.logratios().map(|ratios| loss::plain(&ratios));
        let largest =
            moved.into_iter().flatten().map(f64::abs).fold(0.0, |a, b| if a > b || a.is_nan() { a } else { b });
        // Rounding of a sum over some hundred tokens stays far below this; a wrong reference is far above it.
        if largest > 0.02 || largest.is_nan() {
            return Err(Error::new(
                "step 0: policy and reference give different log-probabilities, so the rewards are not 0 and the loss is not ln 2",
                format!("log-ratios up to {largest:.3} nats"),
                "make the policy a fork of the reference (reference.fork()), or set self_test = false if you mean it",
            ));
        }
        Ok(())
    }
}

impl DpoObjective<'_> {
    fn loss(&self, pass: &Pass<'_>, scored: &Scored<'_>, log: Option<&mut Metrics>) -> Result<Tensor> {
        let logps = self.scores.beside_tokens(scored.logps, &self.pairs, pass.pairs)?;
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

fn log_preferences(metrics: &mut Metrics, logps: &PairLogps, losses: &Tensor, beta: f64) -> Result<()> {
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

/// Log-probabilities of all pairs under `policy`, with the reference's, without gradients.
///
/// # Errors
/// The pairs do not fit the model.
pub fn evaluate_preferences(policy: &Gpt, reference: &ReferenceLogps, pairs: &TokenizedPairs) -> Result<PairLogps> {
    evaluate_preferences_with(policy, reference, pairs, &Compute::default())
}

/// [`evaluate_preferences`] in the way that a run computes.
///
/// # Errors
/// The pairs do not fit the model, or the hardware cannot do what `compute` asks for.
pub fn evaluate_preferences_with(
    policy: &Gpt,
    reference: &ReferenceLogps,
    pairs: &TokenizedPairs,
    compute: &Compute,
) -> Result<PairLogps> {
    reference.beside_scores(score::score_pairs_with(policy, pairs, compute)?, pairs)
}
