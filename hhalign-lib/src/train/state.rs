//! The state of a run between two steps, and its checkpoint: weights, best weights, optimiser,
//! step, history and config in one file.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::head::{HEAD, Head};
use super::history::Mark;
use super::{History, TrainConfig};
use crate::base::error::{Error, Result};
use crate::compute::optim::{AdamW, VectorAdamW};
use crate::model::checkpoint::{read_metadata, read_tensors, write_tensors};
use crate::model::{Gpt, GptConfig};

/// A setting that was changed during the run.
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

/// The state of a run at a step, without tensors. The step is also the position in the data and the
/// state of every random stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    /// The checkpoint's format; files without this field have format 1.
    #[serde(default = "first_format")]
    pub(crate) format: u32,
    /// `sft`, `dpo` or `reward` with its settings as text; a checkpoint and a run match if it is
    /// equal.
    pub(crate) objective: String,
    pub(crate) config: TrainConfig,
    /// The model of the weights: equal shapes may hide another number of heads or another dropout.
    pub(crate) model: GptConfig,
    /// Hash of the training pairs' ids.
    pub(crate) data: String,
    pub(crate) step: usize,
    pub(crate) tokens: f64,
    pub(crate) seconds: f64,
    pub(crate) best: Option<(usize, f64)>,
    pub(crate) evaluations_without_gain: usize,
    /// The step of the last evaluation; a resumed run first makes an evaluation that is due.
    pub(crate) evaluated_at: Option<usize>,
    /// Settings changed during the run, in order.
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
    /// The head of a reward model.
    pub(crate) head: Option<Head>,
}

/// The header key of a run's state in a checkpoint.
const STATE: &str = "hhalign_run";
/// The header key of version 0.1's reward checkpoints.
const OLD_REWARD_STATE: &str = "hhalign_reward";

fn first_format() -> u32 {
    1
}

impl State {
    /// The format that is written. Format 2 added this field and the tensors of a head.
    pub(crate) const FORMAT: u32 = 2;

    /// Checks that this version knows the format.
    pub(crate) fn check_format(&self, path: &Path) -> Result<()> {
        if self.format <= Self::FORMAT {
            return Ok(());
        }
        let got = format!("format {}, this version knows up to {}", self.format, Self::FORMAT);
        Err(Error::data("a checkpoint of a newer hhalign", got, "update hhalign")
            .at(path.display()))
    }
}

impl Progress {
    /// Records a change, so that a resumed run applies it and a figure shows it.
    pub(super) fn record(&mut self, change: Change) {
        let state = &mut self.state;
        state.changes.push(change);
        state.history.marks.push(Mark { step: state.step, text: change.text() });
        if matches!(change, Change::Beta(_)) {
            // Losses under different betas are not comparable, so the best step is reset.
            (state.best, state.evaluations_without_gain) = (None, 0);
        }
    }

    pub(crate) fn save(&self, path: &Path, model: &Gpt) -> Result<()> {
        let mut groups = [
            ("model", model.named_parameters()),
            ("best", self.best.clone()),
            ("adam_m", self.optimizer.first_moments()?),
            ("adam_v", self.optimizer.second_moments()?),
        ];
        if let Some(head) = &self.head {
            let optimizer = &head.optimizer;
            let vectors =
                [&head.weights, &head.best, optimizer.first_moments(), optimizer.second_moments()];
            for ((_, group), values) in groups.iter_mut().zip(vectors) {
                group.insert(HEAD.into(), Head::tensor(values)?);
            }
        }
        let named = groups.into_iter().flat_map(|(prefix, group)| {
            group.into_iter().map(move |(name, tensor)| (format!("{prefix}/{name}"), tensor))
        });
        let state = State { format: State::FORMAT, ..self.state.clone() };
        write_tensors(
            path,
            &named.collect(),
            HashMap::from([(STATE.to_string(), serde_json::to_string(&state)?)]),
        )
    }

    /// Reads a checkpoint into `model`; `objective`, `config` and `data` must be those of the
    /// checkpoint.
    pub(crate) fn load(
        path: &Path,
        model: &Gpt,
        objective: &str,
        config: &TrainConfig,
        data: &str,
    ) -> Result<Self> {
        read_state(path)?.check(model, objective, config, data)?;
        Self::read(path, model)
    }

    /// Reads a checkpoint into `model` without checking that it belongs to this run.
    pub(crate) fn read(path: &Path, model: &Gpt) -> Result<Self> {
        let state = read_state(path)?;
        let mut groups: BTreeMap<String, BTreeMap<String, Tensor>> = BTreeMap::new();
        for (name, tensor) in read_tensors(path)? {
            let (group, name) = name.split_once('/').ok_or_else(|| {
                Error::data("an unknown tensor in a checkpoint", name.as_str(), "write it again")
            })?;
            groups.entry(group.into()).or_default().insert(name.into(), tensor);
        }
        let mut take = |group: &str| groups.remove(group).unwrap_or_default();
        let mut groups = [take("model"), take("best"), take("adam_m"), take("adam_v")];
        let mut heads = vec![];
        for group in &mut groups {
            heads.extend(group.remove(HEAD).map(|tensor| tensor.to_vec1::<f32>()).transpose()?);
        }
        let head = match <[Vec<f32>; 4]>::try_from(heads) {
            Ok([weights, best, first, second]) => {
                let optimizer =
                    VectorAdamW::restore(state.config.adamw.clone(), state.step, first, second);
                Some(Head { weights, optimizer, best })
            }
            Err(none) if none.is_empty() => None,
            Err(some) => {
                let got = format!("{} of 4 vectors", some.len());
                return Err(Error::data("a checkpoint with half a head", got, "write it again")
                    .at(path.display()));
            }
        };
        let [weights, best, first, second] = groups;
        model.assign(&weights)?;
        let optimizer =
            AdamW::restore(state.config.adamw.clone(), &model.config, state.step, &first, &second)?;
        Ok(Self { state, optimizer, best, head })
    }
}

/// Reads the state of a checkpoint, without its tensors.
fn read_state(path: &Path) -> Result<State> {
    let state = peek_state(path)?;
    state.check_format(path)?;
    Ok(state)
}

/// Reads the state of a checkpoint of any format.
pub(crate) fn peek_state(path: &Path) -> Result<State> {
    let metadata = read_metadata(path)?;
    let text = metadata.get(STATE).ok_or_else(|| {
        let refused = match metadata.contains_key(OLD_REWARD_STATE) {
            true => Error::data(
                "a reward model's checkpoint in the format of version 0.1",
                "a training that was interrupted before this version",
                "delete this file: the training begins again",
            ),
            false => Error::data(
                "not a run's checkpoint",
                "a safetensors file without a run in it",
                "give a file written by TrainConfig::checkpoint",
            ),
        };
        refused.at(path.display())
    })?;
    serde_json::from_str(text).map_err(|e| Error::from(e).at(path.display()))
}

impl State {
    fn check(&self, model: &Gpt, objective: &str, config: &TrainConfig, data: &str) -> Result<()> {
        let differs = |what: &str, then: &str, now: &str| {
            Err(Error::data(
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
        let (then, now) = (self.config.identity()?, config.identity()?);
        if then != now {
            let changed = then
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(name, value)| now[name.as_str()] != **value);
            let names: Vec<&String> = changed.map(|(name, _)| name).collect();
            let of = |config: &serde_json::Value| {
                names
                    .iter()
                    .map(|n| format!("{n} = {}", config[n.as_str()]))
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            return differs("training config", &of(&then), &of(&now));
        }
        if self.data != data {
            return differs("data set or tokenizer", &self.data, data);
        }
        Ok(())
    }
}
