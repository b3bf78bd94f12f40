//! What a run of the notebook may be told from outside, by `./scripts/run`'s options.

mod recipes;

use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use self::recipes::RealDataRecipes;
use crate::checkpoint::load_model;
use crate::data::{Dataset, Pair, Split};
use crate::error::{Error, Result};
use crate::eval::fluency::Fluency;
use crate::eval::toxicity::Classifier;
use crate::fused::{Compute, Precision};
use crate::loss::check_beta;
use crate::model::{Gpt, GptConfig, Preset};
use crate::table::{Column, Table, grouped};
use crate::tokenize::Tokenizer;

/// Pairs of the embedded set where no other number is asked for.
const EMBEDDED_PAIRS: usize = 4000;

/// Fewer would leave sides of the split empty.
const MIN_PAIRS: usize = 100;

/// A prompt and a reply need some room.
const MIN_BLOCK: usize = 8;

/// Settings of the pipeline; [`RunOptions::from_env`] reads those that were given.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Real HH data, a file, a folder, or `hub:SUBSET`; `None` is the embedded synthetic set. `HHALIGN_DATA`.
    pub data: Option<PathBuf>,
    /// The model's sizes. `HHALIGN_PRESET`.
    pub preset: Preset,
    /// Weights to begin from in place of fresh ones: whatever [`load_model`] reads, such as a GPT-2 folder of Hugging
    /// Face's. Sizes and tokenizer come with them, and the preset is not used. `HHALIGN_INIT`.
    pub init: Option<PathBuf>,
    /// Longest sequence, where it is not that of the preset or the weights; weights lose the positions behind it.
    /// `HHALIGN_BLOCK_SIZE`.
    pub block_size: Option<usize>,
    /// The seed of data, weights, training and sampling. `HHALIGN_SEED`.
    pub seed: u64,
    /// Optimiser steps of SFT. `HHALIGN_SFT_STEPS`.
    pub sft_steps: usize,
    /// Optimiser steps of DPO. `HHALIGN_DPO_STEPS`.
    pub dpo_steps: usize,
    /// β of DPO. `HHALIGN_BETA`.
    pub beta: f64,
    /// At most so many pairs: that many of the embedded set (4,000 by default), or so many drawn from real data (all
    /// by default). `HHALIGN_PAIRS`.
    pub pairs: Option<usize>,
    /// In what numbers training multiplies; `None` is exact f32 on a CPU, and the fastest that a GPU has. `HHALIGN_PRECISION`.
    pub precision: Option<Precision>,
    /// Where results go. `HHALIGN_RESULTS`.
    pub results: PathBuf,
    /// Where the toxicity model lies. `HHALIGN_TOXICITY_DIR`.
    pub toxicity: PathBuf,
    /// A folder with unitary/toxic-bert, or `hub:unitary/toxic-bert`, to be used instead of it. `HHALIGN_TOXIC_BERT`.
    pub toxic_bert: Option<PathBuf>,
    /// A pretrained language model that reads the replies, a GGUF file. `HHALIGN_GGUF`.
    pub gguf: Option<PathBuf>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            data: None,
            preset: Preset::Toy,
            init: None,
            block_size: None,
            seed: 0,
            sft_steps: 1700,
            dpo_steps: 80,
            beta: 0.1,
            pairs: None,
            precision: None,
            results: "../results".into(),
            toxicity: "../.cache/toxicity".into(),
            toxic_bert: None,
            gguf: None,
        }
    }
}

impl RunOptions {
    /// The defaults, with whatever the environment says otherwise.
    ///
    /// # Errors
    /// A value that cannot be read: the variable, its value, and what it takes.
    pub fn from_env() -> Result<Self> {
        // A path that is not UTF-8 stays a path that does not exist: it must not read as "not given".
        Self::from_lookup(|name| {
            std::env::var_os(name).map(|v| v.to_string_lossy().into_owned()).filter(|v| !v.is_empty())
        })
    }

    /// The same from any source of named values.
    ///
    /// # Errors
    /// A value that cannot be read.
    ///
    /// # Example
    /// ```
    /// use hhalign::options::RunOptions;
    /// let options = RunOptions::from_lookup(|name| (name == "HHALIGN_BETA").then(|| "0.3".into()))?;
    /// assert_eq!(options.beta, 0.3);
    /// # Ok::<(), hhalign::error::Error>(())
    /// ```
    pub fn from_lookup(get: impl Fn(&str) -> Option<String>) -> Result<Self> {
        fn set<T: FromStr>(slot: &mut T, name: &str, value: Option<String>, takes: &str) -> Result<()> {
            let Some(text) = value else { return Ok(()) };
            *slot = text.parse().map_err(|_| {
                Error::new(format!("{name} cannot be read"), format!("{text:?}"), format!("give {takes}"))
            })?;
            Ok(())
        }
        let mut o = Self { data: get("HHALIGN_DATA").map(Into::into), ..Self::default() };
        if let Some(name) = get("HHALIGN_PRESET") {
            o.preset = Preset::from_name(&name)?;
        }
        set(&mut o.seed, "HHALIGN_SEED", get("HHALIGN_SEED"), "a whole number")?;
        set(&mut o.sft_steps, "HHALIGN_SFT_STEPS", get("HHALIGN_SFT_STEPS"), "a whole number of steps")?;
        set(&mut o.dpo_steps, "HHALIGN_DPO_STEPS", get("HHALIGN_DPO_STEPS"), "a whole number of steps")?;
        set(&mut o.beta, "HHALIGN_BETA", get("HHALIGN_BETA"), "a number such as 0.1")?;
        if let Some(text) = get("HHALIGN_PAIRS") {
            let mut pairs = 0;
            set(&mut pairs, "HHALIGN_PAIRS", Some(text), "a whole number of pairs")?;
            o.pairs = Some(pairs);
        }
        o.init = get("HHALIGN_INIT").map(Into::into);
        if let Some(text) = get("HHALIGN_BLOCK_SIZE") {
            let mut size = 0;
            set(&mut size, "HHALIGN_BLOCK_SIZE", Some(text), "a whole number of tokens")?;
            if size < MIN_BLOCK {
                let fix = format!("give at least {MIN_BLOCK}, or leave it out");
                return Err(Error::new("HHALIGN_BLOCK_SIZE is too small", size.to_string(), fix));
            }
            o.block_size = Some(size);
        }
        for (name, steps) in [("HHALIGN_SFT_STEPS", o.sft_steps), ("HHALIGN_DPO_STEPS", o.dpo_steps)] {
            if steps == 0 {
                return Err(Error::new(format!("{name} must be at least 1"), "0", "leave it out for the default"));
            }
        }
        check_beta(o.beta).map_err(|e| Error::new("HHALIGN_BETA must be a positive number", e.got(), e.fix()))?;
        o.precision = get("HHALIGN_PRECISION").map(|name| Precision::from_name(&name)).transpose()?;
        if let Some(folder) = get("HHALIGN_RESULTS") {
            o.results = folder.into();
        }
        if let Some(folder) = get("HHALIGN_TOXICITY_DIR") {
            o.toxicity = folder.into();
        }
        o.toxic_bert = get("HHALIGN_TOXIC_BERT").map(Into::into);
        o.gguf = get("HHALIGN_GGUF").map(Into::into);
        Ok(o)
    }

    /// How training computes: on a GPU where there is one. `HHALIGN_DEVICE` says otherwise (`cpu`, `cuda:1`).
    ///
    /// # Errors
    /// `HHALIGN_DEVICE` names a GPU that cannot be used.
    pub fn compute(&self) -> Result<Compute> {
        let on_gpu = Compute::default().is_on_gpu()?;
        let usual = if on_gpu { Precision::Auto } else { Precision::F32 };
        Ok(Compute { precision: self.precision.unwrap_or(usual), ..Compute::default() })
    }

    /// The data set: real HH where a place was given, the embedded set otherwise.
    ///
    /// # Errors
    /// As [`Dataset::read`], [`Dataset::sample`] and [`Dataset::embedded`]; fewer pairs than a run needs.
    pub fn dataset(&self) -> Result<Dataset> {
        let data = match (&self.data, self.pairs) {
            (Some(path), Some(n)) => Dataset::read(path)?.sample(n, self.seed)?,
            (Some(path), None) => Dataset::read(path)?,
            (None, n) => Dataset::embedded(self.seed, n.unwrap_or(EMBEDDED_PAIRS))?,
        };
        if data.pairs.len() < MIN_PAIRS {
            return Err(Error::new(
                "too few pairs for a run: training, held-out side and samples all need some",
                format!("{} pairs", data.pairs.len()),
                format!("use at least {MIN_PAIRS} (--pairs, or a larger file)"),
            ));
        }
        Ok(data)
    }

    /// Pairs for a reward model that will judge: none of their first turns stands among the policy's training pairs or the
    /// held-out ones. Of real data three tenths of the training pairs are taken out of the split; the embedded grammar
    /// gives fresh ones.
    ///
    /// # Errors
    /// As [`Dataset::embedded`] and [`Split::set_aside`].
    pub fn judge_pairs(&self, split: &mut Split) -> Result<Vec<Pair>> {
        match &self.data {
            Some(_) => split.set_aside(0.3),
            None => {
                let drawn = Dataset::embedded(self.seed ^ (1 << 32), self.pairs.unwrap_or(EMBEDDED_PAIRS))?;
                Ok(split.fresh(drawn.pairs))
            }
        }
    }

    /// The toxicity classifier: toxic-bert where a place was given, otherwise the one that set-up fetches.
    ///
    /// # Errors
    /// As [`Classifier::find`].
    pub fn classifier(&self) -> Result<Classifier> {
        Classifier::find(&self.toxicity, self.toxic_bert.as_deref())
    }

    /// The language model that reads the replies, where a file was given.
    ///
    /// # Errors
    /// As [`Fluency::load`].
    pub fn fluency(&self) -> Result<Option<Fluency>> {
        self.gguf.as_ref().map(Fluency::load).transpose()
    }

    /// The tokenizer: that of the weights to begin from, or the preset's, which is trained on the pairs, or GPT-2's.
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

    /// The model's sizes: those of the weights to begin from, or of the preset's model for a tokenizer.
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

    /// The model to begin with: of the given weights, whose dropout is left out, or a fresh one of the preset.
    ///
    /// # Errors
    /// As [`load_model`], [`Gpt::with_block_size`] and [`Gpt::new`]; weights of another vocabulary than the tokenizer's.
    pub fn model(&self, tokenizer: &Tokenizer) -> Result<Gpt> {
        let Some(init) = &self.init else { return Gpt::new(self.model_config(tokenizer)?, self.seed) };
        let (mut model, _) = load_model(init, true)?;
        // GPT-2's file says 0.1: the fast path has none, and DPO would compare a policy with noise to a still reference.
        model.config.dropout = 0.0;
        tokenizer.check_fits(model.config.vocab_size)?;
        match self.block_size {
            Some(size) if size != model.config.block_size => model.with_block_size(size),
            _ => Ok(model),
        }
    }

    /// What a summary calls the model: the preset's name, or `weights of` and the name of their folder.
    pub fn model_name(&self) -> String {
        match &self.init {
            Some(init) => format!("weights of {}", last_name(init)),
            None => format!("{:?}", self.preset).to_lowercase(),
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
            Some(init) => ("weights", last_name(init), "--init"),
            None => ("preset", self.model_name(), "--preset"),
        };
        let mut rows = vec![
            ("data", self.data.as_deref().map_or_else(|| "embedded synthetic set".into(), last_name), "--data"),
            ("pairs", pairs, "--pairs"),
            model,
            ("seed", self.seed.to_string(), "--seed"),
            ("SFT steps", self.sft_steps.to_string(), "--sft-steps"),
            ("DPO steps", self.dpo_steps.to_string(), "--dpo-steps"),
            ("β", self.beta.to_string(), "--beta"),
        ];
        if let Some(size) = self.block_size {
            rows.insert(3, ("block size", size.to_string(), "--block-size"));
        }
        let column = |f: fn(&(&str, String, &str)) -> String| rows.iter().map(f).collect();
        Table::new(
            "Settings of this run",
            vec![
                Column::text("setting", column(|r| r.0.to_string())),
                Column::text("value", column(|r| r.1.clone())),
                Column::text("option of ./scripts/run", column(|r| r.2.to_string())),
            ],
        )
    }
}

/// The last part of a path, since the rest belongs to one machine.
fn last_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned())
}
