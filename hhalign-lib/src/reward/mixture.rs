//! Reward models that share out the prompts: one for each kind of request.
//!
//! What makes a reply good depends on what was asked: to a harmful request the short refusal, to a question the fuller
//! answer. One model has to find that out from the labels of few pairs; a model for each kind is told.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{RewardConfig, RewardModel};
use crate::batch::TokenizedPairs;
use crate::data::Pair;
use crate::error::{Error, Result};
use crate::files;
use crate::model::Gpt;
use crate::rng::sha256_hex;
use crate::tokenize::Tokenizer;

/// Pairs of one kind of request.
#[derive(Debug, Clone)]
pub struct RewardGroup {
    /// Its name, such as `harmless`.
    pub name: String,
    /// Pairs to learn from.
    pub pairs: TokenizedPairs,
    /// Pairs on which the best moment is chosen.
    pub watched: TokenizedPairs,
}

impl RewardGroup {
    /// The kind of request that a pair's subset is named after: `harmless` of `harmless-base`, the whole name of others.
    pub fn kind_of(pair: &Pair) -> &str {
        pair.origin.subset.split('-').next().unwrap_or_default()
    }

    /// Pairs by [`RewardGroup::kind_of`], in the order of the names.
    ///
    /// # Errors
    /// A text that the tokenizer cannot read, or a `max_length` that is too short.
    ///
    /// # Example
    /// ```
    /// use hhalign::prelude::*;
    /// let data = Dataset::embedded(1, 40)?;
    /// let tokenizer = Tokenizer::train(&data.pairs, 300)?;
    /// let (train, watched) = data.pairs.split_at(36);
    /// let groups = RewardGroup::by_kind(train, watched, &tokenizer, 128)?;
    /// assert_eq!((groups.len(), groups[0].pairs.len(), groups[0].watched.len()), (1, 36, 4));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn by_kind(train: &[Pair], watched: &[Pair], tokenizer: &Tokenizer, max_length: usize) -> Result<Vec<Self>> {
        let of = |pairs: &[Pair], kind: &str| {
            let own: Vec<Pair> = pairs.iter().filter(|p| Self::kind_of(p) == kind).cloned().collect();
            TokenizedPairs::new(&own, tokenizer, max_length)
        };
        let kinds: BTreeSet<&str> = train.iter().map(Self::kind_of).collect();
        let group = |kind: &str| Ok(Self { name: kind.into(), pairs: of(train, kind)?, watched: of(watched, kind)? });
        kinds.into_iter().map(group).collect()
    }
}

/// One reward model for each kind of request, and a classifier that reads the kind off the prompt.
///
/// # Example
/// ```
/// use hhalign::prelude::*;
/// let data = Dataset::embedded(1, 60)?;
/// let tokenizer = Tokenizer::train(&data.pairs, 300)?;
/// let group = |name: &str, kinds: &[PromptKind]| {
///     let of_kind: Vec<Pair> = data.pairs.iter().filter(|p| p.kind.is_some_and(|k| kinds.contains(&k))).cloned().collect();
///     let pairs = TokenizedPairs::new(&of_kind, &tokenizer, 128)?;
///     Ok::<_, Error>(RewardGroup { name: name.into(), watched: pairs.clone(), pairs })
/// };
/// let groups = [group("harmful", &[PromptKind::Harmful])?, group("other", &[PromptKind::Helpful, PromptKind::LookAlike])?];
/// let config = GptConfig { vocab_size: 300, block_size: 128, n_layer: 1, n_head: 2, n_embd: 16, dropout: 0.0, layer_norm_epsilon: 1e-5 };
/// let mut settings = RewardConfig::default();
/// (settings.train.max_steps, settings.train.warmup_steps, settings.train.progress) = (4, 1, false);
/// let mixture = RewardMixture::train(&settings, &Gpt::new(config, 1)?, &groups, None)?;
/// let rewards = mixture.score(&tokenizer, &[data.pairs[0].prompt.clone()], &["Of course.".into()])?;
/// assert!(rewards[0].is_finite());
/// # Ok::<(), Error>(())
/// ```
pub struct RewardMixture {
    models: Vec<RewardModel>,
    router: Router,
}

impl RewardMixture {
    /// Trains a model on each group, all from the same first weights; the steps of `config` are shared out by the number of
    /// pairs. The cache serves as in [`RewardModel::train`].
    ///
    /// # Errors
    /// No group, or as [`RewardModel::train`].
    pub fn train(config: &RewardConfig, start: &Gpt, groups: &[RewardGroup], cache: Option<&Path>) -> Result<Self> {
        let total: usize = groups.iter().map(|g| g.pairs.len()).sum();
        let router = Router::learn(groups, start.config.vocab_size)?;
        let models = groups.iter().map(|group| {
            let mut config = config.clone();
            let share = |steps: usize| (steps * group.pairs.len()).div_ceil(total.max(1)).max(1);
            (config.train.max_steps, config.train.warmup_steps) =
                (share(config.train.max_steps), config.train.warmup_steps.min(share(config.train.max_steps)));
            if config.train.progress {
                println!("{}: {} pairs", group.name, group.pairs.len());
            }
            RewardModel::train(&config, start, &group.pairs, &group.watched, cache).map_err(|e| e.at(&group.name))
        });
        Ok(Self { models: models.collect::<Result<_>>()?, router })
    }

    /// The models with the names of their groups.
    pub fn models(&self) -> impl Iterator<Item = (&str, &RewardModel)> {
        self.router.names.iter().map(String::as_str).zip(&self.models)
    }

    /// The group that each prompt is taken to belong to, as an index into [`RewardMixture::models`].
    ///
    /// # Errors
    /// Another tokenizer than the models'.
    pub fn route(&self, tokenizer: &Tokenizer, prompts: &[String]) -> Result<Vec<usize>> {
        tokenizer.check_fits(self.models[0].gpt().config.vocab_size)?;
        prompts.iter().map(|prompt| Ok(self.router.group(self.read(&tokenizer.encode(prompt)?)))).collect()
    }

    /// The reward of each reply behind its prompt, from the model of the prompt's group as [`RewardMixture::route`] finds it;
    /// as [`RewardModel::score`].
    ///
    /// Rewards of replies to one prompt compare. Those behind prompts of two groups come from two models and do not.
    ///
    /// # Errors
    /// As [`RewardModel::score`].
    pub fn score(&self, tokenizer: &Tokenizer, prompts: &[String], replies: &[String]) -> Result<Vec<f32>> {
        self.score_in(tokenizer, prompts, replies, &self.route(tokenizer, prompts)?)
    }

    /// The same where the group of each prompt is known, as it is for the prompts of a data set with subsets.
    ///
    /// # Errors
    /// As [`RewardModel::score`], or a group that there is not.
    pub fn score_in(
        &self,
        tokenizer: &Tokenizer,
        prompts: &[String],
        replies: &[String],
        groups: &[usize],
    ) -> Result<Vec<f32>> {
        if prompts.len() != replies.len() {
            let got = format!("{} prompts and {} replies", prompts.len(), replies.len());
            return Err(Error::new("each reply needs its prompt", got, "give one prompt for each reply"));
        }
        let mut rewards = vec![0.0; prompts.len()];
        for (model, own) in self.share_out(groups, prompts.len())? {
            let of = |texts: &[String]| own.iter().map(|&i| texts[i].clone()).collect::<Vec<_>>();
            let scored = model.score(tokenizer, &of(prompts), &of(replies))?;
            own.iter().zip(scored).for_each(|(&i, reward)| rewards[i] = reward);
        }
        Ok(rewards)
    }

    /// The rewards of the chosen replies and those of the rejected ones; as [`RewardModel::score_pairs`].
    ///
    /// # Errors
    /// As [`RewardModel::score_pairs`].
    pub fn score_pairs(&self, pairs: &TokenizedPairs) -> Result<(Vec<f32>, Vec<f32>)> {
        let groups: Vec<usize> = pairs.pairs.iter().map(|p| self.router.group(self.read(&p.prompt))).collect();
        self.score_pairs_in(pairs, &groups)
    }

    /// The same where the group of each pair is known.
    ///
    /// # Errors
    /// As [`RewardModel::score_pairs`], or a group that there is not.
    pub fn score_pairs_in(&self, pairs: &TokenizedPairs, groups: &[usize]) -> Result<(Vec<f32>, Vec<f32>)> {
        let (mut chosen, mut rejected) = (vec![0.0; pairs.len()], vec![0.0; pairs.len()]);
        for (model, own) in self.share_out(groups, pairs.len())? {
            let of_group = own.iter().map(|&i| pairs.pairs[i].clone()).collect();
            let (c, r) = model.score_pairs(&TokenizedPairs::from_ids(of_group, pairs.max_length, pairs.eos_id()))?;
            own.iter().zip(c.into_iter().zip(r)).for_each(|(&i, (c, r))| (chosen[i], rejected[i]) = (c, r));
        }
        Ok((chosen, rejected))
    }

    /// Each model with the places of the prompts that are its own.
    fn share_out(&self, groups: &[usize], n: usize) -> Result<Vec<(&RewardModel, Vec<usize>)>> {
        if groups.len() != n || groups.iter().any(|&g| g >= self.models.len()) {
            let got = format!("{} groups up to {:?} for {n} prompts", groups.len(), groups.iter().max());
            let fix = format!("give an index below {} for each prompt", self.models.len());
            return Err(Error::new("the groups do not fit", got, fix));
        }
        let own = |group: usize| (0..n).filter(|&i| groups[i] == group).collect();
        Ok(self.models.iter().enumerate().map(|(group, model)| (model, own(group))).collect())
    }

    /// The first 16 digits of a SHA-256 over all models and the classifier.
    ///
    /// # Errors
    /// A failure of the tensor library.
    pub fn hash(&self) -> Result<String> {
        let mut text = serde_json::to_string(&self.router)?;
        for model in &self.models {
            text.push_str(&model.hash()?);
        }
        Ok(sha256_hex([text.as_bytes()], 16))
    }

    /// Saves each model in a folder of its own, as [`RewardModel::save`] does, and the classifier beside them.
    ///
    /// # Errors
    /// As [`RewardModel::save`].
    pub fn save(&self, tokenizer: &Tokenizer, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        for (name, model) in self.models() {
            model.save(tokenizer, folder.join(name))?;
        }
        files::write_atomic(&folder.join(ROUTER), serde_json::to_string(&self.router)?.as_bytes())
    }

    /// Loads what [`RewardMixture::save`] wrote, with its tokenizer.
    ///
    /// # Errors
    /// A file is missing or damaged.
    pub fn load(folder: impl AsRef<Path>) -> Result<(Self, Tokenizer)> {
        let path = folder.as_ref().join(ROUTER);
        let router: Router =
            serde_json::from_slice(&files::read(&path)?).map_err(|e| Error::from(e).at(path.display()))?;
        let loaded: Result<Vec<_>> =
            router.names.iter().map(|name| RewardModel::load(folder.as_ref().join(name))).collect();
        let (models, mut tokenizers): (Vec<_>, Vec<_>) = loaded?.into_iter().unzip();
        let empty = || Error::new("no group in it", path.display().to_string(), "save the mixture again");
        Ok((Self { models, router }, tokenizers.pop().ok_or_else(empty)?))
    }

    /// The part of a prompt that the models read.
    fn read<'a>(&self, prompt: &'a [u32]) -> &'a [u32] {
        &prompt[prompt.len().saturating_sub(self.models[0].limits()[0])..]
    }
}

const ROUTER: &str = "router.json";

/// Naive Bayes over the set of a prompt's ids: log P(group) + Σ log P(id | group).
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Router {
    names: Vec<String>,
    priors: Vec<f64>,
    /// log P(id in the prompt | group), (groups, V).
    logps: Vec<Vec<f64>>,
}

impl Router {
    fn learn(groups: &[RewardGroup], vocab_size: usize) -> Result<Self> {
        let names: Vec<String> = groups.iter().map(|g| g.name.clone()).collect();
        if names.is_empty() || names.iter().collect::<BTreeSet<_>>().len() < names.len() {
            let fix = "give at least one group, and each a name of its own";
            return Err(Error::new("the groups cannot be told apart", format!("names {names:?}"), fix));
        }
        let total: usize = groups.iter().map(|g| g.pairs.len()).sum();
        let of_group = |group: &RewardGroup| {
            // One more of everything, so that an id that a group never had rules nothing out.
            let mut counts = vec![1.0; vocab_size];
            for pair in &group.pairs.pairs {
                for id in pair.prompt.iter().collect::<BTreeSet<_>>() {
                    counts[*id as usize] += 1.0;
                }
            }
            let sum: f64 = counts.iter().sum();
            counts.into_iter().map(|n: f64| (n / sum).ln()).collect()
        };
        let priors = groups.iter().map(|g| (g.pairs.len() as f64 / total.max(1) as f64).ln()).collect();
        Ok(Self { logps: groups.iter().map(of_group).collect(), names, priors })
    }

    fn group(&self, prompt: &[u32]) -> usize {
        let ids: BTreeSet<u32> = prompt.iter().copied().collect();
        let score =
            |g: usize| self.priors[g] + ids.iter().filter_map(|&id| self.logps[g].get(id as usize)).sum::<f64>();
        (0..self.names.len()).max_by(|&a, &b| score(a).total_cmp(&score(b))).unwrap_or(0)
    }
}
