//! A run as a whole: what is learnt and from what, so that a thread, a file or another process can take it up.

use std::path::Path;
use std::sync::{Arc, OnceLock, RwLock};

use serde::{Deserialize, Serialize};

use super::identity::{Identity, Origin};
use super::objective::Objective;
use super::observer::Observer;
use super::outcome::Outcome;
use super::state::{Change, Progress};
use super::{Dpo, Mark, RewardConfig, Sft, TrainConfig, dpo, reward, sft, trainer};
use crate::batch::TokenizedPairs;
use crate::error::{Error, Result};
use crate::model::Gpt;
use crate::parallel;

/// What a run learns, with all its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Recipe {
    /// Supervised fine-tuning.
    Sft(Sft),
    /// Preference optimisation.
    Dpo(Dpo),
    /// A reward model.
    Reward(RewardConfig),
}

/// What a run learns from.
#[derive(Clone)]
pub(crate) struct Sources {
    pub(crate) pairs: Arc<TokenizedPairs>,
    pub(crate) held_out: Arc<TokenizedPairs>,
    /// DPO's reference, and its hash.
    pub(crate) reference: Option<(Arc<Gpt>, String)>,
}

impl Recipe {
    /// Whether another recipe decides the same numbers: housekeeping may differ.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        let deciding = |recipe: &Self| {
            let mut recipe = recipe.clone();
            let TrainConfig { log_every, progress, .. } = TrainConfig::default();
            let train = recipe.train_mut();
            (train.log_every, train.progress) = (log_every, progress);
            serde_json::to_value(recipe).ok()
        };
        deciding(self) == deciding(other)
    }

    /// Takes over what was changed while the run went on.
    pub(crate) fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match (change, &mut *self) {
                (Change::Beta(beta), Self::Dpo(dpo)) => dpo.beta = *beta,
                (Change::LearningRate(rate), recipe) => recipe.train_mut().learning_rate = *rate,
                (Change::Beta(_), Self::Sft(_) | Self::Reward(_)) => {}
            }
        }
    }

    /// `sft`, `dpo` or `reward`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sft(_) => "sft",
            Self::Dpo(_) => "dpo",
            Self::Reward(_) => "reward",
        }
    }

    /// β; `None` for supervised fine-tuning and for reward models.
    pub fn beta(&self) -> Option<f64> {
        match self {
            Self::Dpo(dpo) => Some(dpo.beta),
            Self::Sft(_) | Self::Reward(_) => None,
        }
    }

    /// How it goes through its data.
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

    pub(crate) fn headline(&self) -> &'static [&'static str] {
        match self {
            Self::Sft(_) => sft::HEADLINE,
            Self::Dpo(_) => dpo::HEADLINE,
            Self::Reward(_) => reward::HEADLINE,
        }
    }

    /// Says what is wrong with the settings, if anything, before a thread is started for them.
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Self::Sft(_) => {}
            Self::Dpo(dpo) => dpo.loss.check(dpo.beta)?,
            Self::Reward(reward) => reward.check()?,
        }
        self.train().check()
    }

    /// Everything that decides the numbers of a run that begins with these weights.
    pub(crate) fn identity(&self, sources: &Sources, origin: Origin) -> Result<Identity> {
        let settings = self.train().deciding()?;
        let pairs = format!("{} of {}", sources.pairs.hash, sources.pairs.max_length);
        Ok(Identity { objective: self.objective(sources)?, pairs, settings, origin })
    }

    fn objective(&self, sources: &Sources) -> Result<String> {
        Ok(match self {
            Self::Sft(_) => sft::identity(&sources.held_out.hash),
            Self::Dpo(dpo) => dpo.identity(&sources.reference()?.1, &sources.held_out.hash),
            Self::Reward(reward) => reward.identity(&sources.held_out.hash),
        })
    }

    /// The progress of another run as the beginning of this one, which has changed settings.
    pub(crate) fn branch_from(&self, mut progress: Progress, sources: &Sources, mark: &str) -> Result<Progress> {
        let state = &mut progress.state;
        state.objective = self.objective(sources)?;
        state.config = self.train().clone();
        state.data = match self {
            Self::Reward(reward) => reward.objective(&sources.pairs, &sources.held_out).data().hash.clone(),
            Self::Sft(_) | Self::Dpo(_) => self.train().with_pitfall(&sources.pairs)?.hash.clone(),
        };
        // What was changed on the way is part of the new settings; losses under other settings do not compare.
        state.changes.clear();
        (state.best, state.evaluations_without_gain) = (None, 0);
        progress.best.clear();
        if let Some(head) = &mut progress.head {
            head.best.clear();
        }
        let state = &mut progress.state;
        // An evaluation that the other run still owes at this step is its own: under new settings it would not be the same.
        state.evaluated_at = Some(state.step);
        state.history.marks.push(Mark { step: state.step, text: mark.into() });
        Ok(progress)
    }

    /// Trains `model` from its beginning, or from where `resume` left it; `progress` is filled as soon as there is any.
    pub(crate) fn train_from(
        &self,
        sources: &Sources,
        model: &Gpt,
        resume: Option<&Path>,
        progress: &OnceLock<RwLock<Progress>>,
        observer: &dyn Observer,
    ) -> Result<Outcome> {
        let train = |objective: &mut dyn Objective| {
            let begun = parallel::behind(observer.gate(), || trainer::begin(objective, self.train(), model, resume))?;
            let progress = progress.get_or_init(|| RwLock::new(begun));
            trainer::train(objective, self, model, progress, observer)
        };
        match self {
            Self::Sft(sft) => train(&mut sft.objective(&sources.pairs, &sources.held_out)?),
            Self::Dpo(dpo) => {
                let reference = &sources.reference()?.0;
                let objective =
                    parallel::behind(observer.gate(), || dpo.objective(reference, &sources.pairs, &sources.held_out));
                train(&mut objective?)
            }
            Self::Reward(reward) => train(&mut reward.objective(&sources.pairs, &sources.held_out)),
        }
    }
}

impl Sources {
    fn reference(&self) -> Result<&(Arc<Gpt>, String)> {
        let missing = || Error::new("DPO needs a reference model", "none", "give the model that SFT ended with");
        self.reference.as_ref().ok_or_else(missing)
    }
}
