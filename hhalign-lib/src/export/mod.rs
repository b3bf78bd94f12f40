//! A run that goes on elsewhere: a folder from which accelerate trains in several processes, on the same ids, in the same
//! batches, with the same settings.
//!
//! The folder holds the model as transformers reads it, both sides of the split as texts, the pairs of every step, and a
//! program with the settings at its top. The program makes the ids anew, and begins only where their hash is the one
//! that was written here.

mod trl;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::batch::TokenizedPairs;
use crate::checkpoint::write_language_model;
use crate::data::Pair;
use crate::error::{Error, Result};
use crate::files;
use crate::loss::PreferenceLoss;
use crate::model::Gpt;
use crate::rng::sha256_hex;
use crate::tokenize::Tokenizer;
use crate::train::{Dpo, Sft, TrainConfig};

/// The Python packages that the programs were tried with.
const REQUIREMENTS: &str = "torch==2.8.0\ntransformers==4.56.2\naccelerate==1.15.0\ndatasets==5.0.1\ntrl==0.23.0\n";

/// The parts of the programs below their settings.
const COMMON: &str = include_str!("common.py");
const DPO: &str = include_str!("dpo.py");
const SFT: &str = include_str!("sft.py");

/// Texts of the same split that a run here would see: training pairs, and held-out ones to watch.
pub type Sides<'a> = (&'a [Pair], &'a [Pair]);

/// Writes a folder in which TRL's `DPOTrainer` makes the run that [`Dpo::fit`] would make here, in any number of processes
/// that divides the batch.
///
/// `max_length` is the one that the run's [`TokenizedPairs`] would have. The run begins at its first step, with a fresh
/// optimiser: what a run here has learnt so far goes along as weights only. What will differ is written into the folder's
/// `README.md`. The folder is whole or not there.
///
/// # Errors
/// A loss or a setting that TRL does not have, pairs that do not fit the model, or a folder that is not empty.
///
/// # Example
/// ```
/// use hhalign::{data::Dataset, export::export_dpo, model::{Gpt, Preset}, tokenize::Tokenizer, train::Dpo};
/// let split = Dataset::embedded(1, 100)?.split(0.1)?;
/// let tokenizer = Tokenizer::train(&split.train, 300)?;
/// let policy = Gpt::new(Preset::Toy.config(300), 1)?;
/// let folder = std::env::temp_dir().join(format!("export-{}", std::process::id()));
/// export_dpo(&Dpo::default(), &policy, &policy.freeze()?, &tokenizer, (&split.train, &split.held_out), 256, &folder)?;
/// assert!(std::fs::read_to_string(folder.join("train_dpo.py")).unwrap().contains("BETA = 0.1"));
/// # std::fs::remove_dir_all(folder).unwrap();
/// # Ok::<(), hhalign::error::Error>(())
/// ```
pub fn export_dpo(
    dpo: &Dpo,
    policy: &Gpt,
    reference: &Gpt,
    tokenizer: &Tokenizer,
    sides: Sides<'_>,
    max_length: usize,
    folder: impl AsRef<Path>,
) -> Result<PathBuf> {
    dpo.loss.check(dpo.beta)?;
    if dpo.rpo_alpha > 0.0 {
        let fix = "set rpo_alpha = 0: TRL weighs its likelihood term by the tokens of a batch, here it is by reply";
        return Err(Error::new("RPO's term would be another one elsewhere", dpo.rpo_alpha.to_string(), fix));
    }
    let loss = trl::loss_settings(&dpo.loss)?;
    let (policy_hash, reference_hash) = (policy.hash()?, reference.hash()?);
    let apart = policy_hash != reference_hash;
    let own = vec![
        ("BETA", json!(dpo.beta)),
        ("LOSS", json!(loss)),
        ("REFERENCE", json!(if apart { "reference" } else { "model" })),
        ("DROPOUT", json!(policy.config.dropout)),
    ];
    let models: &[(&str, &Gpt)] = &[("model", policy), ("reference", reference)][..1 + usize::from(apart)];
    let hashes = json!({ "model": policy_hash, "reference": reference_hash });
    let per_token = dpo.loss == PreferenceLoss::IpoPerToken;
    let plan = Plan { kind: "dpo", train: &dpo.train, models, hashes, own, body: DPO, per_token };
    plan.write(tokenizer, sides, max_length, folder.as_ref())
}

/// Writes a folder in which transformers' `Trainer` makes the run that [`Sft::fit`] would make here; see [`export_dpo`].
///
/// # Errors
/// A setting that cannot be had elsewhere, pairs that do not fit the model, or a folder that is not empty.
pub fn export_sft(
    sft: &Sft,
    model: &Gpt,
    tokenizer: &Tokenizer,
    sides: Sides<'_>,
    max_length: usize,
    folder: impl AsRef<Path>,
) -> Result<PathBuf> {
    let hashes = json!({ "model": model.hash()? });
    let plan = Plan {
        kind: "sft",
        train: &sft.train,
        models: &[("model", model)],
        hashes,
        own: vec![],
        body: SFT,
        per_token: false,
    };
    plan.write(tokenizer, sides, max_length, folder.as_ref())
}

/// What goes into the folder.
struct Plan<'a> {
    kind: &'static str,
    train: &'a TrainConfig,
    models: &'a [(&'a str, &'a Gpt)],
    hashes: Value,
    own: Vec<(&'static str, Value)>,
    body: &'static str,
    /// Whether TRL's metrics are per token.
    per_token: bool,
}

impl Plan<'_> {
    fn write(&self, tokenizer: &Tokenizer, sides: Sides<'_>, max_length: usize, folder: &Path) -> Result<PathBuf> {
        self.train.check()?;
        if let Some(pitfall) = self.train.pitfall {
            let fix = "set pitfall = None: mistakes are made on purpose here only";
            return Err(Error::new("a pitfall is not exported", pitfall.name(), fix));
        }
        if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) || folder.is_file() {
            let fix = "give another name, or move away what is there";
            return Err(Error::new("the folder for the export is not empty", folder.display().to_string(), fix));
        }
        let block = self.models[0].1.config.block_size;
        if max_length > block {
            let got = format!("max_length {max_length}, block_size {block}");
            return Err(Error::new("the sequences are longer than the model's block", got, "lower max_length"));
        }
        tokenizer.check_fits(self.models[0].1.config.vocab_size)?;
        let ids = [sides.0, sides.1].map(|pairs| TokenizedPairs::new(pairs, tokenizer, max_length));
        let [train, held_out] = ids;
        let (train, held_out) = (train?, held_out?);
        if train.is_empty() || held_out.is_empty() {
            let got = format!("{} to train on, {} held out", train.len(), held_out.len());
            return Err(Error::new("an export needs pairs on both sides", got, "give both sides of a split"));
        }
        let (batches, left_out) = full_batches(&train, self.train);
        // Beside its place first, so that nobody starts from half a folder.
        let beside = files::temporary_beside(folder)?;
        let written = self.fill(&beside, tokenizer, sides, (&train, &held_out), &batches, left_out);
        let placed = written.and_then(|()| fs::rename(&beside, folder).map_err(|e| Error::io(folder, &e)));
        if placed.is_err() {
            let _ = fs::remove_dir_all(&beside);
        }
        placed.map(|()| folder.to_path_buf())
    }

    fn fill(
        &self,
        folder: &Path,
        tokenizer: &Tokenizer,
        sides: Sides<'_>,
        (train, held_out): (&TokenizedPairs, &TokenizedPairs),
        batches: &[Vec<usize>],
        left_out: usize,
    ) -> Result<()> {
        for (name, model) in self.models {
            write_language_model(&folder.join(name), model, tokenizer)?;
        }
        let texts = BTreeMap::from([("train.jsonl", json_lines(sides.0)), ("eval.jsonl", json_lines(sides.1))]);
        let sha: BTreeMap<_, _> = texts.iter().map(|(name, t)| (*name, sha256_hex([t.as_bytes()], 64))).collect();
        let ids = BTreeMap::from([("train.jsonl", &train.hash), ("eval.jsonl", &held_out.hash)]);
        let per_step = self.train.batch_size.min(train.len());
        let settings = self.settings(train.max_length, per_step, &ids);
        let program = format!("train_{}.py", self.kind);
        let manifest = json!({
            "written_by": concat!("hhalign ", env!("CARGO_PKG_VERSION")), "kind": self.kind,
            "pairs": { "train.jsonl": train.len(), "eval.jsonl": held_out.len() },
            "sha256": sha, "ids": ids, "tokenizer": tokenizer.hash(), "weights": self.hashes,
            "settings": settings.iter().map(|(name, value)| (name.to_lowercase(), value.clone())).collect::<BTreeMap<_, _>>(),
            "short_batches_left_out": left_out,
        });
        let mut all: Vec<(String, String)> = texts.into_iter().map(|(name, text)| (name.into(), text)).collect();
        all.push(("batches.json".into(), json!(batches).to_string() + "\n"));
        all.push(("export.json".into(), format!("{manifest:#}\n")));
        all.push((program.clone(), self.program(&settings)));
        all.push(("accelerate.yaml".into(), trl::accelerate_yaml(processes(per_step))));
        all.push(("requirements.txt".into(), REQUIREMENTS.into()));
        all.push((
            "README.md".into(),
            trl::readme((&program, self.kind), (per_step, left_out), self.models[0].1.config.dropout, self.per_token),
        ));
        all.iter().try_for_each(|(name, text)| files::write_atomic(&folder.join(name), text.as_bytes()))
    }

    /// Names and values at the top of the program.
    fn settings(
        &self,
        max_length: usize,
        per_step: usize,
        ids: &BTreeMap<&str, &String>,
    ) -> Vec<(&'static str, Value)> {
        let t = self.train;
        let mut settings = self.own.clone();
        settings.extend([
            ("LEARNING_RATE", json!(t.learning_rate)),
            ("MIN_LR_RATIO", json!(t.min_lr_ratio)),
            ("WARMUP_STEPS", json!(t.warmup_steps)),
            ("MAX_STEPS", json!(t.max_steps)),
            ("BATCH_SIZE", json!(per_step)),
            ("PAIRS_PER_PASS", json!(t.micro_batch_size)),
            ("ADAM_BETAS", json!([t.adamw.beta1, t.adamw.beta2])),
            ("ADAM_EPSILON", json!(t.adamw.epsilon)),
            ("WEIGHT_DECAY", json!(t.adamw.weight_decay)),
            ("MAX_GRAD_NORM", json!(t.max_grad_norm)),
            ("MAX_LENGTH", json!(max_length)),
            ("EVAL_EVERY", json!(t.eval_every)),
            ("PATIENCE", json!(t.patience)),
            ("LOG_EVERY", json!(t.log_every)),
            ("SAVE_EVERY", json!(t.checkpoint_every)),
            ("GRADIENT_CHECKPOINTING", json!(t.compute.checkpoint_activations)),
            ("SEED", json!(t.seed)),
            ("IDS", json!(ids)),
        ]);
        settings
    }

    fn program(&self, settings: &[(&'static str, Value)]) -> String {
        let mut text =
            format!("\"\"\"{}\n\nWritten by hhalign; README.md says how to start it.\n\"\"\"\n", trl::about(self.kind));
        text += "# The settings of the run, as hhalign had them.\n";
        for (name, value) in settings {
            let _ = writeln!(text, "{name} = {}", trl::python(value));
        }
        format!("{text}\n{COMMON}\n\n{}", self.body)
    }
}

/// Two processes where they divide the batch.
fn processes(per_step: usize) -> usize {
    if per_step.is_multiple_of(2) { 2 } else { 1 }
}

/// The pairs of every step, in the order of the run here; a batch that the epoch's end cuts short is left out, since
/// processes share out steps of one size only. Also how many were.
fn full_batches(pairs: &TokenizedPairs, train: &TrainConfig) -> (Vec<Vec<usize>>, usize) {
    let size = train.batch_size.min(pairs.len());
    let (mut batches, mut left_out) = (vec![], 0);
    for epoch in 0.. {
        for batch in pairs.epoch(train.batch_size, train.seed, epoch) {
            if batches.len() == train.max_steps {
                return (batches, left_out);
            }
            if batch.len() == size { batches.push(batch) } else { left_out += 1 }
        }
    }
    unreachable!("an epoch has a full batch")
}

/// One pair a line, as TRL reads preferences.
fn json_lines(pairs: &[Pair]) -> String {
    let line = |p: &Pair| json!({ "prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected }).to_string() + "\n";
    pairs.iter().map(line).collect()
}
