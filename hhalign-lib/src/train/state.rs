//! A run's checkpoint: weights, best weights, optimiser, cursor, history and config in one file.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{History, TrainConfig};
use crate::checkpoint::{read_metadata, read_tensors, write_tensors};
use crate::error::{Error, Result};
use crate::model::{Gpt, GptConfig};
use crate::optim::AdamW;

/// What a run is at a step, besides its tensors. The step is the data cursor and the state of every random stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct State {
    /// `sft` or `dpo` with its settings, as one text: two runs go together when it is equal.
    pub(super) objective: String,
    pub(super) config: TrainConfig,
    /// The model the weights belong to: the same shapes may hide another number of heads or another dropout.
    pub(super) model: GptConfig,
    /// Hash of the training pairs' ids.
    pub(super) data: String,
    pub(super) step: usize,
    pub(super) tokens: f64,
    pub(super) seconds: f64,
    pub(super) best: Option<(usize, f64)>,
    pub(super) evaluations_without_gain: usize,
    pub(super) history: History,
}

pub(super) struct Saved {
    pub(super) state: State,
    pub(super) optimizer: AdamW,
    pub(super) best: BTreeMap<String, Tensor>,
}

const STATE: &str = "hhalign_run";

pub(super) fn save(
    path: &Path,
    state: &State,
    model: &Gpt,
    optimizer: &AdamW,
    best: &BTreeMap<String, Tensor>,
) -> Result<()> {
    let (first, second) = (optimizer.moments(0)?, optimizer.moments(1)?);
    let groups = [("model/", model.parameters()), ("best/", best), ("adam_m/", &first), ("adam_v/", &second)];
    let tensors = groups
        .iter()
        .flat_map(|(prefix, group)| group.iter().map(move |(name, t)| (format!("{prefix}{name}"), t.clone())))
        .collect();
    let metadata = HashMap::from([(STATE.to_string(), serde_json::to_string(state)?)]);
    write_tensors(path, &tensors, metadata)
}

/// Reads a checkpoint into `model`; `objective`, `config` and `data` must be those it was written with.
pub(super) fn load(path: &Path, model: &Gpt, objective: &str, config: &TrainConfig, data: &str) -> Result<Saved> {
    let metadata = read_metadata(path)?;
    let text = metadata.get(STATE).ok_or_else(|| {
        Error::new(
            "not a run's checkpoint",
            "a safetensors file without a run in it",
            "give the file that TrainConfig::checkpoint named",
        )
        .at(path.display())
    })?;
    let state: State = serde_json::from_str(text).map_err(|e| Error::from(e).at(path.display()))?;
    // Where, when and how often to save or pause, and whether to print, may change; what decides the numbers may not.
    let comparable = |c: &TrainConfig| TrainConfig {
        progress: true,
        checkpoint: None,
        checkpoint_every: 1,
        stop_at: None,
        ..c.clone()
    };
    let differs = |what: &str, then: &str, now: &str| {
        Err(Error::new(
            format!("the checkpoint belongs to another {what}"),
            format!("saved with {then}, now {now}"),
            "resume with the settings it was saved with, or start afresh",
        ))
    };
    if state.objective != objective {
        return differs("objective", &state.objective, objective);
    }
    if state.model != model.config {
        return differs("model", &format!("{:?}", state.model), &format!("{:?}", model.config));
    }
    let (then, now) = (serde_json::to_value(comparable(&state.config))?, serde_json::to_value(comparable(config))?);
    if then != now {
        let changed = then.as_object().into_iter().flatten().filter(|(name, value)| now[name.as_str()] != **value);
        let names: Vec<&String> = changed.map(|(name, _)| name).collect();
        let of = |config: &serde_json::Value| {
            names.iter().map(|n| format!("{n} = {}", config[n.as_str()])).collect::<Vec<_>>().join(", ")
        };
        return differs("training config", &of(&then), &of(&now));
    }
    if state.data != data {
        return differs("data set or tokenizer", &state.data, data);
    }
    let mut groups: BTreeMap<String, BTreeMap<String, Tensor>> = BTreeMap::new();
    for (name, tensor) in read_tensors(path)? {
        let (group, name) = name
            .split_once('/')
            .ok_or_else(|| Error::new("an unknown tensor in a checkpoint", name.as_str(), "write it again"))?;
        groups.entry(group.into()).or_default().insert(name.into(), tensor);
    }
    let mut take = |group: &str| groups.remove(group).unwrap_or_default();
    model.assign(&take("model"))?;
    let optimizer = AdamW::restore(config.adamw.clone(), &model.config, state.step, &take("adam_m"), &take("adam_v"))?;
    Ok(Saved { state, optimizer, best: take("best") })
}
