//! The objective of a reward model: a scalar head above the model, trained on preference pairs.

use candle_core::{Device, Tensor, Var};
use rand::Rng as _;

use crate::base::error::{Error, Result};
use crate::base::rng::stream;
use crate::compute::Compute;
use crate::compute::executor::{Executor, Forward, Upstream};
use crate::data::batch::{Side, TokenizedPair, TokenizedPairs};
use crate::data::packed::Packed;
use crate::model::Gpt;
use crate::model::ops;
use crate::train::RewardConfig;
use crate::train::objective::{Metrics, Objective, Pass, PassGradient};

impl RewardConfig {
    /// Checks the first weights and the pairs.
    pub(crate) fn check_sources(
        &self,
        start: &Gpt,
        pairs: &TokenizedPairs,
        watched: &TokenizedPairs,
    ) -> Result<()> {
        self.check()?;
        if pairs.is_empty() || watched.is_empty() {
            let got = format!("{} pairs to train on, {} to watch", pairs.len(), watched.len());
            let fix = "pass both; take the second from the training side";
            return Err(Error::new("a reward model needs pairs", got, fix));
        }
        let (longest, block) = (pairs.max_length.max(watched.max_length), start.config.block_size);
        if longest > block {
            let got = format!("max_length {longest}, block_size {block}");
            return Err(Error::new(
                "the pairs are longer than the model's block",
                got,
                "tokenise with block_size",
            ));
        }
        let empty =
            |p: &TokenizedPair| p.prompt.is_empty() || p.chosen.is_empty() || p.rejected.is_empty();
        if self.limits(pairs.max_length).contains(&0)
            || pairs.pairs.iter().chain(&watched.pairs).any(empty)
        {
            let got = format!("max_length {}, or a pair with an empty part", pairs.max_length);
            let fix = "tokenise with a longer max_length, and drop pairs with an empty part; \
                       the audit of Dataset::read does";
            return Err(Error::new(
                "a reward model reads a token of every prompt and reply",
                got,
                fix,
            ));
        }
        if start.config.dropout > 0.0 {
            let fix = "set dropout to 0 in the model's config, and use token_dropout instead";
            return Err(Error::new(
                "a reward model is trained without dropout",
                start.config.dropout.to_string(),
                fix,
            ));
        }
        Ok(())
    }

    /// Returns everything that affects a training's numbers, except its [`TrainConfig`].
    pub(in crate::train) fn identity(&self, held_out_hash: &str) -> String {
        let Self { train: _, lm_weight, token_dropout, max_prompt } = self;
        format!(
            "reward, lm_weight {lm_weight}, token_dropout {token_dropout}, \
             max_prompt {max_prompt}, held-out {held_out_hash}"
        )
    }

    pub(crate) fn objective(
        &self,
        pairs: &TokenizedPairs,
        watched: &TokenizedPairs,
    ) -> RewardObjective<'_> {
        let limits = self.limits(pairs.max_length);
        let identity = self.identity(&watched.hash);
        RewardObjective {
            config: self,
            identity,
            pairs: truncate_pairs(pairs, limits),
            watched: truncate_pairs(watched, limits),
        }
    }
}

/// Returns the Bradley-Terry loss of each pair: -log σ(r(chosen) - r(rejected)).
///
/// # Shapes
/// two vectors (B) -> (B)
///
/// # Errors
/// Vectors of different lengths.
///
/// # Source
/// Bradley and Terry 1952; as a loss of reward models arXiv 2203.02155, equation 1.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let rewards = |r: [f32; 2]| Tensor::new(&r, &Device::Cpu).unwrap();
/// let (chosen, rejected) = (rewards([1.0, 0.5]), rewards([1.0, 2.5]));
/// let loss = hhalign::train::reward::bradley_terry(&chosen, &rejected)?;
/// let loss = loss.to_vec1::<f32>().unwrap();
/// assert!((loss[0] - 2f32.ln()).abs() < 1e-6 && (loss[1] - 2.126928).abs() < 1e-5);
/// # Ok::<(), hhalign::base::error::Error>(())
/// ```
pub fn bradley_terry(chosen: &Tensor, rejected: &Tensor) -> Result<Tensor> {
    Ok(ops::log_sigmoid(&(chosen - rejected)?)?.neg()?)
}

/// Both replies of a pair pass through the model.
const BOTH: &[Side] = &[Side::Chosen, Side::Rejected];

/// The objective of a reward model's training.
pub(crate) struct RewardObjective<'a> {
    config: &'a RewardConfig,
    identity: String,
    pairs: TokenizedPairs,
    watched: TokenizedPairs,
}

impl Objective for RewardObjective<'_> {
    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn data(&self) -> &TokenizedPairs {
        &self.pairs
    }

    fn held_out(&self) -> &TokenizedPairs {
        &self.watched
    }

    fn sides(&self) -> &'static [Side] {
        BOTH
    }

    fn has_head(&self) -> bool {
        true
    }

    fn wants_stats(&self) -> bool {
        false
    }

    fn pack(&self, pass: &Pass<'_>, compute: &Compute) -> Result<Packed> {
        let mut packed = Packed::default();
        let predicted = usize::from(self.config.lm_weight > 0.0);
        for &i in pass.pairs {
            let TokenizedPair { prompt, chosen, rejected } =
                self.without_dropped_tokens(i, pass.step);
            if compute.share_prompts {
                packed.push_whole(&prompt, &[&chosen, &rejected], predicted)?;
            } else {
                packed.push_whole(&prompt, &[&chosen], predicted)?;
                packed.push_whole(&prompt, &[&rejected], 0)?;
            }
        }
        Ok(packed)
    }

    /// Returns the gradient of the language-model loss: this pass's share of the mean over the
    /// step.
    fn constant_grad(&self, pass: &Pass<'_>, packed: &Packed) -> Option<Vec<f32>> {
        let gradient =
            -self.config.lm_weight / self.pairs.n_reply_tokens(pass.batch, Side::Chosen) as f64;
        Some(vec![gradient as f32; packed.n_targets()])
    }

    fn gradient(
        &self,
        pass: &Pass<'_>,
        forward: &Forward,
        head: &[f32],
        log: Option<&mut Metrics>,
    ) -> Result<PassGradient> {
        let rewards = rewards_of(&forward.ends, head);
        let leaf = Var::from_slice(&rewards, (rewards.len() / 2, 2), &Device::Cpu)?;
        let side = |i: usize| leaf.narrow(1, i, 1);
        let loss = (bradley_terry(&side(0)?, &side(1)?)?.sum_all()? / pass.batch.len() as f64)?;
        let gradients = loss.backward()?;
        let connected = "the Bradley-Terry loss depends on its rewards";
        let drewards = gradients.get(&leaf).expect(connected).flatten_all()?.to_vec1::<f32>()?;
        let (mut dhead, mut dends) = (vec![0f32; head.len()], vec![]);
        for (dreward, h) in drewards.iter().zip(forward.ends.chunks_exact(head.len())) {
            dhead.iter_mut().zip(h).for_each(|(sum, h)| *sum += dreward * h);
            dends.extend(head.iter().map(|w| dreward * w));
        }
        if let Some(metrics) = log {
            let (chosen, rejected): (Vec<f32>, Vec<f32>) =
                rewards.chunks_exact(2).map(|r| (r[0], r[1])).unzip();
            log_rewards(metrics, &chosen, &rejected);
            let tokens = forward.logps.values.len();
            if tokens > 0 {
                let sum: f64 = forward.logps.values.iter().copied().map(f64::from).sum();
                metrics.add_sum("lm_loss", -sum, tokens as f64);
            }
        }
        Ok(PassGradient { upstream: Upstream { dlogps: vec![], dends }, dhead })
    }

    fn evaluate(
        &self,
        _policy: &Gpt,
        head: &[f32],
        executor: &mut dyn Executor,
    ) -> Result<Vec<(String, f64)>> {
        let both =
            |p: &TokenizedPair| (p.prompt.clone(), vec![p.chosen.clone(), p.rejected.clone()]);
        let sequences: Vec<_> = self.watched.pairs.iter().map(both).collect();
        let scored = rewards(executor, head, &sequences)?;
        let (chosen, rejected): (Vec<f32>, Vec<f32>) =
            scored.into_iter().map(|r| (r[0], r[1])).unzip();
        let mut metrics = Metrics::default();
        log_rewards(&mut metrics, &chosen, &rejected);
        Ok(metrics.means("eval_"))
    }

    fn set_beta(&mut self, beta: f64) -> Result<()> {
        Err(Error::new("a reward model has no beta", beta.to_string(), "set it on a DPO run"))
    }
}

impl RewardObjective<'_> {
    /// Returns a pair without the tokens dropped at a step; the end of each part is kept.
    fn without_dropped_tokens(&self, index: usize, step: usize) -> TokenizedPair {
        let pair = &self.pairs.pairs[index];
        let p = self.config.token_dropout;
        let mut rng = stream(self.config.train.seed, "token dropout", &[step as u64, index as u64]);
        let [prompt, chosen, rejected] = [&pair.prompt, &pair.chosen, &pair.rejected].map(|ids| {
            let (end, rest) = ids.split_last().expect("no part of a pair is empty");
            let mut kept: Vec<u32> = if p > 0.0 {
                rest.iter().copied().filter(|_| rng.random::<f64>() >= p).collect()
            } else {
                rest.to_vec()
            };
            kept.push(*end);
            kept
        });
        TokenizedPair { prompt, chosen, rejected }
    }
}

/// Logs loss, accuracy and margin of each pair.
pub(crate) fn log_rewards(metrics: &mut Metrics, chosen: &[f32], rejected: &[f32]) {
    let margins = || chosen.iter().zip(rejected).map(|(c, r)| f64::from(c - r));
    // -log σ(m), stable on both sides.
    metrics.add_cases("loss", margins().map(|m| (-m).max(0.0) + (-m.abs()).exp().ln_1p()));
    metrics
        .add_cases("accuracy", margins().map(|m| if m == 0.0 { 0.5 } else { f64::from(m > 0.0) }));
    metrics.add_cases("margin", margins());
}

/// A prompt and the replies that share it.
pub(crate) type Sequence = (Vec<u32>, Vec<Vec<u32>>);

/// Returns the last `max_prompt` ids of a prompt and the first `max_reply` ids of each reply.
pub(crate) fn truncate(
    [max_prompt, max_reply]: [usize; 2],
    prompt: &[u32],
    replies: &[&Vec<u32>],
) -> Sequence {
    let prompt = &prompt[prompt.len().saturating_sub(max_prompt)..];
    (prompt.to_vec(), replies.iter().map(|r| r[..r.len().min(max_reply)].to_vec()).collect())
}

/// Truncates the pairs to a model's limits.
fn truncate_pairs(pairs: &TokenizedPairs, limits: [usize; 2]) -> TokenizedPairs {
    let one = |p: &TokenizedPair| {
        let (prompt, replies) = truncate(limits, &p.prompt, &[&p.chosen, &p.rejected]);
        let [chosen, rejected] = replies.try_into().expect("two replies");
        TokenizedPair { prompt, chosen, rejected }
    };
    TokenizedPairs::from_ids(
        pairs.pairs.iter().map(one).collect(),
        pairs.max_length,
        pairs.eos_id(),
    )
}

/// Prompts scored in one pass.
const SCORE_BATCH: usize = 16;

/// Returns the rewards of the replies to each prompt, prompt by prompt.
pub(crate) fn rewards(
    executor: &mut dyn Executor,
    head: &[f32],
    sequences: &[Sequence],
) -> Result<Vec<Vec<f32>>> {
    let packs = sequences.chunks(SCORE_BATCH).map(|chunk| {
        let mut packed = Packed::default();
        for (prompt, replies) in chunk {
            packed.push_whole(prompt, &replies.iter().map(Vec::as_slice).collect::<Vec<_>>(), 0)?;
        }
        Ok(packed)
    });
    let scored = executor.score(&packs.collect::<Result<Vec<_>>>()?, &|forward| {
        Ok(rewards_of(&forward.ends, head))
    })?;
    let mut all = scored.into_iter().flatten();
    Ok(sequences.iter().map(|(_, replies)| all.by_ref().take(replies.len()).collect()).collect())
}

/// Returns w · h for each row h.
///
/// # Shapes
/// ends (E, C), head (C) -> (E)
fn rewards_of(ends: &[f32], head: &[f32]) -> Vec<f32> {
    ends.chunks_exact(head.len()).map(|h| h.iter().zip(head).map(|(h, w)| h * w).sum()).collect()
}
