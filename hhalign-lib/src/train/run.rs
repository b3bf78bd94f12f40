//! The loop that SFT and DPO share: batches, gradients, schedule, evaluation, early stopping, checkpoints.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use candle_core::Tensor;

use super::TrainConfig;
use super::history::History;
use super::state::{self, Saved, State};
use super::step::{Spare, Step};
use crate::batch::{Side, TokenizedPairs};
use crate::error::{Error, Result};
use crate::fused::{Compute, Guesses};
use crate::gradients::clip_scale;
use crate::model::Gpt;
use crate::optim::{AdamW, cosine_schedule};

/// Sums and weights by metric name; a mean is taken when they are logged.
#[derive(Default)]
pub(super) struct Metrics(BTreeMap<&'static str, (f64, f64)>);

impl Metrics {
    pub(super) fn add(&mut self, name: &'static str, mean: f64, weight: f64) {
        let entry = self.0.entry(name).or_default();
        *entry = (entry.0 + mean * weight, entry.1 + weight);
    }

    pub(super) fn merge(&mut self, other: Self) {
        for (name, (sum, weight)) in other.0 {
            let entry = self.0.entry(name).or_default();
            *entry = (entry.0 + sum, entry.1 + weight);
        }
    }

    pub(super) fn means(&self, prefix: &str) -> Vec<(String, f64)> {
        self.0.iter().map(|(name, (sum, weight))| (format!("{prefix}{name}"), sum / weight)).collect()
    }
}

/// What the policy made of a pass.
pub(super) struct Scored<'a> {
    /// log π of every reply token, (N), with a gradient: pair by pair, side by side.
    pub(super) token_logps: &'a Tensor,
    /// What it would have said by itself, where it is to be logged.
    pub(super) guesses: Option<&'a Guesses>,
}

/// What is learnt: a loss over some of the training pairs, and an evaluation on the held-out ones.
pub(super) trait Objective: Sync {
    /// `sft` or `dpo`, for lines of progress.
    fn name(&self) -> &'static str;
    /// Everything besides [`TrainConfig`] that decides the numbers, as text.
    fn identity(&self) -> String;
    fn data(&self) -> &TokenizedPairs;
    fn held_out(&self) -> &TokenizedPairs;
    /// The replies of a pair that go through the model.
    fn sides(&self) -> &'static [Side];
    /// This pass's share of the loss of a whole step, so that shares add up whatever the size of a pass.
    fn loss(&self, pass: &[usize], step: &[usize], scored: &Scored<'_>, log: Option<&mut Metrics>) -> Result<Tensor>;
    /// The gradient of the loss with respect to each log π, where it does not depend on their values: (N).
    fn known_slopes(&self, _pass: &[usize], _step: &[usize]) -> Option<Vec<f32>> {
        None
    }
    /// Tokens that go through the model for these pairs.
    fn tokens(&self, indices: &[usize]) -> usize;
    fn evaluate(&self, policy: &Gpt, compute: &Compute) -> Result<Vec<(String, f64)>>;
    /// A check before the first step.
    fn before_first_step(&self, _policy: &Gpt) -> Result<()> {
        Ok(())
    }
    /// The metrics of a progress line.
    fn headline(&self) -> &'static [&'static str];
}

/// A finished run: its history, its best moment, and how it ended.
#[derive(Debug, Clone)]
pub struct Run {
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

pub(super) fn fit(
    objective: &dyn Objective,
    config: &TrainConfig,
    model: &mut Gpt,
    resume: Option<&Path>,
) -> Result<Run> {
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
    let Saved { mut state, mut optimizer, mut best } = match resume {
        Some(path) => state::load(path, model, &objective.identity(), config, &data.hash)?,
        None => fresh(objective, config, model)?,
    };
    let mut stopped_early = config.patience.is_some_and(|p| state.evaluations_without_gain >= p);
    let clock = Instant::now();
    let (seconds_before, first_step) = (state.seconds, state.step);
    let mut order: Option<(u64, Vec<Vec<usize>>)> = None;
    let spare = Spare::default();
    let end = config.stop_at.map_or(config.max_steps, |s| s.min(config.max_steps));
    while state.step < end && !stopped_early {
        let per_epoch = data.len().div_ceil(config.batch_size);
        let (epoch, place) = ((state.step / per_epoch) as u64, state.step % per_epoch);
        if order.as_ref().is_none_or(|o| o.0 != epoch) {
            order = Some((epoch, data.epoch(config.batch_size, config.seed, epoch)));
        }
        let batch = &order.as_ref().expect("just made").1[place];
        let rate = cosine_schedule(
            state.step,
            config.warmup_steps,
            config.max_steps,
            config.learning_rate,
            config.min_lr_ratio,
        );
        let last = state.step + 1 == config.max_steps;
        let log = (state.step + 1).is_multiple_of(config.log_every) || state.step == 0 || last;
        let step = Step { objective, config, model, batch, number: state.step, log };
        let (gradients, mut metrics) = step.gradients(&spare)?;
        let norm = gradients.norm()?;
        if !norm.is_finite() {
            return Err(Error::new(
                format!("the gradient is not finite at step {}", state.step),
                norm.to_string(),
                "lower learning_rate or raise warmup_steps, and start from the last checkpoint",
            ));
        }
        optimizer.step(model, &gradients, clip_scale(norm, config.max_grad_norm), rate)?;
        spare.gradients.give(gradients);
        state.step += 1;
        state.tokens += objective.tokens(batch) as f64;
        state.seconds = seconds_before + clock.elapsed().as_secs_f64();
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
            state.history.log(state.step, metrics.means(""));
        }
        if state.step.is_multiple_of(config.eval_every) || last {
            evaluate(objective, config, model, &mut state, &mut best)?;
            stopped_early = config.patience.is_some_and(|p| state.evaluations_without_gain >= p);
        }
        if log && config.progress {
            print_progress(objective, config, &state, clock.elapsed().as_secs_f64() / (state.step - first_step) as f64);
        }
        if let Some(path) = &config.checkpoint
            && (state.step.is_multiple_of(config.checkpoint_every) || state.step == end || stopped_early)
        {
            state::save(path, &state, model, &optimizer, &best)?;
        }
    }
    state.seconds = seconds_before + clock.elapsed().as_secs_f64();
    Ok(Run {
        best: state.best.expect("every run evaluates before its first step"),
        best_parameters: best,
        steps: state.step,
        stopped_early,
        seconds: state.seconds,
        tokens: state.tokens,
        history: state.history,
    })
}

fn fresh(objective: &dyn Objective, config: &TrainConfig, model: &Gpt) -> Result<Saved> {
    objective.before_first_step(model)?;
    let optimizer = AdamW::new(config.adamw.clone(), &model.config);
    let mut state = State {
        objective: objective.identity(),
        config: config.clone(),
        model: model.config.clone(),
        data: objective.data().hash.clone(),
        step: 0,
        tokens: 0.0,
        seconds: 0.0,
        best: None,
        evaluations_without_gain: 0,
        history: History::default(),
    };
    let mut best = BTreeMap::new();
    evaluate(objective, config, model, &mut state, &mut best)?;
    Ok(Saved { state, optimizer, best })
}

/// The most memory that this process has held so far, in MB; known on Linux.
fn peak_memory_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some((line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0).round())
}

fn evaluate(
    objective: &dyn Objective,
    config: &TrainConfig,
    model: &Gpt,
    state: &mut State,
    best: &mut BTreeMap<String, Tensor>,
) -> Result<()> {
    let metrics = objective.evaluate(model, &config.compute)?;
    let loss = metrics.iter().find(|m| m.0 == "eval_loss").expect("every objective evaluates its loss").1;
    if !loss.is_finite() {
        return Err(Error::new(
            format!("the held-out loss is not finite at step {}", state.step),
            loss.to_string(),
            "lower learning_rate, or check the weights that the run began with",
        ));
    }
    state.history.log(state.step, metrics);
    if state.best.is_none_or(|b| loss < b.1) {
        state.best = Some((state.step, loss));
        state.evaluations_without_gain = 0;
        *best = model.parameters().iter().map(|(n, t)| Ok((n.clone(), t.copy()?.detach()))).collect::<Result<_>>()?;
    } else {
        state.evaluations_without_gain += 1;
    }
    Ok(())
}

fn print_progress(objective: &dyn Objective, config: &TrainConfig, state: &State, seconds_per_step: f64) {
    let left = (config.max_steps - state.step) as f64 * seconds_per_step;
    let shown: Vec<String> = objective
        .headline()
        .iter()
        .filter_map(|name| Some(format!("{name} {:.3}", state.history.records.last()?.metrics.get(*name)?)))
        .collect();
    println!(
        "{}  step {:>4}/{}  {}  {:.0} tokens/s  left {}:{:02}",
        objective.name(),
        state.step,
        config.max_steps,
        shown.join("  "),
        state.tokens / state.seconds.max(1e-9),
        left as u64 / 60,
        left as u64 % 60
    );
}
