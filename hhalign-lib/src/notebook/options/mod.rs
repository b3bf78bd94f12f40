//! Settings of a run, given as options of `hhalign run` or as environment variables. Each option is
//! defined once, as a field of [`RunOptions`]: name, variable, default and help.

pub mod parse;
mod recipes;
mod sources;

use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

pub use self::recipes::RealDataRecipes;
pub use self::sources::explain;
use crate::base::error::Result;
use crate::compute::{Compute, Device, Precision};
use crate::data::tokenize::Tokenizer;
use crate::data::{Dataset, Pair, Split};
use crate::eval::metrics::fluency::Fluency;
use crate::eval::metrics::toxicity::Classifier;
use crate::model::checkpoint::load_model;
use crate::model::{Gpt, GptConfig, Preset};
use crate::show::table::{Column, Table, grouped};

/// The default number of pairs of the synthetic set.
const EMBEDDED_PAIRS: usize = 4000;

/// Settings of the pipeline. [`RunOptions::from_env`] reads those that were given.
///
/// A field set in a cell overrides the option of `hhalign run`, the option overrides its variable,
/// and the variable overrides the default.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[serde(try_from = "serde_json::Map<String, serde_json::Value>")]
pub struct RunOptions {
    /// Preference data: a .jsonl or .jsonl.gz file, a folder of them, or hub:SUBSET for a subset of
    /// Anthropic/hh-rlhf, such as hub:harmless-base or hub:all. Default: the library's synthetic
    /// set.
    #[arg(long, env = "HHALIGN_DATA", value_name = "PLACE", value_parser = parse::data)]
    pub data: Option<PathBuf>,
    /// Sizes of the model: toy, small or gpt2.
    #[arg(long, env = "HHALIGN_PRESET", value_name = "NAME", default_value = "toy")]
    #[arg(value_parser = Preset::from_name)]
    #[serde(serialize_with = "parse::name")]
    pub preset: Preset,
    /// Initial weights: a GPT-2 folder (config.json, model.safetensors, tokenizer.json),
    /// hub:OWNER/NAME, or a model that an earlier run saved. They determine sizes and tokenizer;
    /// the preset is not used.
    #[arg(long, env = "HHALIGN_INIT", value_name = "PLACE", value_parser = parse::model)]
    pub init: Option<PathBuf>,
    /// Longest sequence in tokens, at most that of the initial weights. Default: that of the
    /// weights or the preset. Position embeddings beyond it are dropped.
    #[arg(long, env = "HHALIGN_BLOCK_SIZE", value_name = "N", value_parser = parse::block_size)]
    #[arg(allow_negative_numbers = true)]
    pub block_size: Option<usize>,
    /// Seed of data, weights, training and sampling.
    #[arg(long, env = "HHALIGN_SEED", value_name = "N", value_parser = parse::seed)]
    #[arg(default_value = "0", allow_negative_numbers = true)]
    pub seed: u64,
    /// Optimiser steps of SFT.
    #[arg(long, env = "HHALIGN_SFT_STEPS", value_name = "N", value_parser = parse::count)]
    #[arg(default_value = "1700", allow_negative_numbers = true)]
    pub sft_steps: usize,
    /// Optimiser steps of DPO.
    #[arg(long, env = "HHALIGN_DPO_STEPS", value_name = "N", value_parser = parse::count)]
    #[arg(default_value = "80", allow_negative_numbers = true)]
    pub dpo_steps: usize,
    /// β of DPO.
    #[arg(long, env = "HHALIGN_BETA", value_name = "X", value_parser = parse::beta)]
    #[arg(default_value = "0.1", allow_negative_numbers = true)]
    pub beta: f64,
    /// Number of pairs, at least 100: generated for the synthetic set (default 4000), or drawn from
    /// real data (default all).
    #[arg(long, env = "HHALIGN_PAIRS", value_name = "N", value_parser = parse::pairs)]
    #[arg(allow_negative_numbers = true)]
    pub pairs: Option<usize>,
    /// Device for all passes: auto, cpu, cuda or cuda:N. auto selects the first usable GPU, or the
    /// CPU if there is none.
    #[arg(long, env = "HHALIGN_DEVICE", value_name = "NAME", default_value = "auto")]
    #[arg(value_parser = Device::from_name)]
    #[serde(serialize_with = "parse::name")]
    pub device: Device,
    /// Precision of matrix products in training: f32, bf16, f16 or auto. Default: f32 on a CPU,
    /// auto on a GPU.
    #[arg(long, env = "HHALIGN_PRECISION", value_name = "NAME")]
    #[arg(value_parser = Precision::from_name)]
    #[serde(serialize_with = "parse::optional_name")]
    pub precision: Option<Precision>,
    /// Folder for the results; without it, results/ in the repository.
    #[arg(long = "out", env = "HHALIGN_RESULTS", value_name = "FOLDER")]
    #[arg(value_parser = parse::folder, default_value = "../results", hide_default_value = true)]
    pub results: PathBuf,
    /// Folder of the small toxicity classifier; without it, .cache/toxicity/ in the repository,
    /// which ./scripts/setup fills.
    #[arg(long, env = "HHALIGN_TOXICITY_DIR", value_name = "FOLDER", value_parser = parse::folder)]
    #[arg(default_value = "../.cache/toxicity", hide_default_value = true)]
    pub toxicity: PathBuf,
    /// Folder of unitary/toxic-bert (config.json, vocab.txt, model.safetensors), or the word hub to
    /// load it from the hub. Toxicity is then measured with it.
    #[arg(long, env = "HHALIGN_TOXIC_BERT", value_name = "PLACE", value_parser = parse::toxic_bert)]
    pub toxic_bert: Option<PathBuf>,
    /// GGUF file of a pretrained language model of the Llama family, which also scores the replies.
    #[arg(long, env = "HHALIGN_GGUF", value_name = "FILE", value_parser = parse::file)]
    pub gguf: Option<PathBuf>,
}

impl RunOptions {
    /// Returns the device and precision for training. Without a precision option, the precision is
    /// auto on a GPU and f32 on a CPU.
    ///
    /// # Errors
    /// The options name a GPU that cannot be used.
    pub fn compute(&self) -> Result<Compute> {
        let compute = Compute { device: self.device, ..Compute::default() };
        let usual = if compute.is_on_gpu()? { Precision::Auto } else { Precision::F32 };
        Ok(Compute { precision: self.precision.unwrap_or(usual), ..compute })
    }

    /// Returns the data set: real HH data if `data` is set, otherwise the synthetic set.
    ///
    /// # Errors
    /// As [`Dataset::read`], [`Dataset::sample`] and [`Dataset::embedded`]; fewer pairs than a run
    /// needs.
    pub fn dataset(&self) -> Result<Dataset> {
        let data = match (&self.data, self.pairs) {
            (Some(path), Some(n)) => Dataset::read(path)?.sample(n, self.seed)?,
            (Some(path), None) => Dataset::read(path)?,
            (None, n) => Dataset::embedded(self.seed, n.unwrap_or(EMBEDDED_PAIRS))?,
        };
        parse::check_pairs(data.pairs.len())?;
        Ok(data)
    }

    /// Returns pairs for training a reward model that serves as a judge. None of them shares its
    /// first turn with a training or held-out pair of the policy. With real data, 30% of the
    /// training pairs are moved out of `split`; otherwise new synthetic pairs are generated.
    ///
    /// # Errors
    /// As [`Dataset::embedded`] and [`Split::set_aside`].
    pub fn judge_pairs(&self, split: &mut Split) -> Result<Vec<Pair>> {
        match &self.data {
            Some(_) => split.set_aside(0.3),
            None => {
                let drawn =
                    Dataset::embedded(self.seed ^ (1 << 32), self.pairs.unwrap_or(EMBEDDED_PAIRS))?;
                Ok(split.fresh(drawn.pairs))
            }
        }
    }

    /// Returns the toxicity classifier: toxic-bert if it was selected, otherwise the small one that
    /// `./scripts/setup` fetches.
    ///
    /// # Errors
    /// As [`Classifier::find`].
    pub fn classifier(&self) -> Result<Classifier> {
        Classifier::find(&self.toxicity, self.toxic_bert.as_deref())
    }

    /// Returns the language model that scores the replies, if a file was given.
    ///
    /// # Errors
    /// As [`Fluency::load`].
    pub fn fluency(&self) -> Result<Option<Fluency>> {
        self.gguf.as_ref().map(Fluency::load).transpose()
    }

    /// Returns the tokenizer: that of the initial weights, if given; otherwise the preset's, which
    /// is trained on `pairs` or is GPT-2's.
    ///
    /// # Errors
    /// As [`load_model`], [`Tokenizer::train`] and [`Tokenizer::gpt2`].
    pub fn tokenizer(&self, pairs: &[Pair]) -> Result<Tokenizer> {
        match (&self.init, self.preset.vocab_size()) {
            (Some(init), _) => Ok(load_model(init, false)?.1),
            (None, Some(size)) => Tokenizer::train(pairs, size),
            (None, None) => Tokenizer::gpt2(),
        }
    }

    /// Returns the model's sizes: those of the initial weights, if given; otherwise those of the
    /// preset, with the tokenizer's vocabulary.
    ///
    /// # Errors
    /// As [`RunOptions::model`], where there are weights to begin from.
    pub fn model_config(&self, tokenizer: &Tokenizer) -> Result<GptConfig> {
        if self.init.is_some() {
            return Ok(self.model(tokenizer)?.config);
        }
        let config = self.preset.config(tokenizer.vocab_size());
        Ok(GptConfig { block_size: self.block_size.unwrap_or(config.block_size), ..config })
    }

    /// Returns the initial model: the given weights with dropout set to 0, or else a new model of
    /// the preset.
    ///
    /// # Errors
    /// As [`load_model`], [`Gpt::with_block_size`] and [`Gpt::new`]; weights of another vocabulary
    /// than the tokenizer's.
    pub fn model(&self, tokenizer: &Tokenizer) -> Result<Gpt> {
        let Some(init) = &self.init else {
            return Gpt::new(self.model_config(tokenizer)?, self.seed);
        };
        let (mut model, _) = load_model(init, true)?;
        // GPT-2's config file sets dropout to 0.1. The fast path does not support dropout, and DPO
        // would compare a policy with dropout to a reference without it.
        model.config.dropout = 0.0;
        tokenizer.check_fits(model.config.vocab_size)?;
        match self.block_size {
            Some(size) if size != model.config.block_size => model.with_block_size(size),
            _ => Ok(model),
        }
    }

    /// Returns the model's name for summaries: the preset's name, or `weights of` and the folder's
    /// name.
    pub fn model_name(&self) -> String {
        match &self.init {
            Some(init) => format!("weights of {}", last_name(init)),
            None => self.preset.to_string(),
        }
    }

    /// A path under the results folder.
    pub fn result(&self, name: &str) -> PathBuf {
        self.results.join(name)
    }

    /// The settings as a table.
    ///
    /// # Errors
    /// A failure of the table library.
    pub fn table(&self) -> Result<Table> {
        let pairs = match (self.pairs, &self.data) {
            (Some(n), Some(_)) => format!("at most {}, drawn by seed", grouped(n as i64)),
            (None, Some(_)) => "all".into(),
            (n, None) => n.unwrap_or(EMBEDDED_PAIRS).to_string(),
        };
        let model = match &self.init {
            Some(init) => ("weights", last_name(init), "init"),
            None => ("preset", self.model_name(), "preset"),
        };
        let data = self.data.as_deref().map_or_else(|| "embedded synthetic set".into(), last_name);
        let mut rows = vec![
            ("data", data, "data"),
            ("pairs", pairs, "pairs"),
            model,
            ("seed", self.seed.to_string(), "seed"),
            ("SFT steps", self.sft_steps.to_string(), "sft_steps"),
            ("DPO steps", self.dpo_steps.to_string(), "dpo_steps"),
            ("β", self.beta.to_string(), "beta"),
        ];
        if let Some(size) = self.block_size {
            rows.insert(3, ("block size", size.to_string(), "block_size"));
        }
        let column = |f: fn(&(&str, String, &str)) -> String| rows.iter().map(f).collect();
        Table::new(
            "Settings of this run",
            vec![
                Column::text("setting", column(|r| r.0.to_string())),
                Column::text("value", column(|r| r.1.clone())),
                Column::text("option of ./scripts/run", column(|r| sources::option(r.2))),
            ],
        )
    }
}

/// Returns the last component of a path. The rest is specific to one machine.
fn last_name(path: &Path) -> String {
    path.file_name()
        .map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned())
}
