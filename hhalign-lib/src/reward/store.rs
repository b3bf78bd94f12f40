//! Reward models on disk: finished and interrupted trainings in a cache, and the folder that transformers loads.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde_json::json;

use super::{RewardConfig, RewardModel, RewardTraining};
use crate::batch::TokenizedPairs;
use crate::checkpoint::{read_config, read_metadata, read_tensors, write_model_folder, write_tensors};
use crate::error::{Error, Result};
use crate::files;
use crate::model::Gpt;
use crate::rng::sha256_hex;
use crate::tokenize::Tokenizer;
use crate::train::reward::RewardObjective;
use crate::train::{HEAD, Objective, Progress, TrainConfig, peek_state};

type Tensors = BTreeMap<String, Tensor>;

/// Under what a file's header keeps the state of a training.
const STATE: &str = "hhalign_reward";

/// The place of one training in a cache folder.
pub(super) struct Store {
    finished: PathBuf,
    pub(super) checkpoint: PathBuf,
}

impl Store {
    pub(super) fn new(
        folder: &Path,
        config: &RewardConfig,
        start: &Gpt,
        pairs: &TokenizedPairs,
        watched: &TokenizedPairs,
    ) -> Result<Self> {
        let mut settings = serde_json::to_value(config)?;
        settings["train"] = config.train.deciding()?;
        let identity = format!(
            "hhalign {} reward, {settings}, {}, pairs {} of {}, watched {}, first weights {}",
            env!("CARGO_PKG_VERSION"),
            config.train.compute.name()?,
            pairs.hash,
            pairs.max_length,
            watched.hash,
            start.hash()?
        );
        let name = format!("reward-{}", sha256_hex([identity.as_bytes()], 16));
        let file = |kind: &str| folder.join(format!("{name}{kind}.safetensors"));
        Ok(Self { finished: file(""), checkpoint: file("-checkpoint") })
    }

    /// The model of a training that was made before; a damaged file is made again.
    pub(super) fn finished(&self, config: &RewardConfig, start: &Gpt, max_length: usize) -> Option<RewardModel> {
        let metadata = read_metadata(&self.finished).ok()?;
        let training: RewardTraining = serde_json::from_str(metadata.get(STATE)?).ok()?;
        let mut tensors = read_tensors(&self.finished).ok()?;
        let head = tensors.remove(HEAD)?.flatten_all().ok()?.to_vec1().ok()?;
        let gpt = Gpt::from_parameters(start.config.clone(), tensors, false).ok()?;
        let mut model = RewardModel::from_parts(&gpt, head, config.limits(max_length)).ok()?;
        model.compute = config.train.compute.clone();
        (model.training, model.from_cache) = (Some(training), true);
        Some(model)
    }

    /// Writes a finished training; its checkpoint is not needed any more.
    pub(super) fn finish(&self, model: &RewardModel) -> Result<()> {
        let training = serde_json::to_string(&model.training)?;
        write_tensors(&self.finished, &model.tensors()?, HashMap::from([(STATE.to_string(), training)]))?;
        std::fs::remove_file(&self.checkpoint).map_err(|e| Error::io(&self.checkpoint, &e))
    }

    /// Whether there is an interrupted training to resume, with this identity, settings and data; one that cannot be read
    /// begins again.
    ///
    /// # Errors
    /// A checkpoint of a newer version, which is left alone.
    pub(super) fn can_resume(&self, start: &Gpt, objective: &RewardObjective<'_>, train: &TrainConfig) -> Result<bool> {
        if let Ok(state) = peek_state(&self.checkpoint) {
            state.check_format(&self.checkpoint)?;
        }
        let (identity, data) = (objective.identity(), &objective.data().hash);
        Ok(Progress::load(&self.checkpoint, &start.fork()?, &identity, train, data).is_ok())
    }
}

impl RewardModel {
    /// All weights under transformers' names.
    fn tensors(&self) -> Result<Tensors> {
        let mut tensors = self.gpt().named_parameters();
        tensors.insert(HEAD.into(), Tensor::from_slice(self.head(), (1, self.head().len()), &Device::Cpu)?);
        Ok(tensors)
    }

    /// Saves a folder that `AutoModelForSequenceClassification.from_pretrained` loads, with the tokenizer.
    ///
    /// transformers reads the score at the last token that is not padding. So padding is the id of a byte that no UTF-8
    /// text holds, and not the end of text as elsewhere.
    ///
    /// # Errors
    /// Another tokenizer than the model's, or a file that cannot be written.
    pub fn save(&self, tokenizer: &Tokenizer, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        tokenizer.check_fits(self.gpt().config.vocab_size)?;
        let more = json!({
            "architectures": ["GPT2ForSequenceClassification"], "num_labels": 1, "id2label": { "0": "reward" },
            "label2id": { "reward": 0 }, "pad_token_id": tokenizer.never_in_text()?, "hhalign_limits": self.limits(),
        });
        write_model_folder(folder, &self.tensors()?, &self.gpt().config, tokenizer, &more)
    }

    /// Loads what [`RewardModel::save`] wrote, with its tokenizer.
    ///
    /// # Errors
    /// A file is missing or does not fit the config.
    pub fn load(folder: impl AsRef<Path>) -> Result<(Self, Tokenizer)> {
        let folder = folder.as_ref();
        let path = folder.join("config.json");
        let more: serde_json::Value =
            serde_json::from_slice(&files::read(&path)?).map_err(|e| Error::from(e).at(path.display()))?;
        let mut tensors = read_tensors(&folder.join("model.safetensors"))?;
        let head = tensors.remove(HEAD).ok_or_else(|| {
            let fix = "give the folder that RewardModel::save wrote";
            Error::new("this folder holds no reward model", format!("weights without {HEAD}"), fix).at(folder.display())
        })?;
        let gpt = Gpt::from_parameters(read_config(&path)?, tensors, false).map_err(|e| e.at(folder.display()))?;
        // A folder that something else wrote has no limits.
        let half = gpt.config.block_size / 2;
        let limits = serde_json::from_value(more["hhalign_limits"].clone()).unwrap_or([half, half]);
        let model = Self::from_parts(&gpt, head.flatten_all()?.to_vec1()?, limits)?;
        Ok((model, Tokenizer::load(folder.join("tokenizer.json"))?))
    }
}
