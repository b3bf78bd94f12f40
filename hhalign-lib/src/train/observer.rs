//! The observer of a run, polled for requests between steps and called at each save point.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::state::{Change, Progress, State};
use super::{Recipe, TrainConfig};
use crate::base::error::Result;
use crate::base::parallel::Gate;
use crate::model::Gpt;

/// A point in the loop at which a run may be saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SavePoint {
    /// Before the first step of this process.
    Begin,
    /// Between two steps.
    Step,
    /// After a setting was changed, which must not be lost.
    Changed,
    /// After the last step, or at a stop.
    End,
}

/// Requests applied between two steps.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    pub(crate) changes: Vec<Change>,
    pub(crate) stop: bool,
}

/// Observes a run.
pub(crate) trait Observer: Sync {
    /// Returns the gate that delays the passes of a paused run.
    fn gate(&self) -> Option<Arc<dyn Gate>> {
        None
    }
    /// Waits until the run may continue and returns its requests; `None` if the weights must be
    /// synced before it waits.
    fn requests(&self) -> Option<Requests> {
        Some(Requests::default())
    }
    /// Returns the seconds that the run was paused so far.
    fn idle_seconds(&self) -> f64 {
        0.0
    }
    /// Returns whether somebody waits for the weights, or the run is about to pause: the weights
    /// must then be synced.
    fn wants_weights(&self) -> bool {
        false
    }
    /// Receives whether the weights in main memory are older than those of a GPU.
    fn set_stale(&self, _is_stale: bool) {}
    /// Returns whether [`Observer::at_save_point`] would read weights now.
    fn will_save(&self, progress: &Progress, point: SavePoint) -> bool;
    /// Called at each point where the run may be saved and shown.
    fn at_save_point(&self, model: &Gpt, progress: &Progress, point: SavePoint) -> Result<()>;
}

/// Observes a run of `fit`: prints a line at every record, and writes the config's checkpoint.
pub(super) struct ConsoleObserver<'a> {
    pub(super) recipe: &'a Recipe,
}

impl ConsoleObserver<'_> {
    fn config(&self) -> &TrainConfig {
        self.recipe.train()
    }
}

impl Observer for ConsoleObserver<'_> {
    fn will_save(&self, progress: &Progress, point: SavePoint) -> bool {
        let due = point == SavePoint::End
            || progress.state.step.is_multiple_of(self.config().checkpoint_every);
        self.config().checkpoint.is_some() && point != SavePoint::Begin && due
    }

    fn at_save_point(&self, model: &Gpt, progress: &Progress, point: SavePoint) -> Result<()> {
        let (config, state) = (self.config(), &progress.state);
        if point == SavePoint::Begin {
            return Ok(());
        }
        let last = state.history.records.last();
        let shown = |metrics: &BTreeMap<String, f64>| match self.recipe {
            Recipe::Reward(_) => true,
            Recipe::Sft(_) | Recipe::Dpo(_) => metrics.contains_key("loss"),
        };
        if config.progress && last.is_some_and(|r| r.step == state.step && shown(&r.metrics)) {
            println!("{}", progress_line(self.recipe, state, state.seconds_left()));
        }
        match &config.checkpoint {
            Some(path) if self.will_save(progress, point) => progress.save(path, model),
            _ => Ok(()),
        }
    }
}

/// Formats a time such as `12:30`.
pub(crate) fn clock(seconds: f64) -> String {
    format!("{}:{:02}", seconds as u64 / 60, seconds as u64 % 60)
}

/// Formats a line such as `dpo  step   20/80  loss 0.612  41205 tokens/s  left 0:07`.
pub(crate) fn progress_line(recipe: &Recipe, state: &State, seconds_left: Option<f64>) -> String {
    let left = seconds_left.map_or(String::new(), |seconds| format!("  left {}", clock(seconds)));
    let shown = recipe.headline().iter();
    let shown: Vec<String> =
        shown.filter_map(|name| Some(format!("{name} {:.3}", state.history.last(name)?))).collect();
    format!(
        "{}  step {:>4}/{}  {}  {:.0} tokens/s{left}",
        recipe.kind(),
        state.step,
        state.config.max_steps,
        shown.join("  "),
        state.tokens / state.seconds.max(1e-9),
    )
}
