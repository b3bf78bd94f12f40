//! What a run is between two steps, and how that becomes a checkpoint: weights, best weights, optimiser, cursor,
//! history and config in one file.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::history::Mark;
use super::{History, TrainConfig};
use crate::checkpoint::{read_metadata, read_tensors, write_tensors};
use crate::error::{Error, Result};
use crate::model::{Gpt, GptConfig};
use crate::optim::AdamW;

/// A setting that was changed while the run went on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Change {
    LearningRate(f64),
    Beta(f64),
}

impl Change {
    fn text(self) -> String {
        match self {
            Self::LearningRate(rate) => format!("learning rate {rate}"),
            Self::Beta(beta) => format!("beta {beta}"),
        }
    }
}

/// What a run is at a step, besides its tensors. The step is the data cursor and the state of every random stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    /// `sft` or `dpo` with its settings, as one text: two runs go together when it is equal.
    pub(crate) objective: String,
    pub(crate) config: TrainConfig,
    /// The model the weights belong to: the same shapes may hide another number of heads or another dropout.
    pub(crate) model: GptConfig,
    /// Hash of the training pairs' ids.
    pub(crate) data: String,
    pub(crate) step: usize,
    pub(crate) tokens: f64,
    pub(crate) seconds: f64,
    pub(crate) best: Option<(usize, f64)>,
    pub(crate) evaluations_without_gain: usize,
    /// The step of the last evaluation: one that is due and has not been made comes first when a run goes on.
    pub(crate) evaluated_at: Option<usize>,
    /// Settings changed on the way, in the order in which that happened.
    #[serde(default)]
    pub(crate) changes: Vec<Change>,
    pub(crate) history: History,
}

/// A run between two steps.
#[derive(Clone)]
pub(crate) struct Progress {
    pub(crate) state: State,
    pub(crate) optimizer: AdamW,
    pub(crate) best: BTreeMap<String, Tensor>,
}

const STATE: &str = "hhalign_run";

impl Progress {
    /// Writes a change down, so that a resumed run knows it and a figure shows it.
    pub(super) fn record(&mut self, change: Change) {
        let state = &mut self.state;
        state.changes.push(change);
        state.history.marks.push(Mark { step: state.step, text: change.text() });
        if matches!(change, Change::Beta(_)) {
            // Losses under two betas do not compare: the best moment is sought anew.
            (state.best, state.evaluations_without_gain) = (None, 0);
        }
    }

    pub(crate) fn save(&self, path: &Path, model: &Gpt) -> Result<()> {
        let (first, second) = (self.optimizer.moments(0)?, self.optimizer.moments(1)?);
        let groups = [("model/", model.parameters()), ("best/", &self.best), ("adam_m/", &first), ("adam_v/", &second)];
        let tensors = groups
            .iter()
            .flat_map(|(prefix, group)| group.iter().map(move |(name, t)| (format!("{prefix}{name}"), t.clone())))
            .collect();
        write_tensors(path, &tensors, HashMap::from([(STATE.to_string(), serde_json::to_string(&self.state)?)]))
    }

    /// Reads a checkpoint into `model`; `objective`, `config` and `data` must be those it was written with.
    pub(super) fn load(path: &Path, model: &Gpt, objective: &str, config: &TrainConfig, data: &str) -> Result<Self> {
        read_state(path)?.check(model, objective, config, data)?;
        Self::read(path, model)
    }

    /// Reads a checkpoint into `model` without asking whose it is.
    pub(crate) fn read(path: &Path, model: &Gpt) -> Result<Self> {
        let state = read_state(path)?;
        let mut groups: BTreeMap<String, BTreeMap<String, Tensor>> = BTreeMap::new();
        for (name, tensor) in read_tensors(path)? {
            let (group, name) = name
                .split_once('/')
                .ok_or_else(|| Error::new("an unknown tensor in a checkpoint", name.as_str(), "write it again"))?;
            groups.entry(group.into()).or_default().insert(name.into(), tensor);
        }
        let mut take = |group: &str| groups.remove(group).unwrap_or_default();
        model.assign(&take("model"))?;
        let (first, second) = (take("adam_m"), take("adam_v"));
        let optimizer = AdamW::restore(state.config.adamw.clone(), &model.config, state.step, &first, &second)?;
        Ok(Self { state, optimizer, best: take("best") })
    }
}

/// What a checkpoint says of its run, without its tensors.
pub(crate) fn read_state(path: &Path) -> Result<State> {
    let metadata = read_metadata(path)?;
    let text = metadata.get(STATE).ok_or_else(|| {
        let got = "a safetensors file without a run in it";
        Error::new("not a run's checkpoint", got, "give the file that TrainConfig::checkpoint named").at(path.display())
    })?;
    serde_json::from_str(text).map_err(|e| Error::from(e).at(path.display()))
}

impl State {
    fn check(&self, model: &Gpt, objective: &str, config: &TrainConfig, data: &str) -> Result<()> {
        let differs = |what: &str, then: &str, now: &str| {
            Err(Error::new(
                format!("the checkpoint belongs to another {what}"),
                format!("saved with {then}, now {now}"),
                "resume with the settings it was saved with, or start afresh",
            ))
        };
        if self.objective != objective {
            return differs("objective", &self.objective, objective);
        }
        if self.model != model.config {
            return differs("model", &format!("{:?}", self.model), &format!("{:?}", model.config));
        }
        let (then, now) = (self.config.deciding()?, config.deciding()?);
        if then != now {
            let changed = then.as_object().into_iter().flatten().filter(|(name, value)| now[name.as_str()] != **value);
            let names: Vec<&String> = changed.map(|(name, _)| name).collect();
            let of = |config: &serde_json::Value| {
                names.iter().map(|n| format!("{n} = {}", config[n.as_str()])).collect::<Vec<_>>().join(", ")
            };
            return differs("training config", &of(&then), &of(&now));
        }
        if self.data != data {
            return differs("data set or tokenizer", &self.data, data);
        }
        Ok(())
    }
}
