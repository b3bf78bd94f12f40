//! The handle of a run: what a cell holds.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::shared::Shared;
use super::store::{Parent, Store};
use super::{Phase, describe, name_of, take_up};
use crate::error::{Error, Result};
use crate::loss::PreferenceLoss;
use crate::model::Gpt;
use crate::reward::RewardModel;
use crate::table::Table;
use crate::train::{Change, History, Origin, Outcome, Progress, Recipe, TrainConfig, progress_line};

/// A run that goes on in its own thread. Dropping the handle does not end the run: [`Pausable::stop`] does.
///
/// # Example
/// ```
/// use hhalign::{batch::TokenizedPairs, data::Dataset, live, live::Pausable, model::{Gpt, GptConfig}, tokenize::Tokenizer, train::Sft};
/// live::set_runs_folder(std::env::temp_dir().join(format!("hhalign-doc-{}", std::process::id())));
/// let data = Dataset::embedded(1, 40)?;
/// let tokenizer = Tokenizer::train(&data.pairs, 300)?;
/// let pairs = TokenizedPairs::new(&data.pairs, &tokenizer, 128)?;
/// let config = GptConfig { vocab_size: 300, block_size: 128, n_layer: 1, n_head: 2, n_embd: 16, dropout: 0.0, layer_norm_epsilon: 1e-5 };
/// let model = Gpt::new(config, 1)?;
/// let mut sft = Sft::default();
/// (sft.train.max_steps, sft.train.warmup_steps, sft.train.batch_size) = (4, 1, 4);
/// let run = sft.start(&model, &pairs, &pairs)?;
/// run.pause();
/// run.resume();
/// assert_eq!(run.finish()?.steps, 4);
/// # std::fs::remove_dir_all(live::runs_folder()).unwrap();
/// # Ok::<(), hhalign::error::Error>(())
/// ```
#[derive(Clone)]
pub struct Run {
    pub(super) shared: Arc<Shared>,
    note: String,
}

/// What can be held and let go: a run, or a sweep of runs.
pub trait Pausable {
    /// Holds the work: the passes under way end, no other begins. Everything may be read meanwhile.
    fn pause(&self);
    /// Lets it go on.
    fn resume(&self);
    /// Ends it after the step under way, with a checkpoint; starting it again goes on from there.
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

/// What a fork may do differently from the run that it leaves; β and loss are those of a DPO run.
#[derive(Debug, Clone)]
pub struct Branch {
    /// How it goes through its data.
    pub train: TrainConfig,
    /// β.
    pub beta: f64,
    /// Which preference loss.
    pub loss: PreferenceLoss,
}

impl Run {
    pub(super) fn new(shared: Arc<Shared>, note: String) -> Self {
        Self { shared, note }
    }

    /// Takes up a run by its name in [`super::runs_folder`], or by the path of its folder: one that was interrupted goes
    /// on from its last checkpoint and ends with the very bits of the uninterrupted run.
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

    /// All runs in [`super::runs_folder`], and how each of them stands.
    ///
    /// # Errors
    /// A run's description cannot be read.
    pub fn list() -> Result<Table> {
        super::list(&super::runs_folder())
    }

    /// Removes a run from disk, so that its next start begins from its first step.
    ///
    /// # Errors
    /// No such run, or one that is going on.
    pub fn delete(name: &str) -> Result<()> {
        super::delete(&super::runs_folder(), name)
    }

    /// Its name, which follows from all that decides its numbers.
    pub fn name(&self) -> String {
        self.shared.name.clone()
    }

    /// What it is doing.
    pub fn phase(&self) -> Phase {
        self.shared.control().phase
    }

    /// How this handle came to its run: `goes on from step 40`, `had finished before`; empty where the run began with it.
    pub fn note(&self) -> String {
        self.note.clone()
    }

    /// What ended it, where that was an error or a panic.
    pub fn error(&self) -> Option<Error> {
        self.shared.control().error.clone()
    }

    /// Steps taken.
    pub fn step(&self) -> usize {
        self.shared.progress().map_or(0, |p| p.state.step)
    }

    /// What it has logged so far.
    pub fn history(&self) -> History {
        self.shared.progress().map(|p| p.state.history.clone()).unwrap_or_default()
    }

    /// A frozen copy of its present weights.
    ///
    /// # Errors
    /// A failure of the tensor library.
    pub fn model(&self) -> Result<Gpt> {
        let _between_steps = self.shared.synced_progress();
        self.shared.model.freeze()
    }

    /// A copy of the weights with the lowest held-out loss so far.
    ///
    /// # Errors
    /// Nothing was evaluated yet.
    pub fn best_model(&self) -> Result<Gpt> {
        let progress = self.shared.progress();
        let best = progress.as_ref().map(|p| &p.best).filter(|best| !best.is_empty()).ok_or_else(|| {
            Error::new("no held-out loss was measured yet", self.phase().to_string(), "wait a little: run.wait(5.0)")
        })?;
        Gpt::from_parameters(self.shared.model.config.clone(), best.clone(), false)
    }

    /// The reward model of the best step so far; as [`RewardModel::train`] gives it where the run has ended.
    ///
    /// # Errors
    /// A run of another kind, or nothing was evaluated yet.
    pub fn reward_model(&self) -> Result<RewardModel> {
        let Recipe::Reward(config) = self.shared.recipe() else {
            let fix = "RewardConfig::start begins one";
            return Err(Error::new("this run trains no reward model", self.shared.recipe().kind(), fix));
        };
        let early = self.phase() == Phase::Finished && self.step() < config.train.max_steps;
        let outcome = self.shared.progress().map(|progress| progress.outcome(self.shared.recipe(), early));
        let outcome = outcome.ok_or_else(|| {
            Error::new("the run has not begun yet", self.phase().to_string(), "wait a little: run.wait(5.0)")
        })?;
        RewardModel::from_outcome(config, &self.shared.model, outcome, self.shared.sources.pairs.max_length)
    }

    /// β in force, which may have been changed on the way; `None` for SFT and reward models.
    pub fn beta(&self) -> Option<f64> {
        let mut recipe = self.shared.recipe().clone();
        if let Some(progress) = self.shared.progress() {
            recipe.apply(&progress.state.changes);
        }
        recipe.beta()
    }

    /// Waits for the end and gives the outcome.
    ///
    /// # Errors
    /// The error that ended it; a paused run, which would never end.
    pub fn finish(&self) -> Result<Outcome> {
        if self.phase() == Phase::Paused {
            return Err(Error::new("the run is paused", self.progress_line(), "let it go on: run.resume()"));
        }
        while self.phase().is_active() {
            self.shared.wait_for_change(Duration::from_millis(500));
        }
        if let Some(error) = self.error() {
            return Err(error.at(&self.shared.name));
        }
        let progress = self.shared.progress().expect("a run that ended without an error has begun");
        let early = progress.state.step < self.shared.recipe().train().max_steps && self.phase() == Phase::Finished;
        Ok(progress.outcome(self.shared.recipe(), early))
    }

    /// Waits until the run has taken so many steps, or has ended, or is paused; returns the steps taken.
    pub fn wait_for_step(&self, step: usize) -> usize {
        while self.step() < step && matches!(self.phase(), Phase::Preparing | Phase::Training) {
            self.shared.wait_for_change(Duration::from_millis(100));
        }
        self.step()
    }

    /// Waits so many seconds, or until the end (or not at all for a paused run), and prints whole lines of progress: every
    /// other second at first, more seldom where the end is far.
    pub fn wait(&self, seconds: f64) {
        let begin = Instant::now();
        let left = || (seconds - begin.elapsed().as_secs_f64()).max(0.0);
        if !self.note.is_empty() {
            println!("{}: {}", self.shared.name, self.note);
        }
        let (mut said, mut next) = (String::new(), 0.0);
        let paused = self.phase() == Phase::Paused;
        while self.phase().is_active() && left() > 0.0 && !paused {
            self.shared.wait_for_change(Duration::from_secs_f64(left().min(0.25)));
            if begin.elapsed().as_secs_f64() >= next {
                let line = self.progress_line();
                if line != said && self.phase().is_active() {
                    println!("{line}");
                }
                // Some twenty lines for a run, whether it takes a minute or a day.
                let pause = (self.seconds_left().unwrap_or(0.0).min(left()) / 20.0).max(2.0);
                (said, next) = (line, begin.elapsed().as_secs_f64() + pause);
            }
        }
        let line = self.progress_line();
        if line != said {
            println!("{line}");
        }
    }

    /// One line: step, metrics, rate, time left, and the loss as a sparkline.
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
        format!("{line}{phase}  {}", super::views::sparkline(&losses, 16))
    }

    /// Another peak of the learning rate from the next step on; the schedule keeps its shape. It is written into the
    /// history, and figures mark it.
    ///
    /// # Errors
    /// A rate that is not positive, or a run that has ended.
    pub fn set_lr(&self, learning_rate: f64) -> Result<()> {
        TrainConfig { learning_rate, ..self.shared.recipe().train().clone() }.check()?;
        self.shared.request(Change::LearningRate(learning_rate))
    }

    /// Another β from the next step on, marked likewise.
    ///
    /// # Errors
    /// A β out of range, a run without one, or a run that has ended.
    pub fn set_beta(&self, beta: f64) -> Result<()> {
        match self.shared.recipe() {
            Recipe::Sft(_) => {
                Err(Error::new("supervised fine-tuning has no beta", beta.to_string(), "set it on a DPO run"))
            }
            Recipe::Reward(_) => Err(Error::new("a reward model has no beta", beta.to_string(), "set it on a DPO run")),
            Recipe::Dpo(dpo) => {
                dpo.loss.check(beta)?;
                self.shared.request(Change::Beta(beta))
            }
        }
    }

    /// A second run that begins with this one's weights, optimiser and place in the data, and goes its own way from
    /// there; this one goes on as before. [`super::overlay`] draws both.
    ///
    /// Where this run has ended, and a fork with the same changes was made of it before, that fork is taken up: so a
    /// notebook that is run again finds its forks as it finds its runs.
    ///
    /// # Errors
    /// A setting out of range, a fork that would end before it begins, or a run that has not begun yet.
    ///
    /// # Example
    /// ```no_run
    /// # use hhalign::live::Run;
    /// # fn example(run: Run) -> hhalign::error::Result<()> {
    /// let bolder = run.fork(|branch| branch.beta = 0.02)?;
    /// # Ok(()) }
    /// ```
    pub fn fork(&self, change: impl FnOnce(&mut Branch)) -> Result<Self> {
        let shared = &self.shared;
        let ended = !self.phase().is_active();
        let (model, progress) = {
            let between_steps = shared.synced_progress().ok_or_else(|| {
                Error::new("the run has not begun yet", self.phase().to_string(), "wait a little: run.wait(5.0)")
            })?;
            (shared.model.fork()?, (*between_steps).clone())
        };
        let recipe = self.branched(&progress, change)?;
        let parent =
            Parent { name: self.name(), step: progress.state.step, marks: progress.state.history.marks.clone() };
        let runs = super::runs_folder();
        if ended && let Some(name) = super::fork_of(&runs, &parent, &recipe) {
            return super::resume(&runs, &name);
        }
        if recipe.train().max_steps < parent.step {
            let got = format!("max_steps {} at step {}", recipe.train().max_steps, parent.step);
            return Err(Error::new("the fork would end before it begins", got, "raise branch.train.max_steps"));
        }
        let progress = recipe.branch_from(progress, &shared.sources, &format!("fork of {}", parent.name))?;
        let weights = model.hash()?;
        let origin = Origin::Fork { parent: parent.name.clone(), step: parent.step, weights };
        let identity = recipe.identity(&shared.sources, origin)?;
        let note = format!("fork of {} at step {}", parent.name, parent.step);
        let manifest = describe(recipe, &shared.sources, &model, &identity, Some(parent));
        let name = name_of(&manifest.recipe, &identity);
        let store = Store::new(&runs, &name);
        let new = store.checkpoints().is_empty();
        if new {
            store.describe(&manifest, &shared.sources)?;
            store.save(&model, &progress)?;
        }
        let fork = take_up(&runs, name, manifest, shared.sources.clone(), || Ok(model))?;
        Ok(if new { Self { note, ..fork } } else { fork })
    }

    /// The run's settings as they are now in force, with a branch's changes.
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
            Recipe::Dpo(dpo) => (dpo.train, dpo.beta, dpo.loss) = (branch.train, branch.beta, branch.loss),
            Recipe::Sft(_) | Recipe::Reward(_) if (branch.beta, branch.loss) != (beta, loss) => {
                let what = match recipe.kind() {
                    "sft" => "supervised fine-tuning has neither beta nor loss to change",
                    _ => "a reward model has neither beta nor loss to change",
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
