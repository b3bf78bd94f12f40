//! The handle of a run, which a cell holds.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::shared::Shared;
use super::store::{Parent, Store};
use super::{Phase, find_or_start, manifest_of, name_of};
use crate::base::error::{Error, Result};
use crate::loss::PreferenceLoss;
use crate::model::Gpt;
use crate::show::plot::sparkline;
use crate::show::table::Table;
use crate::train::reward::RewardModel;
use crate::train::{
    Change, History, Origin, Outcome, Progress, Recipe, TrainConfig, progress_line,
};

/// A run in its own thread. [`Pausable::stop`] ends it; dropping the handle does not.
///
/// # Example
/// ```
/// use hhalign::data::batch::TokenizedPairs;
/// use hhalign::data::Dataset;
/// use hhalign::live;
/// use hhalign::live::Pausable;
/// use hhalign::model::{Gpt, GptConfig};
/// use hhalign::data::tokenize::Tokenizer;
/// use hhalign::train::Sft;
/// live::set_runs_folder(std::env::temp_dir().join(format!("hhalign-doc-{}", std::process::id())));
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
/// let model = Gpt::new(config, 1)?;
/// let mut sft = Sft::default();
/// (sft.train.max_steps, sft.train.warmup_steps, sft.train.batch_size) = (4, 1, 4);
/// let run = sft.start(&model, &pairs, &pairs)?;
/// run.pause();
/// run.resume();
/// assert_eq!(run.finish()?.steps, 4);
/// # std::fs::remove_dir_all(live::runs_folder()).unwrap();
/// # Ok::<(), hhalign::base::error::Error>(())
/// ```
#[derive(Clone)]
pub struct Run {
    pub(super) shared: Arc<Shared>,
    note: String,
}

/// Work that can be paused: a run, or a sweep of runs.
pub trait Pausable {
    /// Pauses the work: current passes end, and no other begins. Everything can still be read.
    fn pause(&self);
    /// Resumes the work.
    fn resume(&self);
    /// Stops the work after the current step, with a checkpoint; a new start resumes from there.
    fn stop(&self);
}

impl Pausable for Run {
    fn pause(&self) {
        self.shared.pause();
    }

    fn resume(&self) {
        self.shared.resume();
    }

    fn stop(&self) {
        self.shared.stop();
    }
}

/// The settings that a fork may change; β and loss are those of a DPO run.
#[derive(Debug, Clone)]
pub struct Branch {
    /// The settings of the training loop.
    pub train: TrainConfig,
    /// β.
    pub beta: f64,
    /// The preference loss.
    pub loss: PreferenceLoss,
}

impl Run {
    pub(super) fn new(shared: Arc<Shared>, note: String) -> Self {
        Self { shared, note }
    }

    /// Resumes a run by its name in [`super::runs_folder`], or by the path of its folder. An
    /// interrupted run continues from its last checkpoint and ends with the same bits as an
    /// uninterrupted one.
    ///
    /// # Errors
    /// No such run, or another process is training it.
    pub fn resume(run: impl AsRef<Path>) -> Result<Self> {
        let path = run.as_ref();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            Some(runs) => super::resume(runs, &name),
            None => super::resume(&super::runs_folder(), &name),
        }
    }

    /// Lists all runs in [`super::runs_folder`] with their states.
    ///
    /// # Errors
    /// A failure of the table library.
    pub fn list() -> Result<Table> {
        super::list(&super::runs_folder())
    }

    /// Removes a run from disk, so that a new start begins at step 0.
    ///
    /// # Errors
    /// No such run, or an active run.
    pub fn delete(name: &str) -> Result<()> {
        super::delete(&super::runs_folder(), name)
    }

    /// Returns the name, which is made from everything that affects the run's numbers.
    pub fn name(&self) -> String {
        self.shared.name.clone()
    }

    /// Returns the phase.
    pub fn phase(&self) -> Phase {
        self.shared.control().phase
    }

    /// Returns how the run was found: `resumes from step 40`, `had finished before`; empty for a
    /// new run.
    pub fn note(&self) -> String {
        self.note.clone()
    }

    /// Returns the error or panic that ended the run, if any.
    pub fn error(&self) -> Option<Error> {
        self.shared.control().error.clone()
    }

    /// Returns the number of steps taken.
    pub fn step(&self) -> usize {
        self.shared.progress().map_or(0, |p| p.state.step)
    }

    /// Returns the history so far.
    pub fn history(&self) -> History {
        self.shared.progress().map(|p| p.state.history.clone()).unwrap_or_default()
    }

    /// Returns a frozen copy of the current weights.
    ///
    /// # Errors
    /// A failure of the tensor library.
    pub fn model(&self) -> Result<Gpt> {
        let _between_steps = self.shared.synced_progress();
        self.shared.model.freeze()
    }

    /// Returns a copy of the weights with the lowest held-out loss so far.
    ///
    /// # Errors
    /// No evaluation yet.
    pub fn best_model(&self) -> Result<Gpt> {
        let progress = self.shared.progress();
        let best = progress.as_ref().map(|p| &p.best).filter(|best| !best.is_empty()).ok_or_else(
            || {
                Error::not_ready(
                    "no held-out loss was measured yet",
                    self.phase().to_string(),
                    "wait a little: run.wait(5.0)",
                )
            },
        )?;
        Gpt::from_parameters(self.shared.model.config.clone(), best.clone(), false)
    }

    /// Returns the reward model of the best step so far; at the end of the run it equals that of
    /// [`RewardModel::train`].
    ///
    /// # Errors
    /// A run of another kind, or no evaluation yet.
    pub fn reward_model(&self) -> Result<RewardModel> {
        let Recipe::Reward(config) = self.shared.recipe() else {
            let fix = "start one with RewardConfig::start";
            return Err(Error::new(
                "this run does not train a reward model",
                self.shared.recipe().kind(),
                fix,
            ));
        };
        let early = self.phase() == Phase::Finished && self.step() < config.train.max_steps;
        let outcome =
            self.shared.progress().map(|progress| progress.outcome(self.shared.recipe(), early));
        let outcome = outcome.ok_or_else(|| {
            Error::not_ready(
                "the run has not begun yet",
                self.phase().to_string(),
                "wait a little: run.wait(5.0)",
            )
        })?;
        RewardModel::from_outcome(
            config,
            &self.shared.model,
            outcome,
            self.shared.sources.pairs.max_length,
        )
    }

    /// Returns the current β, which may have been changed; `None` for SFT and reward models.
    pub fn beta(&self) -> Option<f64> {
        let mut recipe = self.shared.recipe().clone();
        if let Some(progress) = self.shared.progress() {
            recipe.apply(&progress.state.changes);
        }
        recipe.beta()
    }

    /// Waits for the end and returns the outcome.
    ///
    /// # Errors
    /// The error that ended the run, or a paused run, which would never end.
    pub fn finish(&self) -> Result<Outcome> {
        if self.phase() == Phase::Paused {
            return Err(Error::not_ready(
                "the run is paused",
                self.progress_line(),
                "resume it: run.resume()",
            ));
        }
        while self.phase().is_active() {
            self.shared.wait_for_change(Duration::from_millis(500));
        }
        if let Some(error) = self.error() {
            return Err(error.at(&self.shared.name));
        }
        let progress = self.shared.progress().expect("a run that ended without an error has begun");
        let early = progress.state.step < self.shared.recipe().train().max_steps
            && self.phase() == Phase::Finished;
        Ok(progress.outcome(self.shared.recipe(), early))
    }

    /// Waits until the run has taken `step` steps, has ended, or is paused; returns the steps
    /// taken.
    pub fn wait_for_step(&self, step: usize) -> usize {
        while self.step() < step && matches!(self.phase(), Phase::Preparing | Phase::Training) {
            self.shared.wait_for_change(Duration::from_millis(100));
        }
        self.step()
    }

    /// Waits for `seconds` or until the end, and prints lines of progress: every two seconds at
    /// first, less often if the end is far. Returns immediately for a paused run.
    pub fn wait(&self, seconds: f64) {
        let begin = Instant::now();
        let left = || (seconds - begin.elapsed().as_secs_f64()).max(0.0);
        if !self.note.is_empty() {
            println!("{}: {}", self.shared.name, self.note);
        }
        let (mut printed, mut next) = (String::new(), 0.0);
        let paused = self.phase() == Phase::Paused;
        while self.phase().is_active() && left() > 0.0 && !paused {
            self.shared.wait_for_change(Duration::from_secs_f64(left().min(0.25)));
            if begin.elapsed().as_secs_f64() >= next {
                let line = self.progress_line();
                if line != printed && self.phase().is_active() {
                    println!("{line}");
                }
                // A run prints about twenty lines, whether it takes a minute or a day.
                let pause = (self.seconds_left().unwrap_or(0.0).min(left()) / 20.0).max(2.0);
                (printed, next) = (line, begin.elapsed().as_secs_f64() + pause);
            }
        }
        let line = self.progress_line();
        if line != printed {
            println!("{line}");
        }
    }

    /// Returns one line: step, metrics, rate, time left, and the loss as a sparkline.
    pub fn progress_line(&self) -> String {
        let phase = self.phase();
        let Some(progress) = self.shared.progress() else {
            let why = self.error().map_or(String::new(), |e| format!(": {}", e.what()));
            return format!("{}  {phase}{why}", self.shared.name);
        };
        let recipe = self.shared.recipe();
        let losses: Vec<f64> = progress.state.history.series("loss").iter().map(|p| p.1).collect();
        let training = phase == Phase::Training;
        let left = progress.state.seconds_left().filter(|_| training);
        let line = progress_line(recipe, &progress.state, left);
        let phase = if training { String::new() } else { format!("  {phase}") };
        format!("{line}{phase}  {}", sparkline(&losses, 16))
    }

    /// Sets the peak of the learning rate from the next step on; the schedule keeps its shape. The
    /// history records the change, and figures mark it.
    ///
    /// # Errors
    /// A rate that is not positive, or a run that has ended.
    pub fn set_lr(&self, learning_rate: f64) -> Result<()> {
        TrainConfig { learning_rate, ..self.shared.recipe().train().clone() }.check()?;
        self.shared.request(Change::LearningRate(learning_rate))
    }

    /// Sets β from the next step on; the history records the change, and figures mark it.
    ///
    /// # Errors
    /// A β out of range, a run without one, or a run that has ended.
    pub fn set_beta(&self, beta: f64) -> Result<()> {
        match self.shared.recipe() {
            Recipe::Sft(_) => Err(Error::new(
                "supervised fine-tuning has no beta",
                beta.to_string(),
                "set it on a DPO run",
            )),
            Recipe::Reward(_) => Err(Error::new(
                "a reward model has no beta",
                beta.to_string(),
                "set it on a DPO run",
            )),
            Recipe::Dpo(dpo) => {
                dpo.loss.check(beta)?;
                self.shared.request(Change::Beta(beta))
            }
        }
    }

    /// Starts a second run from this run's weights, optimiser and position in the data; this run
    /// continues unchanged. [`super::overlay`] draws both.
    ///
    /// If this run has ended and such a fork was made before, that fork is used, so that a notebook
    /// finds its forks again as it finds its runs.
    ///
    /// # Errors
    /// A setting out of range, a fork that would end before it begins, or a run that has not begun
    /// yet.
    ///
    /// # Example
    /// ```no_run
    /// # use hhalign::live::Run;
    /// # fn example(run: Run) -> hhalign::base::error::Result<()> {
    /// let bolder = run.fork(|branch| branch.beta = 0.02)?;
    /// # Ok(()) }
    /// ```
    pub fn fork(&self, change: impl FnOnce(&mut Branch)) -> Result<Self> {
        let shared = &self.shared;
        let ended = !self.phase().is_active();
        let (model, progress) = {
            let between_steps = shared.synced_progress().ok_or_else(|| {
                Error::not_ready(
                    "the run has not begun yet",
                    self.phase().to_string(),
                    "wait a little: run.wait(5.0)",
                )
            })?;
            (shared.model.fork()?, (*between_steps).clone())
        };
        let recipe = self.branched(&progress, change)?;
        let parent = Parent {
            name: self.name(),
            step: progress.state.step,
            marks: progress.state.history.marks.clone(),
        };
        let runs = super::runs_folder();
        if ended && let Some(name) = super::find_fork(&runs, &parent, &recipe) {
            return super::resume(&runs, &name);
        }
        if recipe.train().max_steps < parent.step {
            let got = format!("max_steps {} at step {}", recipe.train().max_steps, parent.step);
            return Err(Error::new(
                "the fork would end before it begins",
                got,
                "raise branch.train.max_steps",
            ));
        }
        let progress =
            shared.sources.branch_from(&recipe, progress, &format!("fork of {}", parent.name))?;
        let weights = model.hash()?;
        let origin = Origin::Fork { parent: parent.name.clone(), step: parent.step, weights };
        let identity = shared.sources.identity(&recipe, origin)?;
        let note = format!("fork of {} at step {}", parent.name, parent.step);
        let manifest = manifest_of(recipe, &shared.sources, &model, &identity, Some(parent));
        let name = name_of(&manifest.recipe, &identity);
        let store = Store::new(&runs, &name);
        let new = store.checkpoints().is_empty();
        if new {
            store.write_description(&manifest, &shared.sources)?;
            store.save(&model, &progress)?;
        }
        let fork = find_or_start(&runs, name, manifest, shared.sources.clone(), || Ok(model))?;
        Ok(if new { Self { note, ..fork } } else { fork })
    }

    /// Returns the run's current settings with a branch's changes.
    fn branched(&self, progress: &Progress, change: impl FnOnce(&mut Branch)) -> Result<Recipe> {
        let mut recipe = self.shared.recipe().clone();
        recipe.apply(&progress.state.changes);
        let (beta, loss) = match &recipe {
            Recipe::Sft(_) | Recipe::Reward(_) => (0.0, PreferenceLoss::default()),
            Recipe::Dpo(dpo) => (dpo.beta, dpo.loss),
        };
        let mut branch = Branch { train: recipe.train().clone(), beta, loss };
        change(&mut branch);
        match &mut recipe {
            Recipe::Dpo(dpo) => {
                (dpo.train, dpo.beta, dpo.loss) = (branch.train, branch.beta, branch.loss)
            }
            Recipe::Sft(_) | Recipe::Reward(_) if (branch.beta, branch.loss) != (beta, loss) => {
                let what = match recipe.kind() {
                    "sft" => "supervised fine-tuning has neither beta nor loss",
                    _ => "a reward model has neither beta nor loss",
                };
                return Err(Error::new(what, "a fork", "change branch.train"));
            }
            Recipe::Sft(sft) => sft.train = branch.train,
            Recipe::Reward(reward) => reward.train = branch.train,
        }
        recipe.check()?;
        Ok(recipe)
    }
}
