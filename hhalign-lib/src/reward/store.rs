//! Reward models on disk: finished and interrupted trainings in a cache, and the folder that transformers loads.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde_json::json;

use super::run::{Progress, Snapshot, State};
use super::{RewardConfig, RewardModel, RewardTraining};
use crate::batch::TokenizedPairs;
use crate::checkpoint::{read_config, read_metadata, read_tensors, write_model_folder, write_tensors};
use crate::error::{Error, Result};
use crate::files;
use crate::model::Gpt;
use crate::optim::{AdamW, VectorAdamW};
use crate::rng::sha256_hex;
use crate::tokenize::Tokenizer;

type Tensors = BTreeMap<String, Tensor>;

/// The name that transformers has for the head, (1, C).
const HEAD: &str = "score.weight";
/// Under what a file's header keeps the state of a training.
const STATE: &str = "hhalign_reward";

/// The place of one training in a cache folder.
pub(super) struct Store {
    finished: PathBuf,
    checkpoint: PathBuf,
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

    pub(super) fn save(&self, progress: &Progress) -> Result<()> {
        let (first, second) = (progress.optimizer.moments(0)?, progress.optimizer.moments(1)?);
        let head = |values: &[f32]| Ok::<_, Error>((HEAD.to_string(), Tensor::new(values, &Device::Cpu)?));
        let [head_first, head_second] = progress.head_optimizer.moments();
        let groups = [
            ("model/", progress.gpt.parameters(), head(&progress.head)?),
            ("best/", &progress.best.parameters, head(&progress.best.head)?),
            ("adam_m/", &first, head(head_first)?),
            ("adam_v/", &second, head(head_second)?),
        ];
        let mut tensors = Tensors::new();
        for (prefix, group, head) in groups {
            let all = group.iter().map(|(name, t)| (name.clone(), t.clone())).chain([head]);
            tensors.extend(all.map(|(name, t)| (format!("{prefix}{name}"), t)));
        }
        let state = serde_json::to_string(&progress.state)?;
        write_tensors(&self.checkpoint, &tensors, HashMap::from([(STATE.to_string(), state)]))
    }

    /// An interrupted training; one that cannot be read begins again.
    pub(super) fn checkpoint(&self, config: &RewardConfig, start: &Gpt) -> Option<Progress> {
        let metadata = read_metadata(&self.checkpoint).ok()?;
        let state: State = serde_json::from_str(metadata.get(STATE)?).ok()?;
        let mut groups: BTreeMap<String, Tensors> = BTreeMap::new();
        for (name, tensor) in read_tensors(&self.checkpoint).ok()? {
            let (group, name) = name.split_once('/')?;
            groups.entry(group.into()).or_default().insert(name.into(), tensor);
        }
        let mut take = |group: &str| {
            let mut tensors = groups.remove(group)?;
            let head: Vec<f32> = tensors.remove(HEAD)?.to_vec1().ok()?;
            Some((tensors, head))
        };
        let ((parameters, head), (best, best_head)) = (take("model")?, take("best")?);
        let ((first, head_first), (second, head_second)) = (take("adam_m")?, take("adam_v")?);
        let adamw = &config.train.adamw;
        let gpt = Gpt::from_parameters(start.config.clone(), parameters, true).ok()?;
        Some(Progress {
            optimizer: AdamW::restore(adamw.clone(), &gpt.config, state.step, &first, &second).ok()?,
            head_optimizer: VectorAdamW::restore(adamw.clone(), state.step, [head_first, head_second]),
            best: Snapshot { parameters: best, head: best_head },
            state,
            gpt,
            head,
        })
    }
}

impl RewardModel {
    /// All weights under transformers' names.
    fn tensors(&self) -> Result<Tensors> {
        let mut tensors = self.gpt().parameters().clone();
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
