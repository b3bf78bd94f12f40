//! The result of a run.

use std::collections::BTreeMap;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::history::History;
use super::recipe::Recipe;
use super::state::{Progress, State};
use crate::base::error::{Error, Result};
use crate::model::Gpt;

/// The step of a run with the lowest held-out loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Steps taken.
    pub step: usize,
    /// The held-out loss there.
    pub loss: f64,
}

/// A finished run: its settings, its history, its best step, and how it ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The final settings: those at the start, with all changes during the run.
    pub recipe: Recipe,
    /// Everything that was logged.
    pub history: History,
    /// The step with the lowest held-out loss.
    pub best: Best,
    /// The parameters at that step, by name.
    pub best_parameters: BTreeMap<String, Tensor>,
    /// The head of a reward model at that step, (C); empty for a run without one.
    pub best_head: Vec<f32>,
    /// Steps taken.
    pub steps: usize,
    /// Whether patience ended the run.
    pub stopped_early: bool,
    /// Wall-clock seconds, over all resumed parts.
    pub seconds: f64,
    /// Tokens that passed through the model in training.
    pub tokens: f64,
}

impl Outcome {
    /// Returns the final β; `None` for supervised fine-tuning and for reward models.
    pub fn beta(&self) -> Option<f64> {
        self.recipe.beta()
    }
}

impl Progress {
    /// Returns the outcome of a run that ended here.
    pub(crate) fn outcome(&self, recipe: &Recipe, stopped_early: bool) -> Outcome {
        let state = &self.state;
        let mut recipe = recipe.clone();
        recipe.apply(&state.changes);
        let (step, loss) = state.best.unwrap_or((state.step, f64::NAN));
        Outcome {
            recipe,
            best: Best { step, loss },
            best_parameters: self.best.clone(),
            best_head: self.head.as_ref().map(|head| head.best.clone()).unwrap_or_default(),
            steps: state.step,
            stopped_early,
            seconds: state.seconds,
            tokens: state.tokens,
            history: state.history.clone(),
        }
    }

    pub(super) fn evaluated(&mut self, metrics: Vec<(String, f64)>, model: &Gpt) -> Result<()> {
        let state = &mut self.state;
        let loss = metrics
            .iter()
            .find(|m| m.0 == "eval_loss")
            .expect("every objective evaluates its loss")
            .1;
        if !loss.is_finite() {
            return Err(Error::numeric(
                format!("the held-out loss is not finite at step {}", state.step),
                loss.to_string(),
                "lower learning_rate, or check the weights that the run began with",
            ));
        }
        state.history.log(state.step, metrics);
        state.evaluated_at = Some(state.step);
        if state.best.is_none_or(|b| loss < b.1) {
            state.best = Some((state.step, loss));
            state.evaluations_without_gain = 0;
            let copies = model
                .named_parameters()
                .into_iter()
                .map(|(name, t)| Ok((name, t.copy()?.detach())));
            self.best = copies.collect::<Result<_>>()?;
            if let Some(head) = &mut self.head {
                head.best.clone_from(&head.weights);
            }
        } else {
            state.evaluations_without_gain += 1;
        }
        Ok(())
    }
}

impl State {
    /// Estimates the seconds left from the mean time per step; `None` before the first step.
    pub(crate) fn seconds_left(&self) -> Option<f64> {
        let pace = self.seconds / self.step.max(1) as f64;
        (self.step > 0).then_some(self.config.max_steps.saturating_sub(self.step) as f64 * pace)
    }
}
