//! The training of reward models: in this thread with a cache, or from a live run.

use std::path::Path;

use crate::base::error::{Error, Result};
use crate::data::batch::TokenizedPairs;
use crate::model::Gpt;
use crate::train::reward::store::Store;
use crate::train::reward::{RewardConfig, RewardModel, RewardTraining};
use crate::train::{Outcome, Recipe, fit};

impl RewardModel {
    /// Trains a reward model on `pairs`, beginning with the weights of `start`, and keeps the
    /// weights with the lowest loss on `watched`. [`RewardConfig::start`] trains in a separate
    /// thread, which can be observed and paused.
    ///
    /// The best step is chosen on `watched`, so a reported number needs pairs that are in neither
    /// set. With a `cache` folder, a finished training is read from it, and an interrupted one
    /// resumes from its last checkpoint. Both are stored under a hash of settings, pairs, first
    /// weights and version.
    ///
    /// # Errors
    /// A setting out of range, pairs that do not fit the model, or a cache that cannot be written.
    pub fn train(
        config: &RewardConfig,
        start: &Gpt,
        pairs: &TokenizedPairs,
        watched: &TokenizedPairs,
        cache: Option<&Path>,
    ) -> Result<Self> {
        config.check_sources(start, pairs, watched)?;
        let store =
            cache.map(|folder| Store::new(folder, config, start, pairs, watched)).transpose()?;
        if let Some(model) =
            store.as_ref().and_then(|store| store.finished(config, start, pairs.max_length))
        {
            return Ok(model);
        }
        let gpt = start.fork()?;
        let mut saved = config.clone();
        saved.train.checkpoint = store.as_ref().map(|store| store.checkpoint.clone());
        let mut objective = config.objective(pairs, watched);
        let resume = match &store {
            Some(store) if store.can_resume(start, &objective, &saved.train)? => {
                Some(store.checkpoint.as_path())
            }
            _ => None,
        };
        let outcome = fit(&mut objective, &Recipe::Reward(saved), &gpt, resume)?;
        let finished = outcome.steps == config.train.max_steps || outcome.stopped_early;
        let model = Self::from_outcome(config, start, outcome, pairs.max_length)?;
        match store {
            Some(store) if finished => store.finish(&model)?,
            _ => {}
        }
        Ok(model)
    }

    /// Returns the model at the best step of a training whose pairs were cut to `max_length`.
    pub(crate) fn from_outcome(
        config: &RewardConfig,
        start: &Gpt,
        outcome: Outcome,
        max_length: usize,
    ) -> Result<Self> {
        if outcome.best_head.is_empty() {
            let fix = "wait for the first evaluation: run.wait(5.0)";
            return Err(Error::not_ready(
                "no held-out loss was measured yet",
                "a training without a best step",
                fix,
            ));
        }
        let gpt = Gpt::from_parameters(start.config.clone(), outcome.best_parameters, false)?;
        let mut model = Self::from_parts(&gpt, outcome.best_head, config.limits(max_length))?;
        model.compute = config.train.compute.clone();
        model.training = Some(RewardTraining {
            best: outcome.best,
            steps: outcome.steps,
            stopped_early: outcome.stopped_early,
            seconds: outcome.seconds,
            tokens: outcome.tokens,
            history: outcome.history,
        });
        Ok(model)
    }
}
