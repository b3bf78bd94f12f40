//! The training loop: evaluate if due, apply requests, save if due, take a step.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use super::TrainConfig;
use super::head::{Head, square_sum};
use super::history::History;
use super::objective::Objective;
use super::observer::{ConsoleObserver, Observer, SavePoint};
use super::outcome::Outcome;
use super::recipe::Recipe;
use super::state::{Change, Progress, State};
use super::step::{Report, Step};
use crate::base::error::{Error, Result};
use crate::base::parallel;
use crate::compute::executor;
use crate::compute::executor::{DropoutPlan, Executor};
use crate::compute::gradients::clip_scale;
use crate::compute::optim::{AdamW, cosine_schedule};
use crate::model::Gpt;

/// Trains to the end in this thread.
pub(crate) fn fit(
    objective: &mut dyn Objective,
    recipe: &Recipe,
    model: &Gpt,
    resume: Option<&Path>,
) -> Result<Outcome> {
    let progress = RwLock::new(begin(objective, recipe.train(), model, resume)?);
    train(objective, recipe, model, &progress, &ConsoleObserver { recipe })
}

/// Checks that a run can begin and returns its state: a new one, or that of a checkpoint, whose
/// weights are loaded into `model`.
pub(super) fn begin(
    objective: &dyn Objective,
    config: &TrainConfig,
    model: &Gpt,
    resume: Option<&Path>,
) -> Result<Progress> {
    config.check()?;
    if model.is_frozen() {
        return Err(Error::new(
            "a frozen model cannot be trained",
            "a model made by Gpt::freeze",
            "use Gpt::fork for a copy that can be trained",
        ));
    }
    let data = objective.data();
    if data.is_empty() {
        return Err(Error::new("no pair to train on", "0 pairs", "pass training pairs"));
    }
    if objective.held_out().is_empty() {
        return Err(Error::new(
            "no held-out pair to evaluate on",
            "0 held-out pairs",
            "pass held-out pairs",
        ));
    }
    if data.max_length > model.config.block_size {
        return Err(Error::new(
            "the pairs are longer than the model's block",
            format!("max_length {}, block_size {}", data.max_length, model.config.block_size),
            "tokenise with max_length = block_size",
        ));
    }
    if let Some(path) = resume {
        return Progress::load(path, model, &objective.identity(), config, &data.hash);
    }
    objective.before_first_step(model)?;
    let state = State {
        format: State::FORMAT,
        objective: objective.identity(),
        config: config.clone(),
        model: model.config.clone(),
        data: data.hash.clone(),
        step: 0,
        tokens: 0.0,
        seconds: 0.0,
        best: None,
        evaluations_without_gain: 0,
        evaluated_at: None,
        changes: vec![],
        history: History::default(),
    };
    let head = objective.has_head().then(|| Head::zeros(model.config.n_embd, &config.adamw));
    Ok(Progress {
        state,
        optimizer: AdamW::new(config.adamw.clone(), &model.config),
        best: BTreeMap::new(),
        head,
    })
}

/// Takes steps until the last one, early stopping or a stop request. `progress` and the weights
/// change only under the lock of `progress`, so that another thread may read both at any time.
pub(super) fn train(
    objective: &mut dyn Objective,
    recipe: &Recipe,
    model: &Gpt,
    progress: &RwLock<Progress>,
    observer: &dyn Observer,
) -> Result<Outcome> {
    let config = recipe.train();
    let dropout = DropoutPlan { probability: config.dropout(model), seed: config.seed };
    let before = read(progress).state.seconds;
    let executor =
        executor::for_training(&config.compute, model, &read(progress).optimizer, dropout)?;
    let mut trainer = Trainer {
        objective,
        config,
        model,
        progress,
        observer,
        executor,
        clock: RunClock { begun: Instant::now(), before },
        peak_rate: config.learning_rate,
        epoch: Epoch::default(),
        stopped_early: false,
    };
    trainer.run()?;
    Ok(read(progress).outcome(recipe, trainer.stopped_early))
}

/// A run with everything that a step needs.
struct Trainer<'a> {
    objective: &'a mut dyn Objective,
    config: &'a TrainConfig,
    model: &'a Gpt,
    progress: &'a RwLock<Progress>,
    observer: &'a dyn Observer,
    executor: Box<dyn Executor + 'a>,
    clock: RunClock,
    /// The current peak of the learning rate.
    peak_rate: f64,
    epoch: Epoch,
    /// Whether the run ended by early stopping (`patience`).
    stopped_early: bool,
}

/// The wall-clock time of a run, over all resumed parts.
struct RunClock {
    begun: Instant,
    before: f64,
}

/// The batches of one epoch.
#[derive(Default)]
struct Epoch {
    number: Option<u64>,
    batches: Vec<Vec<usize>>,
}

fn read(progress: &RwLock<Progress>) -> RwLockReadGuard<'_, Progress> {
    progress.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(progress: &RwLock<Progress>) -> RwLockWriteGuard<'_, Progress> {
    progress.write().unwrap_or_else(PoisonError::into_inner)
}

impl Trainer<'_> {
    fn run(&mut self) -> Result<()> {
        let earlier = self.read().state.changes.clone();
        earlier.into_iter().try_for_each(|change| self.apply(change))?;
        self.observer.at_save_point(self.model, &self.read(), SavePoint::Begin)?;
        let mut has_stepped = false;
        loop {
            self.evaluate_if_due()?;
            let ends = self.apply_requests()?;
            if ends || has_stepped {
                self.save_if_due(if ends { SavePoint::End } else { SavePoint::Step })?;
            }
            if ends {
                let seconds = self.seconds();
                write(self.progress).state.seconds = seconds;
                return Ok(());
            }
            self.step()?;
            has_stepped = true;
        }
    }

    fn evaluate_if_due(&mut self) -> Result<()> {
        let (step, evaluated_at) = {
            let progress = self.read();
            (progress.state.step, progress.state.evaluated_at)
        };
        let is_due = step.is_multiple_of(self.config.eval_every) || step == self.config.max_steps;
        if evaluated_at == Some(step) || !is_due {
            return Ok(());
        }
        self.sync()?;
        let head = self.head_weights();
        let (objective, model) = (&*self.objective, self.model);
        // Training with dropout uses the composed model. Evaluation runs without dropout, on the
        // same path that scored the reference.
        let dropout = self.config.dropout(model);
        let mut without_dropout = executor::for_evaluation(&self.config.compute, model, dropout)?;
        let executor = without_dropout.as_deref_mut().unwrap_or(&mut *self.executor);
        let metrics = parallel::with_gate(self.observer.gate(), || {
            objective.evaluate(model, &head, executor)
        })?;
        write(self.progress).evaluated(metrics, self.model)
    }

    /// Applies the requests; returns whether the run ends here.
    fn apply_requests(&mut self) -> Result<bool> {
        let requests = loop {
            if self.observer.wants_weights() {
                self.sync()?;
            }
            // `None` means that the run was paused after the check above. The weights must be
            // synced before it waits, because they may be read during the pause.
            if let Some(requests) = self.observer.requests() {
                break requests;
            }
        };
        let end = self
            .config
            .stop_at
            .map_or(self.config.max_steps, |stop| stop.min(self.config.max_steps));
        // Patience is checked before the changes are applied, because a new β resets the best step.
        self.stopped_early = self.is_out_of_patience();
        let ends = self.read().state.step >= end || self.stopped_early || requests.stop;
        if !requests.changes.is_empty() {
            for change in requests.changes {
                self.apply(change)?;
                write(self.progress).record(change);
            }
            self.sync()?;
            self.observer.at_save_point(self.model, &self.read(), SavePoint::Changed)?;
        }
        Ok(ends)
    }

    fn save_if_due(&mut self, point: SavePoint) -> Result<()> {
        let will_save = point == SavePoint::End || self.observer.will_save(&self.read(), point);
        if will_save {
            self.sync()?;
        }
        self.observer.at_save_point(self.model, &self.read(), point)
    }

    fn step(&mut self) -> Result<()> {
        let config = self.config;
        let step = self.read().state.step;
        let per_epoch = self.order_epoch(step);
        let batch = &self.epoch.batches[step % per_epoch];
        let rate = cosine_schedule(
            step,
            config.warmup_steps,
            config.max_steps,
            self.peak_rate,
            config.min_lr_ratio,
        );
        let log = (step + 1).is_multiple_of(config.log_every)
            || step == 0
            || step + 1 == config.max_steps;
        let head = self.head_weights();
        let work = Step::new(&*self.objective, config, &head, batch, step, log);
        let executor = &mut self.executor;
        let model_norm = parallel::with_gate(self.observer.gate(), || executor.gradients(&work))?;
        let Report { mut metrics, dhead } = work.report();
        let norm = if dhead.is_empty() {
            model_norm
        } else {
            (model_norm.powi(2) + square_sum(&dhead)).sqrt()
        };
        let tokens = self.objective.tokens(batch) as f64;

        let mut progress = write(self.progress);
        let progress = &mut *progress;
        self.executor.apply(&mut progress.optimizer, norm, config.max_grad_norm, rate)?;
        if let Some(head) = &mut progress.head {
            let scale = clip_scale(norm, config.max_grad_norm);
            head.optimizer.step(&mut head.weights, &dhead, scale, rate);
        }
        self.observer.set_stale(self.executor.is_stale());
        let state = &mut progress.state;
        state.step += 1;
        state.tokens += tokens;
        state.seconds = self.seconds();
        if log {
            let speed = (state.tokens / state.seconds.max(1e-9)).round();
            metrics.add("grad_norm", norm, 1.0);
            metrics.add("learning_rate", rate, 1.0);
            metrics.add("num_tokens", state.tokens, 1.0);
            metrics.add("tokens_per_s", speed, 1.0);
            metrics.add("seconds", state.seconds, 1.0);
            if let Some(megabytes) = peak_memory_mb() {
                metrics.add("peak_memory_mb", megabytes, 1.0);
            }
            if let Some(megabytes) = self.executor.gpu_memory_mb()? {
                metrics.add("gpu_memory_mb", megabytes, 1.0);
            }
            state.history.log(state.step, metrics.means(""));
        }
        Ok(())
    }

    /// Prepares the batches of a step's epoch; returns the number of steps in an epoch.
    fn order_epoch(&mut self, step: usize) -> usize {
        let data = self.objective.data();
        let per_epoch = data.len().div_ceil(self.config.batch_size);
        let number = (step / per_epoch) as u64;
        if self.epoch.number != Some(number) {
            let batches = data.epoch(self.config.batch_size, self.config.seed, number);
            self.epoch = Epoch { number: Some(number), batches };
        }
        per_epoch
    }

    fn apply(&mut self, change: Change) -> Result<()> {
        match change {
            Change::Beta(beta) => self.objective.set_beta(beta),
            Change::LearningRate(rate) => {
                self.peak_rate = rate;
                Ok(())
            }
        }
    }

    /// Copies the weights and moments to main memory if the copies there are stale.
    fn sync(&mut self) -> Result<()> {
        let mut progress = write(self.progress);
        self.executor.sync_weights()?;
        self.executor.sync_moments(&mut progress.optimizer)?;
        self.observer.set_stale(false);
        Ok(())
    }

    fn read(&self) -> RwLockReadGuard<'_, Progress> {
        read(self.progress)
    }

    /// Returns the head's weights at this step, or an empty vector if there is no head.
    fn head_weights(&self) -> Vec<f32> {
        self.read().head.as_ref().map(|head| head.weights.clone()).unwrap_or_default()
    }

    fn is_out_of_patience(&self) -> bool {
        self.config
            .patience
            .is_some_and(|patience| self.read().state.evaluations_without_gain >= patience)
    }

    fn seconds(&self) -> f64 {
        self.clock.before + self.clock.begun.elapsed().as_secs_f64() - self.observer.idle_seconds()
    }
}

/// Returns the peak memory of this process in MB, or `None` if not on Linux.
fn peak_memory_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some((line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0).round())
}
