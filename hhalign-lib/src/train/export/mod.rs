//! The export of a run: a folder from which accelerate trains in several processes, on the same
//! ids, in the same batches, with the same settings.
//!
//! The folder has the model in transformers' format, both sides of the split as texts, the pairs of
//! every step, and a program with the settings at its top. The program tokenises the texts again
//! and starts only if the hash of the ids is the one written here.
//!
//! This file plans and writes the folder; `trl.rs` translates losses and values and has the texts;
//! `common.py`, `dpo.py` and `sft.py` are the programs below their settings.

mod trl;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::base::error::{Error, Result};
use crate::base::files;
use crate::base::rng::sha256_hex;
use crate::data::Pair;
use crate::data::batch::TokenizedPairs;
use crate::data::tokenize::Tokenizer;
use crate::loss::PreferenceLoss;
use crate::model::Gpt;
use crate::model::checkpoint::write_language_model;
use crate::train::{Dpo, Sft, TrainConfig};

/// The Python packages that the programs were tested with.
const REQUIREMENTS: &str =
    "torch==2.8.0\ntransformers==4.56.2\naccelerate==1.15.0\ndatasets==5.0.1\ntrl==0.23.0\n";

/// The parts of the programs below their settings.
const COMMON: &str = include_str!("common.py");
const DPO: &str = include_str!("dpo.py");
const SFT: &str = include_str!("sft.py");

/// The two sides of a split as texts: training pairs and held-out pairs.
pub type Sides<'a> = (&'a [Pair], &'a [Pair]);

/// Writes a folder in which TRL's `DPOTrainer` makes the same run as [`Dpo::fit`], in any number of
/// processes that divides the batch.
///
/// `max_length` is that of the run's [`TokenizedPairs`]. The run begins at its first step with a
/// fresh optimiser; an earlier run is exported as weights only. The folder's `README.md` lists the
/// differences. The folder is complete or absent.
///
/// # Errors
/// A loss or a setting that TRL does not have, pairs that do not fit the model, or a folder that is
/// not empty.
///
/// # Example
/// ```
/// use hhalign::data::Dataset;
/// use hhalign::train::export::export_dpo;
/// use hhalign::model::{Gpt, Preset};
/// use hhalign::data::tokenize::Tokenizer;
/// use hhalign::train::Dpo;
/// let split = Dataset::embedded(1, 100)?.split(0.1)?;
/// let tokenizer = Tokenizer::train(&split.train, 300)?;
/// let policy = Gpt::new(Preset::Toy.config(300), 1)?;
/// let folder = std::env::temp_dir().join(format!("export-{}", std::process::id()));
/// let (reference, sides) = (policy.freeze()?, (&split.train[..], &split.held_out[..]));
/// export_dpo(&Dpo::default(), &policy, &reference, &tokenizer, sides, 256, &folder)?;
/// let program = std::fs::read_to_string(folder.join("train_dpo.py")).unwrap();
/// assert!(program.contains("BETA = 0.1"));
/// # std::fs::remove_dir_all(folder).unwrap();
/// # Ok::<(), hhalign::base::error::Error>(())
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
        let fix = "set rpo_alpha = 0: TRL weights the likelihood term by the tokens of a batch, \
                   hhalign by reply";
        return Err(Error::new(
            "TRL computes RPO's term differently",
            dpo.rpo_alpha.to_string(),
            fix,
        ));
    }
    let loss = trl::loss_settings(&dpo.loss)?;
    let (policy_hash, reference_hash) = (policy.hash()?, reference.hash()?);
    let differ = policy_hash != reference_hash;
    let own = vec![
        ("BETA", json!(dpo.beta)),
        ("LOSS", json!(loss)),
        ("REFERENCE", json!(if differ { "reference" } else { "model" })),
        ("DROPOUT", json!(policy.config.dropout)),
    ];
    let models: &[(&str, &Gpt)] =
        &[("model", policy), ("reference", reference)][..1 + usize::from(differ)];
    let hashes = json!({ "model": policy_hash, "reference": reference_hash });
    let per_token = dpo.loss == PreferenceLoss::IpoPerToken;
    let plan = Plan { kind: "dpo", train: &dpo.train, models, hashes, own, body: DPO, per_token };
    plan.write(tokenizer, sides, max_length, folder.as_ref())
}

/// Writes a folder in which transformers' `Trainer` makes the same run as [`Sft::fit`]; see
/// [`export_dpo`].
///
/// # Errors
/// A setting that transformers does not have, pairs that do not fit the model, or a folder that is
/// not empty.
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

/// The contents of the folder.
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
    fn write(
        &self,
        tokenizer: &Tokenizer,
        sides: Sides<'_>,
        max_length: usize,
        folder: &Path,
    ) -> Result<PathBuf> {
        self.train.check()?;
        if let Some(pitfall) = self.train.pitfall {
            let fix = "set pitfall = None: deliberate mistakes are for lessons only";
            return Err(Error::new("a pitfall is not exported", pitfall.name(), fix));
        }
        if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
            || folder.is_file()
        {
            let fix = "give another name, or move the existing files away";
            return Err(Error::file(
                "the folder for the export is not empty",
                folder.display().to_string(),
                fix,
            ));
        }
        let block = self.models[0].1.config.block_size;
        if max_length > block {
            let got = format!("max_length {max_length}, block_size {block}");
            return Err(Error::new(
                "the sequences are longer than the model's block",
                got,
                "lower max_length",
            ));
        }
        tokenizer.check_fits(self.models[0].1.config.vocab_size)?;
        let ids = [sides.0, sides.1].map(|pairs| TokenizedPairs::new(pairs, tokenizer, max_length));
        let [train, held_out] = ids;
        let (train, held_out) = (train?, held_out?);
        if train.is_empty() || held_out.is_empty() {
            let got = format!("{} to train on, {} held out", train.len(), held_out.len());
            return Err(Error::new(
                "an export needs pairs on both sides",
                got,
                "give both sides of a split",
            ));
        }
        let (batches, left_out) = full_batches(&train, self.train);
        // The files are written to a temporary folder, so that nobody starts from an incomplete
        // one.
        let temporary = files::temporary_beside(folder)?;
        let written =
            self.fill(&temporary, tokenizer, sides, (&train, &held_out), &batches, left_out);
        let placed =
            written.and_then(|()| fs::rename(&temporary, folder).map_err(|e| Error::io(folder, e)));
        if placed.is_err() {
            let _ = fs::remove_dir_all(&temporary);
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
        let texts = BTreeMap::from([
            ("train.jsonl", json_lines(sides.0)),
            ("eval.jsonl", json_lines(sides.1)),
        ]);
        let sha: BTreeMap<_, _> =
            texts.iter().map(|(name, t)| (*name, sha256_hex([t.as_bytes()], 64))).collect();
        let ids = BTreeMap::from([("train.jsonl", &train.hash), ("eval.jsonl", &held_out.hash)]);
        let per_step = self.train.batch_size.min(train.len());
        let settings = self.settings(train.max_length, per_step, &ids);
        let program = format!("train_{}.py", self.kind);
        let lower_case: BTreeMap<_, _> =
            settings.iter().map(|(name, value)| (name.to_lowercase(), value)).collect();
        let manifest = json!({
            "written_by": concat!("hhalign ", env!("CARGO_PKG_VERSION")), "kind": self.kind,
            "pairs": { "train.jsonl": train.len(), "eval.jsonl": held_out.len() },
            "sha256": sha, "ids": ids, "tokenizer": tokenizer.hash(), "weights": self.hashes,
            "settings": lower_case,
            "short_batches_left_out": left_out,
        });
        let mut all: Vec<(String, String)> =
            texts.into_iter().map(|(name, text)| (name.into(), text)).collect();
        all.push(("batches.json".into(), json!(batches).to_string() + "\n"));
        all.push(("export.json".into(), format!("{manifest:#}\n")));
        all.push((program.clone(), self.program(&settings)));
        all.push(("accelerate.yaml".into(), trl::accelerate_yaml(processes(per_step))));
        all.push(("requirements.txt".into(), REQUIREMENTS.into()));
        all.push((
            "README.md".into(),
            trl::readme(
                (&program, self.kind),
                (per_step, left_out),
                self.models[0].1.config.dropout,
                self.per_token,
            ),
        ));
        all.iter()
            .try_for_each(|(name, text)| files::write_atomic(&folder.join(name), text.as_bytes()))
    }

    /// Returns names and values for the top of the program.
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
        let mut text = format!(
            "\"\"\"{}\n\nWritten by hhalign; README.md says how to start it.\n\"\"\"\n",
            trl::about(self.kind)
        );
        text += "# The settings of the run in hhalign.\n";
        for (name, value) in settings {
            let _ = writeln!(text, "{name} = {}", trl::python(value));
        }
        format!("{text}\n{COMMON}\n\n{}", self.body)
    }
}

/// Returns two processes if they divide the batch, else one.
fn processes(per_step: usize) -> usize {
    if per_step.is_multiple_of(2) { 2 } else { 1 }
}

/// Returns the pairs of every step, in the order of the run here, and the number of batches left
/// out.
///
/// A batch cut short by the end of an epoch is left out, since the processes need steps of equal
/// size.
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

/// Writes one pair per line, in TRL's preference format.
fn json_lines(pairs: &[Pair]) -> String {
    let line = |p: &Pair| {
        json!({ "prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected }).to_string() + "\n"
    };
    pairs.iter().map(line).collect()
}
