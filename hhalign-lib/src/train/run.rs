//! The loop that SFT and DPO share: batches, gradients, schedule, evaluation, early stopping, and who may look on.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use candle_core::Tensor;

use super::TrainConfig;
use super::engine::Engine;
use super::history::History;
use super::objective::Objective;
use super::state::{Change, Progress, State};
use super::step::Step;
use crate::error::{Error, Result};
use crate::model::Gpt;
use crate::optim::{AdamW, cosine_schedule};
use crate::parallel::{self, Gate};

/// A finished run: its history, its best moment, and how it ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Everything that was logged.
    pub history: History,
    /// The step with the lowest held-out loss, and that loss.
    pub best: (usize, f64),
    /// The parameters at that step, by name.
    pub best_parameters: BTreeMap<String, Tensor>,
    /// Steps taken.
    pub steps: usize,
    /// Whether patience ended it.
    pub stopped_early: bool,
    /// Wall-clock seconds of all its parts.
    pub seconds: f64,
    /// Tokens that went through the model in training.
    pub tokens: f64,
}

/// At what moment a run may be saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// Before the first step of this process.
    Begin,
    /// Between two steps.
    Step,
    /// After a setting was changed: the change must not be lost.
    Changed,
    /// After the last step, or where it was stopped.
    End,
}

/// What is wished of a run between two steps.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) changes: Vec<Change>,
    pub(crate) stop: bool,
}

/// Who looks on: asked for wishes between two steps, shown the run where it may be saved.
pub(crate) trait Observer: Sync {
    /// What holds back the passes of a paused run.
    fn gate(&self) -> Option<Arc<dyn Gate>> {
        None
    }
    /// Returns when the run may go on, with what is wished of it.
    fn wishes(&self) -> Wishes {
        Wishes::default()
    }
    /// Seconds that the run was held back so far.
    fn idle_seconds(&self) -> f64 {
        0.0
    }
    /// Whether somebody waits for the weights, or the run is about to pause: they must be up to date then.
    fn is_looked_at(&self) -> bool {
        false
    }
    /// Told whether the weights on this processor lag behind those of a GPU.
    fn lags(&self, _behind: bool) {}
    /// Whether `keep` would read weights now.
    fn will_keep(&self, progress: &Progress, occasion: Occasion) -> bool;
    /// A moment at which the run may be saved and shown.
    fn keep(&self, model: &Gpt, progress: &Progress, occasion: Occasion) -> Result<()>;
}

/// Who follows a run that `fit` makes: prints a line at every record, and writes the checkpoint that the config names.
struct Plain<'a> {
    config: &'a TrainConfig,
    name: &'static str,
    headline: &'static [&'static str],
}

impl Observer for Plain<'_> {
    fn will_keep(&self, progress: &Progress, occasion: Occasion) -> bool {
        let due = occasion == Occasion::End || progress.state.step.is_multiple_of(self.config.checkpoint_every);
        self.config.checkpoint.is_some() && occasion != Occasion::Begin && due
    }

    fn keep(&self, model: &Gpt, progress: &Progress, occasion: Occasion) -> Result<()> {
        let (config, state) = (self.config, &progress.state);
        if occasion == Occasion::Begin {
            return Ok(());
        }
        let last = state.history.records.last();
        if config.progress && last.is_some_and(|r| r.step == state.step && r.metrics.contains_key("loss")) {
            println!("{}", progress_line(self.name, self.headline, state, state.seconds_left()));
        }
        match &config.checkpoint {
            Some(path) if self.will_keep(progress, occasion) => progress.save(path, model),
            _ => Ok(()),
        }
    }
}

/// Runs to the end in this thread.
pub(super) fn fit(
    objective: &mut dyn Objective,
    config: &TrainConfig,
    model: &Gpt,
    resume: Option<&Path>,
) -> Result<Outcome> {
    let progress = RwLock::new(begin(objective, config, model, resume)?);
    let plain = Plain { config, name: objective.name(), headline: objective.headline() };
    follow(objective, config, model, &progress, &plain)
}

/// Checks that a run can begin, and gives its state: a fresh one, or that of a checkpoint, which goes into `model`.
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
            "use Gpt::fork for a copy that can",
        ));
    }
    let data = objective.data();
    if data.is_empty() {
        return Err(Error::new("no pair to train on", "0 pairs", "pass training pairs"));
    }
    if objective.held_out().is_empty() {
        return Err(Error::new("no pair to watch the run on", "0 held-out pairs", "pass held-out pairs"));
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
    Ok(Progress { state, optimizer: AdamW::new(config.adamw.clone(), &model.config), best: BTreeMap::new() })
}

/// Takes steps until the end, early stopping or a wish. `progress` and the weights change under its lock only, so that
/// another thread may read both at any time.
pub(super) fn follow(
    objective: &mut dyn Objective,
    config: &TrainConfig,
    model: &Gpt,
    progress: &RwLock<Progress>,
    observer: &dyn Observer,
) -> Result<Outcome> {
    let read = || progress.read().unwrap_or_else(PoisonError::into_inner);
    let write = || progress.write().unwrap_or_else(PoisonError::into_inner);
    let (clock, seconds_before) = (Instant::now(), read().state.seconds);
    let seconds = || seconds_before + clock.elapsed().as_secs_f64() - observer.idle_seconds();
    let peak_rate = Cell::new(config.learning_rate);
    let apply = |objective: &mut dyn Objective, change: Change| match change {
        Change::Beta(beta) => objective.set_beta(beta),
        Change::LearningRate(rate) => {
            peak_rate.set(rate);
            Ok(())
        }
    };
    let earlier = read().state.changes.clone();
    earlier.into_iter().try_for_each(|change| apply(objective, change))?;
    let mut engine = Engine::new(config, model, &read().optimizer)?;
    let up_to_date = |engine: &mut Engine| {
        engine.write_all(model, &mut write().optimizer)?;
        observer.lags(false);
        Ok::<_, Error>(())
    };
    // The batches of an epoch, and which epoch.
    let (mut order, mut ordered) = (vec![], None);
    let end = config.stop_at.map_or(config.max_steps, |s| s.min(config.max_steps));
    observer.keep(model, &read(), Occasion::Begin)?;
    let mut begun = false;
    let mut stopped_early;
    loop {
        let (step, evaluated) = (read().state.step, read().state.evaluated_at);
        if evaluated != Some(step) && (step.is_multiple_of(config.eval_every) || step == config.max_steps) {
            up_to_date(&mut engine)?;
            let metrics = parallel::behind(observer.gate(), || objective.evaluate(model, &config.compute))?;
            write().evaluated(metrics, model)?;
        }
        stopped_early = config.patience.is_some_and(|p| read().state.evaluations_without_gain >= p);
        if observer.is_looked_at() {
            up_to_date(&mut engine)?;
        }
        let mut wishes = observer.wishes();
        let ended = step >= end || stopped_early || wishes.stop;
        if !wishes.changes.is_empty() {
            for change in wishes.changes.drain(..) {
                apply(objective, change)?;
                write().record(change);
            }
            up_to_date(&mut engine)?;
            observer.keep(model, &read(), Occasion::Changed)?;
        }
        if ended || begun {
            let occasion = if ended { Occasion::End } else { Occasion::Step };
            if ended || observer.will_keep(&read(), occasion) {
                up_to_date(&mut engine)?;
            }
            observer.keep(model, &read(), occasion)?;
        }
        if ended {
            break;
        }
        begun = true;
        let per_epoch = objective.data().len().div_ceil(config.batch_size);
        let (epoch, place) = ((step / per_epoch) as u64, step % per_epoch);
        if ordered != Some(epoch) {
            (order, ordered) = (objective.data().epoch(config.batch_size, config.seed, epoch), Some(epoch));
        }
        let batch = &order[place];
        let rate = cosine_schedule(step, config.warmup_steps, config.max_steps, peak_rate.get(), config.min_lr_ratio);
        let log = (step + 1).is_multiple_of(config.log_every) || step == 0 || step + 1 == config.max_steps;
        let one = Step { objective, config, model, batch, number: step, log };
        let (norm, mut metrics) = parallel::behind(observer.gate(), || engine.gradients(&one))?;
        let mut progress = write();
        engine.apply(model, &mut progress.optimizer, norm, config.max_grad_norm, rate)?;
        observer.lags(engine.lags());
        let state = &mut progress.state;
        state.step += 1;
        state.tokens += objective.tokens(batch) as f64;
        state.seconds = seconds();
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
            if let Some(megabytes) = engine.gpu_memory_mb()? {
                metrics.add("gpu_memory_mb", megabytes, 1.0);
            }
            state.history.log(state.step, metrics.means(""));
        }
    }
    write().state.seconds = seconds();
    let outcome = read().outcome(stopped_early);
    Ok(outcome)
}

impl Progress {
    /// What a run that ended here amounts to.
    pub(crate) fn outcome(&self, stopped_early: bool) -> Outcome {
        let state = &self.state;
        Outcome {
            best: state.best.unwrap_or((state.step, f64::NAN)),
            best_parameters: self.best.clone(),
            steps: state.step,
            stopped_early,
            seconds: state.seconds,
            tokens: state.tokens,
            history: state.history.clone(),
        }
    }

    fn evaluated(&mut self, metrics: Vec<(String, f64)>, model: &Gpt) -> Result<()> {
        let state = &mut self.state;
        let loss = metrics.iter().find(|m| m.0 == "eval_loss").expect("every objective evaluates its loss").1;
        if !loss.is_finite() {
            return Err(Error::new(
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
            self.best =
                model.parameters().iter().map(|(n, t)| Ok((n.clone(), t.copy()?.detach()))).collect::<Result<_>>()?;
        } else {
            state.evaluations_without_gain += 1;
        }
        Ok(())
    }
}

/// The most memory that this process has held so far, in MB; known on Linux.
fn peak_memory_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some((line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0).round())
}

impl State {
    /// Seconds left at the pace so far; `None` before the first step.
    pub(crate) fn seconds_left(&self) -> Option<f64> {
        let pace = self.seconds / self.step.max(1) as f64;
        (self.step > 0).then_some(self.config.max_steps.saturating_sub(self.step) as f64 * pace)
    }
}

/// A time such as `12:30`.
pub(crate) fn clock(seconds: f64) -> String {
    format!("{}:{:02}", seconds as u64 / 60, seconds as u64 % 60)
}

/// A line such as `dpo  step   20/80  loss 0.612  41205 tokens/s  left 0:07`.
pub(crate) fn progress_line(name: &str, headline: &[&str], state: &State, seconds_left: Option<f64>) -> String {
    let left = seconds_left.map_or(String::new(), |seconds| format!("  left {}", clock(seconds)));
    let shown: Vec<String> =
        headline.iter().filter_map(|name| Some(format!("{name} {:.3}", state.history.last(name)?))).collect();
    format!(
        "{name}  step {:>4}/{}  {}  {:.0} tokens/s{left}",
        state.step,
        state.config.max_steps,
        shown.join("  "),
        state.tokens / state.seconds.max(1e-9),
    )
}
