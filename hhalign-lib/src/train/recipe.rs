//! Recipes: the settings of a run and its objective. The objectives are in `sft.rs`, `dpo.rs` and
//! `reward/objective.rs`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::config::TrainConfig;
use super::state::Change;
use crate::base::error::{Error, Result};
use crate::loss::PreferenceLoss;

/// Supervised fine-tuning on the chosen replies.
///
/// The loss is the mean over reply tokens of -log π(token | before); prompts and padding are
/// masked.
///
/// # Example
/// ```
/// use hhalign::data::batch::TokenizedPairs;
/// use hhalign::data::Dataset;
/// use hhalign::model::{Gpt, GptConfig};
/// use hhalign::data::tokenize::Tokenizer;
/// use hhalign::train::Sft;
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
/// let mut model = Gpt::new(config, 1)?;
/// let mut sft = Sft::default();
/// (sft.train.max_steps, sft.train.warmup_steps) = (2, 1);
/// (sft.train.batch_size, sft.train.progress) = (4, false);
/// let run = sft.fit(&mut model, &pairs, &pairs)?;
/// assert_eq!(run.steps, 2);
/// # Ok::<(), hhalign::base::error::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sft {
    /// The settings of the training loop.
    pub train: TrainConfig,
}

/// Preference optimisation with one of the losses of [`PreferenceLoss`].
///
/// # Source
/// arXiv 2305.18290. The reference is frozen, so it is scored once, before training, which changes
/// no number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dpo {
    /// The settings of the training loop.
    pub train: TrainConfig,
    /// The loss; [`PreferenceLoss::Sigmoid`] is standard DPO.
    pub loss: PreferenceLoss,
    /// The strength of the constraint to the reference: β of the paper.
    pub beta: f64,
    /// Weight of RPO's likelihood term on the chosen reply, per token; 0 leaves it out. arXiv
    /// 2404.19733.
    pub rpo_alpha: f64,
    /// Folder in which to cache the reference's log-probabilities; `None` computes them each time.
    #[serde(skip)]
    pub cache: Option<PathBuf>,
    /// Number of held-out prompts to sample at each evaluation for the metric `eval_kl`, the KL
    /// divergence of the policy from the reference in nats per reply; 0 leaves it out.
    pub kl_prompts: usize,
    /// Whether to stop before the first step if policy and reference differ: all rewards must be 0
    /// there.
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

/// The settings of a reward model's training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RewardConfig {
    /// The settings of the training loop. Checkpoints go to the cache given to
    /// `RewardModel::train`, or to a run's folder.
    pub train: TrainConfig,
    /// Weight of the language-model loss on the chosen replies, in nats per token, added to the
    /// preference loss.
    pub lm_weight: f64,
    /// Share of tokens dropped at random in training, which prevents memorising single words of few
    /// pairs.
    pub token_dropout: f64,
    /// Largest number of prompt tokens that are read, from its end; at most half of the pairs'
    /// `max_length`.
    pub max_prompt: usize,
}

impl Default for RewardConfig {
    fn default() -> Self {
        let train = TrainConfig { learning_rate: 1e-4, warmup_steps: 10, ..TrainConfig::default() };
        Self { train, lm_weight: 0.0, token_dropout: 0.0, max_prompt: 256 }
    }
}

impl RewardConfig {
    /// Returns the largest numbers of prompt and reply tokens that are read, for pairs cut to
    /// `max_length`; replies take at most half of it.
    pub(crate) fn limits(&self, max_length: usize) -> [usize; 2] {
        [self.max_prompt.min(max_length - max_length / 2), max_length / 2]
    }

    /// Checks the settings; `RewardModel::train` and [`RewardConfig::start`] call it.
    ///
    /// # Errors
    /// A setting out of range: the message names it, its value and a valid one.
    pub fn check(&self) -> Result<()> {
        self.train.check()?;
        if self.max_prompt == 0 {
            return Err(Error::new(
                "max_prompt must be at least 1",
                "0",
                "256 reads the last turns of a dialogue",
            ));
        }
        if !(self.lm_weight >= 0.0 && self.lm_weight.is_finite()) {
            let got = self.lm_weight.to_string();
            return Err(Error::new(
                "lm_weight must not be negative",
                got,
                "0 leaves the language-model loss out",
            ));
        }
        if !(0.0..1.0).contains(&self.token_dropout) {
            let got = self.token_dropout.to_string();
            return Err(Error::new(
                "token_dropout must lie in [0, 1)",
                got,
                "0 reads every token, 0.1 is a strong setting",
            ));
        }
        let refused = [
            (
                self.train.compute.composed,
                "compute.composed = true",
                "a reward model is trained on the fast path",
            ),
            (
                self.train.pitfall.is_some(),
                "a pitfall",
                "pitfalls are for SFT and DPO: set pitfall to None",
            ),
            (
                self.train.checkpoint.is_some(),
                "train.checkpoint",
                "give RewardModel::train a cache folder instead",
            ),
        ];
        match refused.iter().find(|r| r.0) {
            Some((_, got, fix)) => {
                Err(Error::new("a setting that a reward model does not have", *got, *fix))
            }
            None => Ok(()),
        }
    }
}

/// An objective with all its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Recipe {
    /// Supervised fine-tuning.
    Sft(Sft),
    /// Preference optimisation.
    Dpo(Dpo),
    /// A reward model.
    Reward(RewardConfig),
}

impl Recipe {
    /// Returns whether another recipe gives the same numbers; housekeeping may differ.
    pub(crate) fn has_identity_of(&self, other: &Self) -> bool {
        let identity = |recipe: &Self| {
            let mut recipe = recipe.clone();
            let TrainConfig { log_every, progress, .. } = TrainConfig::default();
            let train = recipe.train_mut();
            (train.log_every, train.progress) = (log_every, progress);
            serde_json::to_value(recipe).ok()
        };
        identity(self) == identity(other)
    }

    /// Applies the changes made during the run.
    pub(crate) fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match (change, &mut *self) {
                (Change::Beta(beta), Self::Dpo(dpo)) => dpo.beta = *beta,
                (Change::LearningRate(rate), recipe) => recipe.train_mut().learning_rate = *rate,
                (Change::Beta(_), Self::Sft(_) | Self::Reward(_)) => {}
            }
        }
    }

    /// Returns `sft`, `dpo` or `reward`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sft(_) => "sft",
            Self::Dpo(_) => "dpo",
            Self::Reward(_) => "reward",
        }
    }

    /// Returns β; `None` for supervised fine-tuning and for reward models.
    pub fn beta(&self) -> Option<f64> {
        match self {
            Self::Dpo(dpo) => Some(dpo.beta),
            Self::Sft(_) | Self::Reward(_) => None,
        }
    }

    /// Returns the settings of the training loop.
    pub fn train(&self) -> &TrainConfig {
        match self {
            Self::Sft(sft) => &sft.train,
            Self::Dpo(dpo) => &dpo.train,
            Self::Reward(reward) => &reward.train,
        }
    }

    pub(crate) fn train_mut(&mut self) -> &mut TrainConfig {
        match self {
            Self::Sft(sft) => &mut sft.train,
            Self::Dpo(dpo) => &mut dpo.train,
            Self::Reward(reward) => &mut reward.train,
        }
    }

    /// Returns the metrics of a progress line.
    pub(crate) fn headline(&self) -> &'static [&'static str] {
        match self {
            Self::Sft(_) => &["loss", "eval_loss"],
            Self::Dpo(_) => &["loss", "eval_rewards/accuracies"],
            Self::Reward(_) => &["loss", "accuracy", "eval_loss", "eval_accuracy"],
        }
    }

    /// Checks the settings before a thread is started for them.
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Self::Sft(_) => {}
            Self::Dpo(dpo) => dpo.loss.check(dpo.beta)?,
            Self::Reward(reward) => reward.check()?,
        }
        self.train().check()
    }
}
