//! Reward models on disk: finished and interrupted trainings in a cache, and a folder that
//! transformers loads.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde_json::json;

use crate::base::error::{Error, Result};
use crate::base::files;
use crate::base::rng::sha256_hex;
use crate::data::batch::TokenizedPairs;
use crate::data::tokenize::Tokenizer;
use crate::model::Gpt;
use crate::model::checkpoint::{
    read_config, read_metadata, read_tensors, write_model_folder, write_tensors,
};
use crate::train::reward::objective::RewardObjective;
use crate::train::reward::{RewardConfig, RewardModel, RewardTraining};
use crate::train::{HEAD, Objective, Progress, TrainConfig, peek_state};

type Tensors = BTreeMap<String, Tensor>;

/// The header key of a finished training.
const STATE: &str = "hhalign_reward";

/// The files of one training in a cache folder.
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
        settings["train"] = config.train.identity()?;
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

    /// Returns the model of a finished training; a damaged file counts as missing.
    pub(super) fn finished(
        &self,
        config: &RewardConfig,
        start: &Gpt,
        max_length: usize,
    ) -> Option<RewardModel> {
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

    /// Writes a finished training and removes its checkpoint.
    pub(super) fn finish(&self, model: &RewardModel) -> Result<()> {
        let training = serde_json::to_string(&model.training)?;
        write_tensors(
            &self.finished,
            &model.tensors()?,
            HashMap::from([(STATE.to_string(), training)]),
        )?;
        std::fs::remove_file(&self.checkpoint).map_err(|e| Error::io(&self.checkpoint, e))
    }

    /// Returns whether there is an interrupted training to resume, with this identity, settings and
    /// data. A checkpoint that cannot be read counts as missing.
    ///
    /// # Errors
    /// A checkpoint of a newer version, which stays unchanged.
    pub(super) fn can_resume(
        &self,
        start: &Gpt,
        objective: &RewardObjective<'_>,
        train: &TrainConfig,
    ) -> Result<bool> {
        if let Ok(state) = peek_state(&self.checkpoint) {
            state.check_format(&self.checkpoint)?;
        }
        let (identity, data) = (objective.identity(), &objective.data().hash);
        Ok(Progress::load(&self.checkpoint, &start.fork()?, &identity, train, data).is_ok())
    }
}

impl RewardModel {
    /// Returns all weights under transformers' names.
    fn tensors(&self) -> Result<Tensors> {
        let mut tensors = self.gpt().named_parameters();
        tensors.insert(
            HEAD.into(),
            Tensor::from_slice(self.head(), (1, self.head().len()), &Device::Cpu)?,
        );
        Ok(tensors)
    }

    /// Saves a folder with model and tokenizer that
    /// `AutoModelForSequenceClassification.from_pretrained` loads.
    ///
    /// transformers reads the score at the last token that is not padding. The padding id is
    /// therefore a byte that does not occur in UTF-8, not the end of text as elsewhere.
    ///
    /// # Errors
    /// A tokenizer that does not fit the model, or a file that cannot be written.
    pub fn save(&self, tokenizer: &Tokenizer, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        tokenizer.check_fits(self.gpt().config.vocab_size)?;
        let more = json!({
            "architectures": ["GPT2ForSequenceClassification"],
            "num_labels": 1,
            "id2label": { "0": "reward" },
            "label2id": { "reward": 0 },
            "pad_token_id": tokenizer.never_in_text()?,
            "hhalign_limits": self.limits(),
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
        let more: serde_json::Value = serde_json::from_slice(&files::read(&path)?)
            .map_err(|e| Error::from(e).at(path.display()))?;
        let mut tensors = read_tensors(&folder.join("model.safetensors"))?;
        let head = tensors.remove(HEAD).ok_or_else(|| {
            let fix = "give the folder that RewardModel::save wrote";
            Error::data("this folder has no reward model", format!("weights without {HEAD}"), fix)
                .at(folder.display())
        })?;
        let gpt = Gpt::from_parameters(read_config(&path)?, tensors, false)
            .map_err(|e| e.at(folder.display()))?;
        // A folder written by another program has no limits.
        let half = gpt.config.block_size / 2;
        let limits = serde_json::from_value(more["hhalign_limits"].clone()).unwrap_or([half, half]);
        let model = Self::from_parts(&gpt, head.flatten_all()?.to_vec1()?, limits)?;
        Ok((model, Tokenizer::load(folder.join("tokenizer.json"))?))
    }
}
