//! Exports of one small model with every loss that can go, and what our own trainer makes of the
//! same settings, for `scripts/checks/check_export.py`.

use std::path::Path;

use hhalign::prelude::*;
use hhalign::train::export::{export_dpo, export_sft};

/// Steps of each run: enough for the rate to warm up and fall, and for an epoch to end.
const STEPS: usize = 6;

/// Short enough for some prompts and replies to be cut.
const MAX_LENGTH: usize = 96;

/// Writes a folder for each export.
pub fn write(folder: &str) -> Result<()> {
    let folder = Path::new(folder);
    let data = Dataset::embedded(0, 400)?;
    let split = data.split(0.1)?;
    let (train, held_out) = (&split.train[..72], &split.held_out[..16]);
    let tokenizer = Tokenizer::train(&split.train, 600)?;
    let ids = [train, held_out].map(|pairs| TokenizedPairs::new(pairs, &tokenizer, MAX_LENGTH));
    let [train_ids, held_ids] = ids;
    let (train_ids, held_ids) = (train_ids?, held_ids?);
    println!("{} prompts and {} replies are cut", train_ids.prompts_cut, train_ids.replies_cut);

    let settings = TrainConfig {
        learning_rate: 1e-3,
        warmup_steps: 2,
        max_steps: STEPS,
        // 72 pairs are four full batches and a short one: the epoch ends within the run.
        batch_size: 16,
        micro_batch_size: 4,
        eval_every: 3,
        log_every: 1,
        progress: false,
        ..TrainConfig::default()
    };
    let mut model = Gpt::new(Preset::Toy.config(tokenizer.vocab_size()), 0)?;
    let first = Sft { train: TrainConfig { max_steps: 30, ..settings.clone() } };
    first.fit(&mut model, &train_ids, &held_ids)?;

    // Runs here have the full batches only, as processes that share out steps have.
    let full = train_ids.head(64);
    let whole = &train[..64];
    let sft = Sft { train: TrainConfig { learning_rate: 3e-4, ..settings.clone() } };
    export_sft(&sft, &model, &tokenizer, (whole, held_out), MAX_LENGTH, folder.join("sft/export"))?;
    let mut tuned = model.fork()?;
    keep(&folder.join("sft"), &sft.fit(&mut tuned, &full, &held_ids)?, &tuned, &tokenizer)?;

    let mut refused = serde_json::Map::new();
    for loss in PreferenceLoss::ALL {
        let dpo = Dpo {
            loss,
            train: TrainConfig { learning_rate: 3e-4, ..settings.clone() },
            ..Dpo::default()
        };
        let place = folder.join(loss.name());
        let sides = (whole, held_out);
        match export_dpo(
            &dpo,
            &model,
            &model.freeze()?,
            &tokenizer,
            sides,
            MAX_LENGTH,
            place.join("export"),
        ) {
            Err(error) => drop(refused.insert(loss.name().into(), error.got().into())),
            Ok(_) => {
                let mut policy = model.fork()?;
                let run = dpo.fit(&mut policy, &model.freeze()?, &full, &held_ids)?;
                keep(&place, &run, &policy, &tokenizer)?;
            }
        }
    }
    // One export whose steps do not fill the epoch, and which has a reference of its own.
    let dpo = Dpo { train: settings, ..Dpo::default() };
    export_dpo(
        &dpo,
        &tuned,
        &model,
        &tokenizer,
        (train, held_out),
        MAX_LENGTH,
        folder.join("apart/export"),
    )?;
    hhalign::base::files::write_atomic(
        &folder.join("refused.json"),
        serde_json::Value::from(refused).to_string().as_bytes(),
    )
}

/// The metrics of a run here and the model it ended with.
fn keep(folder: &Path, run: &Outcome, model: &Gpt, tokenizer: &Tokenizer) -> Result<()> {
    let steps: Vec<_> = run
        .history
        .records
        .iter()
        .map(|r| serde_json::json!({ "step": r.step, "metrics": r.metrics }))
        .collect();
    save_model(model, tokenizer, folder.join("ours"))?;
    hhalign::base::files::write_atomic(
        &folder.join("ours.json"),
        serde_json::json!(steps).to_string().as_bytes(),
    )
}
