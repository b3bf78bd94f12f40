//! A reward model: a GPT with a scalar head that says how good a reply is, learnt from preference pairs.
//!
//! r(x, y) = w · h, with h the last hidden state at the last token of the reply, the end of text. Under the model of
//! Bradley and Terry, σ(r(chosen) - r(rejected)) is the probability that people prefer the first; training makes the
//! labels likely. The passes are those of [`crate::fused`]; both replies of a pair share the rows of their prompt.

mod mixture;
mod run;
mod step;
mod store;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

pub use self::mixture::{RewardGroup, RewardMixture};
use crate::batch::{Side, TokenizedPair, TokenizedPairs};
use crate::error::{Error, Result};
use crate::fused::{Compute, Keep, Packed, Purpose, Workspace, with_weights};
use crate::gpu::GpuPass;
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
    /// Tokens of the prompt that are read, from its end; half of the pairs' `max_length` at most.
    pub max_prompt: usize,
}

impl Default for RewardConfig {
    fn default() -> Self {
        let train = TrainConfig { learning_rate: 1e-4, warmup_steps: 10, ..TrainConfig::default() };
        Self { train, lm_weight: 0.0, token_dropout: 0.0, max_prompt: 256 }
    }
}

impl RewardConfig {
    /// Ids of prompt and reply that are read where pairs were cut to `max_length`; replies have half of it at most.
    fn limits(&self, max_length: usize) -> [usize; 2] {
        [self.max_prompt.min(max_length - max_length / 2), max_length / 2]
    }

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

/// All texts of the pairs as language-model data: the dialogue with the chosen reply, and the rejected reply behind its
/// prompt. [`Sft`](crate::train::Sft) on it reads every token once, prompts too; a reward model that begins with those
/// weights knows the language.
///
/// # Example
/// ```
/// use hhalign::{batch::{TokenizedPair, TokenizedPairs}, reward::whole_dialogues};
/// let pair = TokenizedPair { prompt: vec![1, 2], chosen: vec![3, 0], rejected: vec![4, 0] };
/// let dialogues = whole_dialogues(&TokenizedPairs::from_ids(vec![pair], 8, 0));
/// assert_eq!((dialogues.pairs[0].prompt.as_slice(), dialogues.pairs[0].chosen.as_slice()), (&[0][..], &[1, 2, 3, 0][..]));
/// assert_eq!((dialogues.pairs[1].prompt.as_slice(), dialogues.pairs[1].chosen.as_slice()), (&[1, 2][..], &[4, 0][..]));
/// ```
pub fn whole_dialogues(pairs: &TokenizedPairs) -> TokenizedPairs {
    let eos = vec![pairs.eos_id()];
    let two = |p: &TokenizedPair| {
        let mut whole = [p.prompt.as_slice(), &p.chosen].concat();
        // The end of text stands in front and takes a place; the beginning gives way, as in a prompt that is too long.
        whole.drain(..(whole.len() + 1).saturating_sub(pairs.max_length));
        [
            TokenizedPair { prompt: eos.clone(), chosen: whole, rejected: eos.clone() },
            TokenizedPair { prompt: p.prompt.clone(), chosen: p.rejected.clone(), rejected: eos.clone() },
        ]
    };
    TokenizedPairs::from_ids(pairs.pairs.iter().flat_map(two).collect(), pairs.max_length, pairs.eos_id())
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
    /// Ids of the prompt and of the reply that are read at most.
    limits: [usize; 2],
    /// On what, and in what numbers, replies are scored.
    pub compute: Compute,
    /// How it was trained; `None` for one that was loaded from a folder.
    pub training: Option<RewardTraining>,
    /// Whether it was found in the cache.
    pub from_cache: bool,
}

impl RewardModel {
    /// A reward model of given parts; the scores are w · h with w the `head`. Of a prompt the last `max_prompt` ids are
    /// read, of a reply the first `max_reply`, the end of text among them.
    ///
    /// # Errors
    /// A head of another width than the model, or limits that are zero or together longer than the block.
    pub fn from_parts(gpt: &Gpt, head: Vec<f32>, [max_prompt, max_reply]: [usize; 2]) -> Result<Self> {
        let (width, block) = (gpt.config.n_embd, gpt.config.block_size);
        if head.len() != width {
            let got = format!("{} numbers, n_embd {width}", head.len());
            return Err(Error::new("the head has another width than the model", got, "give n_embd numbers"));
        }
        if max_prompt == 0 || max_reply == 0 || max_prompt + max_reply > block {
            let got = format!("a prompt of {max_prompt} and a reply of {max_reply}, block_size {block}");
            return Err(Error::new("prompt and reply must fit into the block", got, "give half of it to each"));
        }
        let limits = [max_prompt, max_reply];
        Ok(Self { gpt: gpt.freeze()?, head, limits, compute: Compute::default(), training: None, from_cache: false })
    }

    /// The transformer below the head.
    pub fn gpt(&self) -> &Gpt {
        &self.gpt
    }

    /// The head: w, (C).
    pub fn head(&self) -> &[f32] {
        &self.head
    }

    /// Ids of the prompt and of the reply that are read at most.
    pub fn limits(&self) -> [usize; 2] {
        self.limits
    }

    /// The reward of each reply behind its prompt; the prompt ends with `"\n\nAssistant:"`, the reply begins with the space
    /// behind it.
    ///
    /// Prompt and reply are tokenised apart and the end of text is added. A prompt that is too long loses its beginning, a
    /// reply its end; a reward never depends on another reply.
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
            Ok(within(self.limits, &tokenizer.encode(prompt)?, &[&reply]))
        };
        let sequences = prompts.iter().zip(replies).map(one).collect::<Result<Vec<_>>>()?;
        Ok(self.rewards(&sequences)?.concat())
    }

    /// The rewards of the chosen replies and those of the rejected ones, in the order of the pairs.
    ///
    /// # Errors
    /// The pairs do not fit the model.
    pub fn score_pairs(&self, pairs: &TokenizedPairs) -> Result<(Vec<f32>, Vec<f32>)> {
        let both = |p: &TokenizedPair| within(self.limits, &p.prompt, &[&p.chosen, &p.rejected]);
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

    /// The first 16 digits of a SHA-256 over everything that decides a score but the way of computing.
    ///
    /// # Errors
    /// A failure of the tensor library.
    pub fn hash(&self) -> Result<String> {
        let head: Vec<u8> = self.head.iter().flat_map(|w| w.to_le_bytes()).collect();
        let (gpt, limits) = (self.gpt.hash()?, format!("{:?}", self.limits));
        Ok(sha256_hex([gpt.as_bytes(), &head, limits.as_bytes()], 16))
    }

    fn rewards(&self, sequences: &[Sequence]) -> Result<Vec<Vec<f32>>> {
        rewards(&self.gpt, &self.head, &self.compute, sequences)
    }
}

/// A prompt and the replies that share it.
type Sequence = (Vec<u32>, Vec<Vec<u32>>);

/// The end of a prompt and the beginnings of its replies.
fn within([max_prompt, max_reply]: [usize; 2], prompt: &[u32], replies: &[&Vec<u32>]) -> Sequence {
    let prompt = &prompt[prompt.len().saturating_sub(max_prompt)..];
    (prompt.to_vec(), replies.iter().map(|r| r[..r.len().min(max_reply)].to_vec()).collect())
}

/// Prompts scored in one pass.
const SCORE_BATCH: usize = 16;

/// The rewards of some replies to each prompt, prompt by prompt.
fn rewards(gpt: &Gpt, head: &[f32], compute: &Compute, sequences: &[Sequence]) -> Result<Vec<Vec<f32>>> {
    static WORKSPACES: Pool<Workspace> = Pool::new();
    if let Some(gpu) = compute.gpu()? {
        let mut pass = GpuPass::new(&gpu, gpt, compute)?;
        return rewards_on(sequences, head, |packed| {
            pass.forward(packed, Keep::Nothing, None)?;
            pass.ends()
        });
    }
    let chunks: Vec<_> = sequences.chunks(SCORE_BATCH).collect();
    let scored = with_weights(gpt, compute.precision, Purpose::Score, |weights| {
        parallel::map(&chunks, |chunk| {
            let packed = packed(chunk)?;
            WORKSPACES.with(|workspace| {
                workspace.forward(weights, &packed, Keep::Nothing, None)?;
                Ok(of_ends(workspace.ends(weights, &packed), head))
            })
        })
    })?;
    Ok(by_prompt(sequences, scored.concat()))
}

/// The same one pass after the other: `ends` gives the last hidden states (E, C) of a pack.
fn rewards_on(
    sequences: &[Sequence],
    head: &[f32],
    mut ends: impl FnMut(&Packed) -> Result<Vec<f32>>,
) -> Result<Vec<Vec<f32>>> {
    let one = |chunk| Ok(of_ends(&ends(&packed(chunk)?)?, head));
    let scored = sequences.chunks(SCORE_BATCH).map(one).collect::<Result<Vec<_>>>()?;
    Ok(by_prompt(sequences, scored.concat()))
}

fn packed(sequences: &[Sequence]) -> Result<Packed> {
    let mut packed = Packed::default();
    for (prompt, replies) in sequences {
        packed.push_whole(prompt, &replies.iter().map(Vec::as_slice).collect::<Vec<_>>(), 0)?;
    }
    Ok(packed)
}

fn by_prompt(sequences: &[Sequence], rewards: Vec<f32>) -> Vec<Vec<f32>> {
    let mut all = rewards.into_iter();
    sequences.iter().map(|(_, replies)| all.by_ref().take(replies.len()).collect()).collect()
}

/// w · h for each row h.
///
/// # Shapes
/// ends (E, C), head (C) -> (E)
fn of_ends(ends: &[f32], head: &[f32]) -> Vec<f32> {
    ends.chunks_exact(head.len()).map(|h| h.iter().zip(head).map(|(h, w)| h * w).sum()).collect()
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

/// The pairs as a model with these limits reads them.
fn cut(pairs: &TokenizedPairs, limits: [usize; 2]) -> TokenizedPairs {
    let cut = |p: &TokenizedPair| {
        let (prompt, replies) = within(limits, &p.prompt, &[&p.chosen, &p.rejected]);
        let [chosen, rejected] = replies.try_into().expect("two replies");
        TokenizedPair { prompt, chosen, rejected }
    };
    TokenizedPairs::from_ids(pairs.pairs.iter().map(cut).collect(), pairs.max_length, pairs.eos_id())
}

const BOTH: &[Side] = &[Side::Chosen, Side::Rejected];
