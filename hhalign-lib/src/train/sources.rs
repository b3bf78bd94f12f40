//! The data of a run, and the entry point that trains a recipe on it: from the beginning or from a
//! checkpoint, in any thread.

use std::path::Path;
use std::sync::{Arc, OnceLock, RwLock};

use super::history::Mark;
use super::identity::{Identity, Origin};
use super::objective::Objective;
use super::observer::Observer;
use super::outcome::Outcome;
use super::recipe::Recipe;
use super::state::Progress;
use super::{sft, trainer};
use crate::base::error::{Error, Result};
use crate::base::parallel;
use crate::data::batch::TokenizedPairs;
use crate::model::Gpt;

/// The data that a run learns from.
#[derive(Clone)]
pub(crate) struct Sources {
    pub(crate) pairs: Arc<TokenizedPairs>,
    pub(crate) held_out: Arc<TokenizedPairs>,
    /// DPO's reference and its hash.
    pub(crate) reference: Option<(Arc<Gpt>, String)>,
}

impl Sources {
    /// Returns the identity of a run that begins with these weights.
    pub(crate) fn identity(&self, recipe: &Recipe, origin: Origin) -> Result<Identity> {
        let settings = recipe.train().identity()?;
        let pairs = format!("{} of {}", self.pairs.hash, self.pairs.max_length);
        Ok(Identity { objective: self.objective(recipe)?, pairs, settings, origin })
    }

    fn objective(&self, recipe: &Recipe) -> Result<String> {
        Ok(match recipe {
            Recipe::Sft(_) => sft::identity(&self.held_out.hash),
            Recipe::Dpo(dpo) => dpo.identity(&self.reference()?.1, &self.held_out.hash),
            Recipe::Reward(reward) => reward.identity(&self.held_out.hash),
        })
    }

    /// Makes another run's progress the beginning of this run, which has changed settings.
    pub(crate) fn branch_from(
        &self,
        recipe: &Recipe,
        mut progress: Progress,
        mark: &str,
    ) -> Result<Progress> {
        let state = &mut progress.state;
        state.objective = self.objective(recipe)?;
        state.config = recipe.train().clone();
        state.data = match recipe {
            Recipe::Reward(reward) => {
                reward.objective(&self.pairs, &self.held_out).data().hash.clone()
            }
            Recipe::Sft(_) | Recipe::Dpo(_) => {
                recipe.train().with_pitfall(&self.pairs)?.hash.clone()
            }
        };
        // Earlier changes are part of the new settings, and losses under different settings are not
        // comparable.
        state.changes.clear();
        (state.best, state.evaluations_without_gain) = (None, 0);
        progress.best.clear();
        if let Some(head) = &mut progress.head {
            head.best.clear();
        }
        let state = &mut progress.state;
        // An evaluation that is due at this step belongs to the other run; under the new settings
        // its result would differ.
        state.evaluated_at = Some(state.step);
        state.history.marks.push(Mark { step: state.step, text: mark.into() });
        Ok(progress)
    }

    /// Trains `model` with a recipe from the beginning, or from the checkpoint `resume`; `progress`
    /// is set as soon as it exists.
    pub(crate) fn train(
        &self,
        recipe: &Recipe,
        model: &Gpt,
        resume: Option<&Path>,
        progress: &OnceLock<RwLock<Progress>>,
        observer: &dyn Observer,
    ) -> Result<Outcome> {
        let train = |objective: &mut dyn Objective| {
            let begun = parallel::with_gate(observer.gate(), || {
                trainer::begin(objective, recipe.train(), model, resume)
            })?;
            let progress = progress.get_or_init(|| RwLock::new(begun));
            trainer::train(objective, recipe, model, progress, observer)
        };
        match recipe {
            Recipe::Sft(sft) => train(&mut sft.objective(&self.pairs, &self.held_out)?),
            Recipe::Dpo(dpo) => {
                let reference = &self.reference()?.0;
                let objective = parallel::with_gate(observer.gate(), || {
                    dpo.objective(reference, &self.pairs, &self.held_out)
                });
                train(&mut objective?)
            }
            Recipe::Reward(reward) => train(&mut reward.objective(&self.pairs, &self.held_out)),
        }
    }

    fn reference(&self) -> Result<&(Arc<Gpt>, String)> {
        let missing = || {
            Error::new("DPO needs a reference model", "none", "give the model that SFT ended with")
        };
        self.reference.as_ref().ok_or_else(missing)
    }
}
