//! A reward model: a GPT with a scalar head that says how good a reply is, learnt from preference pairs.
//!
//! r(x, y) = w · h, with h the last hidden state at the last token of the reply, the end of text. Under the model of
//! Bradley and Terry, σ(r(chosen) - r(rejected)) is the probability that people prefer the first; training makes the
//! labels likely. The passes are those of [`crate::fused`]; both replies of a pair share the rows of their prompt.

mod run;
mod step;
mod store;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::batch::{Side, TokenizedPair, TokenizedPairs};
use crate::error::{Error, Result};
use crate::fused::{Keep, Packed, Precision, Purpose, Workspace, with_weights};
use crate::model::Gpt;
use crate::nn;
use crate::parallel::{self, Pool};
use crate::rng::sha256_hex;
use crate::tokenize::Tokenizer;
use crate::train::{History, TrainConfig};

/// How a reward model is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RewardConfig {
    /// How to go through the pairs. Checkpoints go to the cache that [`RewardModel::train`] is given.
    pub train: TrainConfig,
    /// Weight of the language-model loss on the chosen replies, in nats per token, beside the preference loss.
    pub lm_weight: f64,
    /// Share of tokens that are left out at random in training: of few pairs a model learns single words by heart.
    pub token_dropout: f64,
    /// Tokens of the prompt that are read, from its end; half of the model's block at most.
    pub max_prompt: usize,
}

impl Default for RewardConfig {
    fn default() -> Self {
        let train = TrainConfig { learning_rate: 1e-4, warmup_steps: 10, ..TrainConfig::default() };
        Self { train, lm_weight: 0.0, token_dropout: 0.0, max_prompt: 256 }
    }
}

impl RewardConfig {
    /// Says what is wrong with the settings, if anything; [`RewardModel::train`] calls it.
    ///
    /// # Errors
    /// The setting, its value, and a value that would do.
    pub fn check(&self) -> Result<()> {
        self.train.check()?;
        if self.max_prompt == 0 {
            return Err(Error::new("max_prompt must be at least 1", "0", "256 reads the last turns of a dialogue"));
        }
        if !(self.lm_weight >= 0.0 && self.lm_weight.is_finite()) {
            let got = self.lm_weight.to_string();
            return Err(Error::new("lm_weight must not be negative", got, "0 leaves the language-model loss out"));
        }
        if !(0.0..1.0).contains(&self.token_dropout) {
            let got = self.token_dropout.to_string();
            return Err(Error::new("token_dropout must lie in [0, 1)", got, "0 reads every token, 0.1 is much"));
        }
        let refused = [
            (self.train.compute.composed, "compute.composed = true", "a reward model is trained on the fast path"),
            (self.train.pitfall.is_some(), "a pitfall", "pitfalls are for SFT and DPO: set pitfall to None"),
            (self.train.checkpoint.is_some(), "train.checkpoint", "give RewardModel::train a cache folder instead"),
        ];
        match refused.iter().find(|r| r.0) {
            Some((_, got, fix)) => Err(Error::new("a setting that a reward model does not have", *got, *fix)),
            None => Ok(()),
        }
    }
}

/// The loss of Bradley and Terry for each pair: -log σ(r(chosen) - r(rejected)).
///
/// # Shapes
/// two vectors (B) -> (B)
///
/// # Errors
/// Vectors of two lengths.
///
/// # Source
/// Bradley and Terry 1952; as a loss of reward models arXiv 2203.02155, equation 1.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let rewards = |r: [f32; 2]| Tensor::new(&r, &Device::Cpu).unwrap();
/// let loss = hhalign::reward::bradley_terry(&rewards([1.0, 0.5]), &rewards([1.0, 2.5]))?.to_vec1::<f32>().unwrap();
/// assert!((loss[0] - 2f32.ln()).abs() < 1e-6 && (loss[1] - 2.126928).abs() < 1e-5);
/// # Ok::<(), hhalign::error::Error>(())
/// ```
pub fn bradley_terry(chosen: &Tensor, rejected: &Tensor) -> Result<Tensor> {
    Ok(nn::log_sigmoid(&(chosen - rejected)?)?.neg()?)
}

/// What was written down while a reward model was trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RewardTraining {
    /// Loss, accuracy and margin on the training pairs, and with `eval_` on the pairs it was watched on.
    pub history: History,
    /// The step whose weights were kept, and the watched loss there.
    pub best: (usize, f64),
    /// Steps taken.
    pub steps: usize,
    /// Whether patience ended it.
    pub stopped_early: bool,
    /// Wall-clock seconds of all its parts.
    pub seconds: f64,
    /// Tokens that went through the model.
    pub tokens: f64,
}

/// A trained reward model.
///
/// # Example
/// ```
/// use hhalign::prelude::*;
/// let data = Dataset::embedded(1, 40)?;
/// let tokenizer = Tokenizer::train(&data.pairs, 300)?;
/// let pairs = TokenizedPairs::new(&data.pairs, &tokenizer, 128)?;
/// let config = GptConfig { vocab_size: 300, block_size: 128, n_layer: 1, n_head: 2, n_embd: 16, dropout: 0.0, layer_norm_epsilon: 1e-5 };
/// let mut settings = RewardConfig::default();
/// (settings.train.max_steps, settings.train.warmup_steps, settings.train.progress) = (2, 1, false);
/// let model = RewardModel::train(&settings, &Gpt::new(config, 1)?, &pairs, &pairs, None)?;
/// let rewards = model.score(&tokenizer, &[data.pairs[0].prompt.clone()], &["Of course.".into()])?;
/// assert!(rewards[0].is_finite());
/// # Ok::<(), Error>(())
/// ```
pub struct RewardModel {
    gpt: Gpt,
    /// w, (C).
    head: Vec<f32>,
    max_prompt: usize,
    /// In what numbers replies are scored.
    pub precision: Precision,
    /// How it was trained; `None` for one that was loaded from a folder.
    pub training: Option<RewardTraining>,
    /// Whether it was found in the cache.
    pub from_cache: bool,
}

impl RewardModel {
    /// A reward model of given parts; the scores are w · h with w the `head`.
    ///
    /// # Errors
    /// A head of another width than the model, or a `max_prompt` of zero.
    pub fn from_parts(gpt: &Gpt, head: Vec<f32>, max_prompt: usize) -> Result<Self> {
        if head.len() != gpt.config.n_embd || max_prompt == 0 {
            let got = format!("a head of {} numbers, n_embd {}, max_prompt {max_prompt}", head.len(), gpt.config.n_embd);
            return Err(Error::new("these parts make no reward model", got, "give n_embd numbers and a max_prompt"));
        }
        let gpt = gpt.freeze()?;
        let max_prompt = max_prompt.min(gpt.config.block_size.div_ceil(2));
        Ok(Self { gpt, head, max_prompt, precision: Precision::F32, training: None, from_cache: false })
    }

    /// The transformer below the head.
    pub fn gpt(&self) -> &Gpt {
        &self.gpt
    }

    /// The head: w, (C).
    pub fn head(&self) -> &[f32] {
        &self.head
    }

    /// Tokens of a prompt that are read, from its end.
    pub fn max_prompt(&self) -> usize {
        self.max_prompt
    }

    /// The reward of each reply behind its prompt; the prompt ends with `"\n\nAssistant:"`, the reply begins with the space
    /// behind it.
    ///
    /// Prompt and reply are tokenised apart and the end of text is added. A prompt that is too long loses its beginning, a
    /// reply over half of the block its end; a reward never depends on another reply.
    ///
    /// # Errors
    /// Another tokenizer than the model's, or prompts and replies of two lengths.
    pub fn score(&self, tokenizer: &Tokenizer, prompts: &[String], replies: &[String]) -> Result<Vec<f32>> {
        tokenizer.check_fits(self.gpt.config.vocab_size)?;
        if prompts.len() != replies.len() {
            let got = format!("{} prompts and {} replies", prompts.len(), replies.len());
            return Err(Error::new("each reply needs its prompt", got, "give one prompt for each reply"));
        }
        let one = |(prompt, reply): (&String, &String)| {
            let mut reply = tokenizer.encode(reply)?;
            reply.push(tokenizer.eos_id());
            // The pairs of a data set are cut at the same place.
            reply.truncate(self.gpt.config.block_size / 2);
            Ok((last(&tokenizer.encode(prompt)?, self.max_prompt).to_vec(), vec![reply]))
        };
        let sequences = prompts.iter().zip(replies).map(one).collect::<Result<Vec<_>>>()?;
        Ok(self.rewards(&sequences)?.concat())
    }

    /// The rewards of the chosen replies and those of the rejected ones, in the order of the pairs.
    ///
    /// # Errors
    /// The pairs do not fit the model.
    pub fn score_pairs(&self, pairs: &TokenizedPairs) -> Result<(Vec<f32>, Vec<f32>)> {
        let both = |p: &TokenizedPair| {
            (last(&p.prompt, self.max_prompt).to_vec(), vec![p.chosen.clone(), p.rejected.clone()])
        };
        let sequences: Vec<_> = pairs.pairs.iter().map(both).collect();
        Ok(self.rewards(&sequences)?.into_iter().map(|r| (r[0], r[1])).unzip())
    }

    /// The share of pairs whose chosen reply has the higher reward; ties count one half.
    ///
    /// # Errors
    /// The pairs do not fit the model, or there is none.
    pub fn accuracy(&self, pairs: &TokenizedPairs) -> Result<f64> {
        if pairs.is_empty() {
            return Err(Error::new("no pair to judge", "0 pairs", "pass held-out pairs"));
        }
        let (chosen, rejected) = self.score_pairs(pairs)?;
        Ok(Judged::of(&chosen, &rejected).accuracy)
    }

    /// The first 16 digits of a SHA-256 over everything that decides a score but the precision.
    ///
    /// # Errors
    /// A failure of the tensor library.
    pub fn hash(&self) -> Result<String> {
        let head: Vec<u8> = self.head.iter().flat_map(|w| w.to_le_bytes()).collect();
        let (gpt, max_prompt) = (self.gpt.hash()?, self.max_prompt.to_le_bytes());
        Ok(sha256_hex([gpt.as_bytes(), &head, &max_prompt], 16))
    }

    fn rewards(&self, sequences: &[(Vec<u32>, Vec<Vec<u32>>)]) -> Result<Vec<Vec<f32>>> {
        rewards(&self.gpt, &self.head, self.precision, sequences)
    }
}

/// Prompts scored in one pass.
const SCORE_BATCH: usize = 16;

/// The rewards of some replies to each prompt, prompt by prompt; passes run side by side.
fn rewards(
    gpt: &Gpt,
    head: &[f32],
    precision: Precision,
    sequences: &[(Vec<u32>, Vec<Vec<u32>>)],
) -> Result<Vec<Vec<f32>>> {
    static WORKSPACES: Pool<Workspace> = Pool::new();
    let chunks: Vec<_> = sequences.chunks(SCORE_BATCH).collect();
    let scored = with_weights(gpt, precision, Purpose::Score, |weights| {
        parallel::map(&chunks, |chunk| {
            let mut packed = Packed::default();
            for (prompt, replies) in *chunk {
                packed.push_whole(prompt, &replies.iter().map(Vec::as_slice).collect::<Vec<_>>(), 0)?;
            }
            WORKSPACES.with(|workspace| {
                workspace.forward(weights, &packed, Keep::Nothing, None)?;
                Ok(of_ends(workspace.ends(weights, &packed), head))
            })
        })
    })?;
    let mut all = scored.into_iter().flatten();
    Ok(sequences.iter().map(|(_, replies)| all.by_ref().take(replies.len()).collect()).collect())
}

/// w · h for each row h.
///
/// # Shapes
/// ends (E, C), head (C) -> (E)
fn of_ends(ends: &[f32], head: &[f32]) -> Vec<f32> {
    ends.chunks_exact(head.len()).map(|h| h.iter().zip(head).map(|(h, w)| h * w).sum()).collect()
}

/// The last `n` ids, or all where there are fewer.
fn last(ids: &[u32], n: usize) -> &[u32] {
    &ids[ids.len().saturating_sub(n)..]
}

/// What rewards say of pairs, on average.
struct Judged {
    loss: f64,
    accuracy: f64,
    margin: f64,
}

impl Judged {
    fn of(chosen: &[f32], rejected: &[f32]) -> Self {
        let margins = || chosen.iter().zip(rejected).map(|(c, r)| f64::from(c - r));
        let mean = |of: fn(f64) -> f64| margins().map(of).sum::<f64>() / chosen.len() as f64;
        Self {
            // -log σ(m), stable on both sides.
            loss: mean(|m| (-m).max(0.0) + (-m.abs()).exp().ln_1p()),
            accuracy: mean(|m| if m == 0.0 { 0.5 } else { f64::from(m > 0.0) }),
            margin: mean(|m| m),
        }
    }
}

/// The pairs with their prompts cut to what a model reads.
fn cut(pairs: &TokenizedPairs, max_prompt: usize) -> TokenizedPairs {
    let cut = |p: &TokenizedPair| TokenizedPair { prompt: last(&p.prompt, max_prompt).to_vec(), ..p.clone() };
    TokenizedPairs::from_ids(pairs.pairs.iter().map(cut).collect(), pairs.max_length, pairs.eos_id())
}

const BOTH: &[Side] = &[Side::Chosen, Side::Rejected];
