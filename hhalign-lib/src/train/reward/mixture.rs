//! A mixture of reward models: one for each kind of request.
//!
//! A good reply depends on the request: a short refusal for a harmful request, a fuller answer for
//! a question. A single model has to learn that from few labels; a mixture has it built in.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::base::error::{Error, Result};
use crate::base::files;
use crate::base::rng::sha256_hex;
use crate::data::Pair;
use crate::data::batch::TokenizedPairs;
use crate::data::tokenize::Tokenizer;
use crate::model::Gpt;
use crate::train::reward::{RewardConfig, RewardModel};

/// Pairs of one kind of request.
#[derive(Debug, Clone)]
pub struct RewardGroup {
    /// The name, such as `harmless`.
    pub name: String,
    /// Pairs to train on.
    pub pairs: TokenizedPairs,
    /// Pairs on which the best step is chosen.
    pub watched: TokenizedPairs,
}

impl RewardGroup {
    /// Returns the kind of request from the pair's subset: `harmless` of `harmless-base`, the whole
    /// name of others.
    pub fn kind_of(pair: &Pair) -> &str {
        pair.origin.subset.split('-').next().unwrap_or_default()
    }

    /// Groups pairs by [`RewardGroup::kind_of`], in the order of the names.
    ///
    /// # Errors
    /// A failure of the tokenizer, or a `max_length` that is too short.
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
    pub fn by_kind(
        train: &[Pair],
        watched: &[Pair],
        tokenizer: &Tokenizer,
        max_length: usize,
    ) -> Result<Vec<Self>> {
        let of = |pairs: &[Pair], kind: &str| {
            let own: Vec<Pair> =
                pairs.iter().filter(|p| Self::kind_of(p) == kind).cloned().collect();
            TokenizedPairs::new(&own, tokenizer, max_length)
        };
        let kinds: BTreeSet<&str> = train.iter().map(Self::kind_of).collect();
        let group = |kind: &str| {
            Ok(Self { name: kind.into(), pairs: of(train, kind)?, watched: of(watched, kind)? })
        };
        kinds.into_iter().map(group).collect()
    }
}

/// One reward model for each kind of request, and a classifier that finds the kind of a prompt.
///
/// # Example
/// ```
/// use hhalign::prelude::*;
/// let data = Dataset::embedded(1, 60)?;
/// let tokenizer = Tokenizer::train(&data.pairs, 300)?;
/// let group = |name: &str, kinds: &[PromptKind]| {
///     let is_of_kind = |p: &&Pair| p.kind.is_some_and(|k| kinds.contains(&k));
///     let of_kind: Vec<Pair> = data.pairs.iter().filter(is_of_kind).cloned().collect();
///     let pairs = TokenizedPairs::new(&of_kind, &tokenizer, 128)?;
///     Ok::<_, Error>(RewardGroup { name: name.into(), watched: pairs.clone(), pairs })
/// };
/// let groups = [
///     group("harmful", &[PromptKind::Harmful])?,
///     group("other", &[PromptKind::Helpful, PromptKind::LookAlike])?,
/// ];
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
/// (settings.train.max_steps, settings.train.warmup_steps) = (4, 1);
/// settings.train.progress = false;
/// let mixture = RewardMixture::train(&settings, &Gpt::new(config, 1)?, &groups, None)?;
/// let prompts = [data.pairs[0].prompt.clone()];
/// let rewards = mixture.score(&tokenizer, &prompts, &["Of course.".into()])?;
/// assert!(rewards[0].is_finite());
/// # Ok::<(), Error>(())
/// ```
pub struct RewardMixture {
    models: Vec<RewardModel>,
    router: Router,
}

impl RewardMixture {
    /// Trains a model on each group, all from the same first weights. The steps of `config` are
    /// divided in proportion to the number of pairs. For `cache` see [`RewardModel::train`].
    ///
    /// # Errors
    /// No group; otherwise see [`RewardModel::train`].
    pub fn train(
        config: &RewardConfig,
        start: &Gpt,
        groups: &[RewardGroup],
        cache: Option<&Path>,
    ) -> Result<Self> {
        let total: usize = groups.iter().map(|g| g.pairs.len()).sum();
        let router = Router::learn(groups, start.config.vocab_size)?;
        let models = groups.iter().map(|group| {
            let mut config = config.clone();
            let share = |steps: usize| (steps * group.pairs.len()).div_ceil(total.max(1)).max(1);
            (config.train.max_steps, config.train.warmup_steps) = (
                share(config.train.max_steps),
                config.train.warmup_steps.min(share(config.train.max_steps)),
            );
            if config.train.progress {
                println!("{}: {} pairs", group.name, group.pairs.len());
            }
            RewardModel::train(&config, start, &group.pairs, &group.watched, cache)
                .map_err(|e| e.at(&group.name))
        });
        Ok(Self { models: models.collect::<Result<_>>()?, router })
    }

    /// Returns the models with the names of their groups.
    pub fn models(&self) -> impl Iterator<Item = (&str, &RewardModel)> {
        self.router.names.iter().map(String::as_str).zip(&self.models)
    }

    /// Classifies each prompt; returns the groups as indices into [`RewardMixture::models`].
    ///
    /// # Errors
    /// A tokenizer that does not fit the models.
    pub fn route(&self, tokenizer: &Tokenizer, prompts: &[String]) -> Result<Vec<usize>> {
        tokenizer.check_fits(self.models[0].gpt().config.vocab_size)?;
        prompts
            .iter()
            .map(|prompt| Ok(self.router.group(self.last_ids(&tokenizer.encode(prompt)?))))
            .collect()
    }

    /// Returns the reward of each reply after its prompt, from the model of the group that
    /// [`RewardMixture::route`] finds; see [`RewardModel::score`].
    ///
    /// Rewards of replies to the same prompt are comparable. Rewards of replies to prompts of
    /// different groups come from different models and are not.
    ///
    /// # Errors
    /// See [`RewardModel::score`].
    pub fn score(
        &self,
        tokenizer: &Tokenizer,
        prompts: &[String],
        replies: &[String],
    ) -> Result<Vec<f32>> {
        self.score_in(tokenizer, prompts, replies, &self.route(tokenizer, prompts)?)
    }

    /// Returns the reward of each reply, given the group of each prompt, which is known for a data
    /// set with subsets.
    ///
    /// # Errors
    /// See [`RewardModel::score`]; or a group that does not exist.
    pub fn score_in(
        &self,
        tokenizer: &Tokenizer,
        prompts: &[String],
        replies: &[String],
        groups: &[usize],
    ) -> Result<Vec<f32>> {
        if prompts.len() != replies.len() {
            let got = format!("{} prompts and {} replies", prompts.len(), replies.len());
            return Err(Error::new(
                "each reply needs its prompt",
                got,
                "give one prompt for each reply",
            ));
        }
        let mut rewards = vec![0.0; prompts.len()];
        for (model, own) in self.by_model(groups, prompts.len())? {
            let of = |texts: &[String]| own.iter().map(|&i| texts[i].clone()).collect::<Vec<_>>();
            let scored = model.score(tokenizer, &of(prompts), &of(replies))?;
            own.iter().zip(scored).for_each(|(&i, reward)| rewards[i] = reward);
        }
        Ok(rewards)
    }

    /// Returns the rewards of the chosen replies and those of the rejected replies; see
    /// [`RewardModel::score_pairs`].
    ///
    /// # Errors
    /// See [`RewardModel::score_pairs`].
    pub fn score_pairs(&self, pairs: &TokenizedPairs) -> Result<(Vec<f32>, Vec<f32>)> {
        let groups: Vec<usize> =
            pairs.pairs.iter().map(|p| self.router.group(self.last_ids(&p.prompt))).collect();
        self.score_pairs_in(pairs, &groups)
    }

    /// Returns the rewards of chosen and rejected replies, given the group of each pair.
    ///
    /// # Errors
    /// See [`RewardModel::score_pairs`]; or a group that does not exist.
    pub fn score_pairs_in(
        &self,
        pairs: &TokenizedPairs,
        groups: &[usize],
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let (mut chosen, mut rejected) = (vec![0.0; pairs.len()], vec![0.0; pairs.len()]);
        for (model, own) in self.by_model(groups, pairs.len())? {
            let of_group = own.iter().map(|&i| pairs.pairs[i].clone()).collect();
            let (c, r) = model.score_pairs(&TokenizedPairs::from_ids(
                of_group,
                pairs.max_length,
                pairs.eos_id(),
            ))?;
            own.iter()
                .zip(c.into_iter().zip(r))
                .for_each(|(&i, (c, r))| (chosen[i], rejected[i]) = (c, r));
        }
        Ok((chosen, rejected))
    }

    /// Returns each model with the indices of its prompts.
    fn by_model(&self, groups: &[usize], n: usize) -> Result<Vec<(&RewardModel, Vec<usize>)>> {
        if groups.len() != n || groups.iter().any(|&g| g >= self.models.len()) {
            let got =
                format!("{} groups up to {:?} for {n} prompts", groups.len(), groups.iter().max());
            let fix = format!("give an index below {} for each prompt", self.models.len());
            return Err(Error::new("the groups do not match the prompts", got, fix));
        }
        let own = |group: usize| (0..n).filter(|&i| groups[i] == group).collect();
        Ok(self.models.iter().enumerate().map(|(group, model)| (model, own(group))).collect())
    }

    /// Returns the first 16 digits of a SHA-256 of all models and the classifier.
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

    /// Saves each model in its own folder, as [`RewardModel::save`] does, with the classifier in a
    /// file next to them.
    ///
    /// # Errors
    /// See [`RewardModel::save`].
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
        let router: Router = serde_json::from_slice(&files::read(&path)?)
            .map_err(|e| Error::from(e).at(path.display()))?;
        let loaded: Result<Vec<_>> =
            router.names.iter().map(|name| RewardModel::load(folder.as_ref().join(name))).collect();
        let (models, mut tokenizers): (Vec<_>, Vec<_>) = loaded?.into_iter().unzip();
        let empty = || {
            Error::data(
                "the mixture has no group",
                path.display().to_string(),
                "save the mixture again",
            )
        };
        Ok((Self { models, router }, tokenizers.pop().ok_or_else(empty)?))
    }

    /// Returns the part of a prompt that the models read.
    fn last_ids<'a>(&self, prompt: &'a [u32]) -> &'a [u32] {
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
            let fix = "give at least one group, and each group a different name";
            return Err(Error::new(
                "the groups need different names",
                format!("names {names:?}"),
                fix,
            ));
        }
        let total: usize = groups.iter().map(|g| g.pairs.len()).sum();
        let of_group = |group: &RewardGroup| {
            // Add-one smoothing, so that an id that a group never had does not exclude it.
            let mut counts = vec![1.0; vocab_size];
            for pair in &group.pairs.pairs {
                for id in pair.prompt.iter().collect::<BTreeSet<_>>() {
                    counts[*id as usize] += 1.0;
                }
            }
            let sum: f64 = counts.iter().sum();
            counts.into_iter().map(|n: f64| (n / sum).ln()).collect()
        };
        let priors =
            groups.iter().map(|g| (g.pairs.len() as f64 / total.max(1) as f64).ln()).collect();
        Ok(Self { logps: groups.iter().map(of_group).collect(), names, priors })
    }

    fn group(&self, prompt: &[u32]) -> usize {
        let ids: BTreeSet<u32> = prompt.iter().copied().collect();
        let score = |g: usize| {
            self.priors[g]
                + ids.iter().filter_map(|&id| self.logps[g].get(id as usize)).sum::<f64>()
        };
        (0..self.names.len()).max_by(|&a, &b| score(a).total_cmp(&score(b))).unwrap_or(0)
    }
}
