//! A reward model: a GPT with a scalar head that says how good a reply is, learnt from preference pairs.
//!
//! r(x, y) = w · h, with h the last hidden state at the last token of the reply, the end of text. Under the model of
//! Bradley and Terry, σ(r(chosen) - r(rejected)) is the probability that people prefer the first; training makes the
//! labels likely. The passes are those of [`crate::fused`]; both replies of a pair share the rows of their prompt.

mod mixture;
mod run;
mod store;

use serde::{Deserialize, Serialize};

pub use self::mixture::{RewardGroup, RewardMixture};
use crate::batch::{TokenizedPair, TokenizedPairs};
use crate::error::{Error, Result};
use crate::executor;
use crate::fused::Compute;
use crate::model::Gpt;
use crate::rng::sha256_hex;
use crate::tokenize::Tokenizer;
pub use crate::train::RewardConfig;
pub use crate::train::reward::bradley_terry;
use crate::train::reward::{Sequence, rewards, within};
use crate::train::{Best, History};

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
    pub best: Best,
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
        let right = chosen.iter().zip(&rejected).map(|(c, r)| if c == r { 0.5 } else { f64::from(c > r) });
        Ok(right.sum::<f64>() / chosen.len() as f64)
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
        rewards(&mut *executor::for_model(&self.compute, &self.gpt)?, &self.head, sequences)
    }
}
