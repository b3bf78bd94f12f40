//! A reward model: a GPT with a scalar head that scores replies, trained on preference pairs.
//!
//! r(x, y) = w · h, where h is the last hidden state at the last token of the reply, the end of
//! text. Under the Bradley-Terry model, σ(r(chosen) - r(rejected)) is the probability that people
//! prefer the chosen reply; training maximises the likelihood of the labels. The passes are those
//! of [`crate::compute`]; both replies of a pair share the rows of their prompt.
//!
//! Read this file, then `objective.rs` (loss and evaluation), `run.rs` (training with a cache),
//! `store.rs` (files) and `mixture.rs` (one model for each kind of request).

mod mixture;
pub(crate) mod objective;
mod run;
mod store;

use serde::{Deserialize, Serialize};

pub use self::mixture::{RewardGroup, RewardMixture};
use crate::base::error::{Error, Result};
use crate::base::rng::sha256_hex;
use crate::compute::Compute;
use crate::compute::executor;
use crate::data::batch::{TokenizedPair, TokenizedPairs};
use crate::data::tokenize::Tokenizer;
use crate::model::Gpt;
pub use crate::train::RewardConfig;
pub use crate::train::reward::objective::bradley_terry;
use crate::train::reward::objective::{Sequence, rewards, truncate};
use crate::train::{Best, History};

/// Returns all texts of the pairs as language-model data: the dialogue with the chosen reply, and
/// the rejected reply after its prompt.
///
/// [`Sft`](crate::train::Sft) on this data trains on every token once, including prompts, so a
/// reward model that begins with those weights knows the language.
///
/// # Example
/// ```
/// use hhalign::data::batch::{TokenizedPair, TokenizedPairs};
/// use hhalign::train::reward::whole_dialogues;
/// let pair = TokenizedPair { prompt: vec![1, 2], chosen: vec![3, 0], rejected: vec![4, 0] };
/// let dialogues = whole_dialogues(&TokenizedPairs::from_ids(vec![pair], 8, 0));
/// let [first, second] = &dialogues.pairs[..] else { panic!("two dialogues") };
/// assert_eq!((&first.prompt[..], &first.chosen[..]), (&[0][..], &[1, 2, 3, 0][..]));
/// assert_eq!((&second.prompt[..], &second.chosen[..]), (&[1, 2][..], &[4, 0][..]));
/// ```
pub fn whole_dialogues(pairs: &TokenizedPairs) -> TokenizedPairs {
    let eos = vec![pairs.eos_id()];
    let two = |p: &TokenizedPair| {
        let mut whole = [p.prompt.as_slice(), &p.chosen].concat();
        // The end-of-text token comes first and takes a position, so the beginning may be cut, as
        // in a prompt that is too long.
        whole.drain(..(whole.len() + 1).saturating_sub(pairs.max_length));
        [
            TokenizedPair { prompt: eos.clone(), chosen: whole, rejected: eos.clone() },
            TokenizedPair {
                prompt: p.prompt.clone(),
                chosen: p.rejected.clone(),
                rejected: eos.clone(),
            },
        ]
    };
    TokenizedPairs::from_ids(
        pairs.pairs.iter().flat_map(two).collect(),
        pairs.max_length,
        pairs.eos_id(),
    )
}

/// The record of a reward model's training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RewardTraining {
    /// Loss, accuracy and margin on the training pairs, and with the prefix `eval_` on the watched
    /// pairs.
    pub history: History,
    /// The step whose weights were kept, and its loss on the watched pairs.
    pub best: Best,
    /// Steps taken.
    pub steps: usize,
    /// Whether patience ended the training.
    pub stopped_early: bool,
    /// Wall-clock seconds, over all resumed parts.
    pub seconds: f64,
    /// Tokens that passed through the model.
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
/// let config = GptConfig {
///     vocab_size: 300,
///     block_size: 128,
///     n_layer: 1,
///     n_head: 2,
///     n_embd: 16,
///     dropout: 0.0,
///     layer_norm_epsilon: 1e-5,
/// };
/// let mut settings = RewardConfig::default();
/// (settings.train.max_steps, settings.train.warmup_steps) = (2, 1);
/// settings.train.progress = false;
/// let model = RewardModel::train(&settings, &Gpt::new(config, 1)?, &pairs, &pairs, None)?;
/// let rewards = model.score(&tokenizer, &[data.pairs[0].prompt.clone()], &["Of course.".into()])?;
/// assert!(rewards[0].is_finite());
/// # Ok::<(), Error>(())
/// ```
pub struct RewardModel {
    gpt: Gpt,
    /// w, (C).
    head: Vec<f32>,
    /// The largest numbers of prompt ids and reply ids that are read.
    limits: [usize; 2],
    /// The device and precision for scoring.
    pub compute: Compute,
    /// The record of its training; `None` for a model loaded from a folder.
    pub training: Option<RewardTraining>,
    /// Whether it was read from the cache.
    pub from_cache: bool,
}

impl RewardModel {
    /// Makes a reward model of a transformer and a head w; the reward is w · h.
    ///
    /// The model reads the last `max_prompt` ids of a prompt and the first `max_reply` ids of a
    /// reply, including the end of text.
    ///
    /// # Errors
    /// A head whose width differs from the model's, or limits that are zero or together exceed the
    /// block.
    pub fn from_parts(
        gpt: &Gpt,
        head: Vec<f32>,
        [max_prompt, max_reply]: [usize; 2],
    ) -> Result<Self> {
        let (width, block) = (gpt.config.n_embd, gpt.config.block_size);
        if head.len() != width {
            let got = format!("{} numbers, n_embd {width}", head.len());
            return Err(Error::new(
                "the head has another width than the model",
                got,
                "give n_embd numbers",
            ));
        }
        if max_prompt == 0 || max_reply == 0 || max_prompt + max_reply > block {
            let got =
                format!("a prompt of {max_prompt} and a reply of {max_reply}, block_size {block}");
            return Err(Error::new(
                "prompt and reply must fit into the block",
                got,
                "give half of it to each",
            ));
        }
        let limits = [max_prompt, max_reply];
        Ok(Self {
            gpt: gpt.freeze()?,
            head,
            limits,
            compute: Compute::default(),
            training: None,
            from_cache: false,
        })
    }

    /// Returns the transformer below the head.
    pub fn gpt(&self) -> &Gpt {
        &self.gpt
    }

    /// Returns the head: w, (C).
    pub fn head(&self) -> &[f32] {
        &self.head
    }

    /// Returns the largest numbers of prompt ids and reply ids that are read.
    pub fn limits(&self) -> [usize; 2] {
        self.limits
    }

    /// Returns the reward of each reply after its prompt. The prompt ends with `"\n\nAssistant:"`,
    /// and the reply begins with the space that follows it.
    ///
    /// Prompt and reply are tokenised separately, and the end of text is added. A prompt that is
    /// too long is cut at the start, a reply at the end. A reward never depends on another reply.
    ///
    /// # Errors
    /// A tokenizer that does not fit the model, or different numbers of prompts and replies.
    pub fn score(
        &self,
        tokenizer: &Tokenizer,
        prompts: &[String],
        replies: &[String],
    ) -> Result<Vec<f32>> {
        tokenizer.check_fits(self.gpt.config.vocab_size)?;
        if prompts.len() != replies.len() {
            let got = format!("{} prompts and {} replies", prompts.len(), replies.len());
            return Err(Error::new(
                "each reply needs its prompt",
                got,
                "give one prompt for each reply",
            ));
        }
        let one = |(prompt, reply): (&String, &String)| {
            let mut reply = tokenizer.encode(reply)?;
            reply.push(tokenizer.eos_id());
            Ok(truncate(self.limits, &tokenizer.encode(prompt)?, &[&reply]))
        };
        let sequences = prompts.iter().zip(replies).map(one).collect::<Result<Vec<_>>>()?;
        Ok(self.rewards(&sequences)?.concat())
    }

    /// Returns the rewards of the chosen replies and those of the rejected replies, in the order of
    /// the pairs.
    ///
    /// # Errors
    /// The pairs do not fit the model.
    pub fn score_pairs(&self, pairs: &TokenizedPairs) -> Result<(Vec<f32>, Vec<f32>)> {
        let both = |p: &TokenizedPair| truncate(self.limits, &p.prompt, &[&p.chosen, &p.rejected]);
        let sequences: Vec<_> = pairs.pairs.iter().map(both).collect();
        Ok(self.rewards(&sequences)?.into_iter().map(|r| (r[0], r[1])).unzip())
    }

    /// Returns the share of pairs whose chosen reply has the higher reward; ties count one half.
    ///
    /// # Errors
    /// The pairs do not fit the model, or there are none.
    pub fn accuracy(&self, pairs: &TokenizedPairs) -> Result<f64> {
        if pairs.is_empty() {
            return Err(Error::new("no pair to judge", "0 pairs", "pass held-out pairs"));
        }
        let (chosen, rejected) = self.score_pairs(pairs)?;
        let right =
            chosen.iter().zip(&rejected).map(|(c, r)| if c == r { 0.5 } else { f64::from(c > r) });
        Ok(right.sum::<f64>() / chosen.len() as f64)
    }

    /// Returns the first 16 digits of a SHA-256 of everything that affects a score, except
    /// `compute`.
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
