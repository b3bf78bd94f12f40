//! The training loop of a reward model.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::step::Step;
use super::store::Store;
use super::{BOTH, Judged, RewardConfig, RewardModel, RewardTraining, cut, rewards, rewards_on};
use crate::batch::{TokenizedPair, TokenizedPairs};
use crate::error::{Error, Result};
use crate::gradients::clip_scale;
use crate::model::Gpt;
use crate::optim::{AdamW, VectorAdamW, cosine_schedule};
use crate::train::{Engine, History, clock};

/// Where a training stands between two steps, besides its tensors.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) step: usize,
    pub(super) tokens: f64,
    pub(super) seconds: f64,
    pub(super) best: Option<(usize, f64)>,
    pub(super) evaluations_without_gain: usize,
    pub(super) evaluated_at: Option<usize>,
    pub(super) history: History,
}

/// Weights of a moment: the model's and the head's.
#[derive(Clone)]
pub(super) struct Snapshot {
    pub(super) parameters: BTreeMap<String, Tensor>,
    pub(super) head: Vec<f32>,
}

/// A training between two steps.
pub(super) struct Progress {
    pub(super) state: State,
    pub(super) gpt: Gpt,
    pub(super) head: Vec<f32>,
    pub(super) optimizer: AdamW,
    pub(super) head_optimizer: VectorAdamW,
    pub(super) best: Snapshot,
}

impl Progress {
    fn begin(config: &RewardConfig, start: &Gpt) -> Result<Self> {
        let gpt = start.fork()?;
        // A head of zeros: before the first step every reward is 0 and the loss ln 2.
        let head = vec![0.0; gpt.config.n_embd];
        let adamw = &config.train.adamw;
        Ok(Self {
            state: State::default(),
            optimizer: AdamW::new(adamw.clone(), &gpt.config),
            head_optimizer: VectorAdamW::new(adamw.clone(), head.len()),
            best: Snapshot { parameters: BTreeMap::new(), head: vec![] },
            gpt,
            head,
        })
    }

    fn snapshot(&self) -> Result<Snapshot> {
        let copies = self.gpt.parameters().iter().map(|(name, t)| Ok((name.clone(), t.copy()?.detach())));
        Ok(Snapshot { parameters: copies.collect::<Result<_>>()?, head: self.head.clone() })
    }
}

impl RewardModel {
    /// Trains a reward model on `pairs`, beginning with the weights of `start`; the weights with the lowest loss on
    /// `watched` are kept.
    ///
    /// Since the best moment is chosen on `watched`, a figure that is to be reported needs pairs that are in neither. With
    /// a `cache` folder a training that was made before is read from it, and one that was interrupted goes on from its last
    /// checkpoint: both under a hash of settings, pairs, first weights and version.
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
        check(config, start, pairs, watched)?;
        let store = cache.map(|folder| Store::new(folder, config, start, pairs, watched)).transpose()?;
        if let Some(model) = store.as_ref().and_then(|store| store.finished(config, start, pairs.max_length)) {
            return Ok(model);
        }
        let limits = config.limits(pairs.max_length);
        let (pairs, watched) = (cut(pairs, limits), cut(watched, limits));
        let mut progress = match store.as_ref().and_then(|store| store.checkpoint(config, start)) {
            Some(progress) => progress,
            None => Progress::begin(config, start)?,
        };
        let stopped_early = follow(config, &pairs, &watched, &mut progress, store.as_ref())?;
        let gpt = Gpt::from_parameters(start.config.clone(), progress.best.parameters, false)?;
        let mut model = Self::from_parts(&gpt, progress.best.head, limits)?;
        let state = progress.state;
        model.compute = config.train.compute.clone();
        model.training = Some(RewardTraining {
            best: state.best.expect("the first evaluation has a best"),
            steps: state.step,
            stopped_early,
            seconds: state.seconds,
            tokens: state.tokens,
            history: state.history,
        });
        match store {
            Some(store) if state.step == config.train.max_steps || stopped_early => store.finish(&model)?,
            _ => {}
        }
        Ok(model)
    }
}

fn check(config: &RewardConfig, start: &Gpt, pairs: &TokenizedPairs, watched: &TokenizedPairs) -> Result<()> {
    config.check()?;
    if pairs.is_empty() || watched.is_empty() {
        let got = format!("{} pairs to train on, {} to watch", pairs.len(), watched.len());
        return Err(Error::new("a reward model needs pairs", got, "pass both; take the second from the training side"));
    }
    let (longest, block) = (pairs.max_length.max(watched.max_length), start.config.block_size);
    if longest > block {
        let got = format!("max_length {longest}, block_size {block}");
        return Err(Error::new("the pairs are longer than the model's block", got, "tokenise with block_size"));
    }
    if start.config.dropout > 0.0 {
        let fix = "set dropout to 0 in the model's config; token_dropout is what there is instead";
        return Err(Error::new("a reward model is trained without dropout", start.config.dropout.to_string(), fix));
    }
    Ok(())
}

/// Takes steps until the end or early stopping; true where patience ended it.
fn follow(
    config: &RewardConfig,
    pairs: &TokenizedPairs,
    watched: &TokenizedPairs,
    progress: &mut Progress,
    store: Option<&Store>,
) -> Result<bool> {
    let train = &config.train;
    let (began, seconds_before) = (Instant::now(), progress.state.seconds);
    let end = train.stop_at.map_or(train.max_steps, |s| s.min(train.max_steps));
    let per_epoch = pairs.len().div_ceil(train.batch_size);
    let (mut order, mut ordered) = (vec![], None);
    let mut engine = Engine::new(train, &progress.gpt, &progress.optimizer)?;
    loop {
        let step = progress.state.step;
        let due = step.is_multiple_of(train.eval_every) || step == train.max_steps;
        if due && progress.state.evaluated_at != Some(step) {
            evaluate(config, watched, progress, &mut engine)?;
        }
        if train.progress && progress.state.history.records.last().is_some_and(|r| r.step == step) {
            println!("{}", line(train.max_steps, &progress.state));
        }
        let stopped_early = train.patience.is_some_and(|p| progress.state.evaluations_without_gain >= p);
        progress.state.seconds = seconds_before + began.elapsed().as_secs_f64();
        let ended = step >= end || stopped_early;
        if let Some(store) = store
            && (ended || (step > 0 && step.is_multiple_of(train.checkpoint_every)))
        {
            engine.write_all(&progress.gpt, &mut progress.optimizer)?;
            store.save(progress)?;
        }
        if ended {
            return Ok(stopped_early);
        }
        let epoch = (step / per_epoch) as u64;
        if ordered != Some(epoch) {
            (order, ordered) = (pairs.epoch(train.batch_size, train.seed, epoch), Some(epoch));
        }
        let batch: &Vec<usize> = &order[step % per_epoch];
        let rate = cosine_schedule(step, train.warmup_steps, train.max_steps, train.learning_rate, train.min_lr_ratio);
        let one = Step { config, pairs, gpt: &progress.gpt, head: &progress.head, batch, number: step };
        let (of_model, report) = engine.gradients(&one)?;
        let of_head: f64 = report.head.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let norm = (of_model.powi(2) + of_head).sqrt();
        engine.apply(&progress.gpt, &mut progress.optimizer, norm, train.max_grad_norm, rate)?;
        let scale = clip_scale(norm, train.max_grad_norm);
        progress.head_optimizer.step(&mut progress.head, &report.head, scale, rate);
        let mut metrics = report.metrics();
        let state = &mut progress.state;
        state.step += 1;
        state.tokens += pairs.n_tokens(batch, BOTH) as f64;
        state.seconds = seconds_before + began.elapsed().as_secs_f64();
        if state.step.is_multiple_of(train.log_every) || step == 0 || state.step == train.max_steps {
            metrics.extend([("grad_norm".into(), norm), ("learning_rate".into(), rate)]);
            metrics.extend([("seconds".into(), state.seconds), ("num_tokens".into(), state.tokens)]);
            state.history.log(state.step, metrics);
        }
    }
}

/// Watches: the loss, accuracy and margin on pairs that are not trained on; keeps the weights where the loss is lowest.
fn evaluate(
    config: &RewardConfig,
    watched: &TokenizedPairs,
    progress: &mut Progress,
    engine: &mut Engine,
) -> Result<()> {
    let both = |p: &TokenizedPair| (p.prompt.clone(), vec![p.chosen.clone(), p.rejected.clone()]);
    let sequences: Vec<_> = watched.pairs.iter().map(both).collect();
    let scored = match engine {
        Engine::Cpu { .. } => rewards(&progress.gpt, &progress.head, &config.train.compute, &sequences)?,
        Engine::Gpu(trainer) => rewards_on(&sequences, &progress.head, |packed| trainer.ends_of(packed))?,
    };
    let (chosen, rejected): (Vec<f32>, Vec<f32>) = scored.into_iter().map(|r| (r[0], r[1])).unzip();
    let Judged { loss, accuracy, margin } = Judged::of(&chosen, &rejected);
    let state = &mut progress.state;
    if !loss.is_finite() {
        let fix = "lower learning_rate, or check the weights that the training began with";
        return Err(Error::new(
            format!("the watched loss is not finite at step {}", state.step),
            loss.to_string(),
            fix,
        ));
    }
    let metrics = [("eval_loss", loss), ("eval_accuracy", accuracy), ("eval_margin", margin)];
    state.history.log(state.step, metrics.map(|(name, value)| (name.to_string(), value)));
    state.evaluated_at = Some(state.step);
    if state.best.is_none_or(|b| loss < b.1) {
        (state.best, state.evaluations_without_gain) = (Some((state.step, loss)), 0);
        engine.write_weights(&progress.gpt)?;
        progress.best = progress.snapshot()?;
    } else {
        state.evaluations_without_gain += 1;
    }
    Ok(())
}

/// A line such as `reward  step   20/80  loss 0.612  eval_accuracy 0.581  5205 tokens/s  left 0:07`.
fn line(max_steps: usize, state: &State) -> String {
    let shown = ["loss", "accuracy", "eval_loss", "eval_accuracy"];
    let shown: Vec<String> =
        shown.iter().filter_map(|name| Some(format!("{name} {:.3}", state.history.last(name)?))).collect();
    let pace = state.seconds / state.step.max(1) as f64;
    let left = if state.step > 0 { clock((max_steps - state.step) as f64 * pace) } else { "?".into() };
    let speed = state.tokens / state.seconds.max(1e-9);
    format!("reward  step {:>4}/{max_steps}  {}  {speed:.0} tokens/s  left {left}", state.step, shown.join("  "))
}
