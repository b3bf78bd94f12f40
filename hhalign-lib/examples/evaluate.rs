//! The whole evaluation of two saved models on held-out prompts of the embedded set, and how long it takes.
//!
//! usage: evaluate [--results FOLDER] [--prompts N] [--samples K] [--toxicity FOLDER]
//!
//! FOLDER holds best_sft_model and dpo_final_model, as ./scripts/run leaves them. β is read from the summary of that run; a
//! folder without one has none.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use hhalign::prelude::*;

const USAGE: &str = "usage: evaluate [--results FOLDER] [--prompts N] [--samples K] [--toxicity FOLDER]";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut given: BTreeMap<&str, &str> = BTreeMap::new();
    for pair in arguments.chunks(2) {
        match pair {
            [name, value] if ["--results", "--prompts", "--samples", "--toxicity"].contains(&name.as_str()) => {
                given.insert(name, value)
            }
            other => return Err(Error::new("these arguments cannot be read", other.join(" "), USAGE)),
        };
    }
    let number = |name: &str, default: usize| match given.get(name) {
        Some(text) => text.parse().map_err(|_| Error::new(format!("{name} needs a whole number"), *text, USAGE)),
        None => Ok(default),
    };
    let (n, k) = (number("--prompts", 200)?, number("--samples", 4)?);
    let results = PathBuf::from(given.get("--results").unwrap_or(&"results"));
    let toxicity = PathBuf::from(given.get("--toxicity").unwrap_or(&".cache/toxicity"));

    let options = RunOptions { toxicity, ..RunOptions::default() };
    let data = options.dataset()?;
    let mut split = data.split(0.1)?;
    let judge_pairs = options.judge_pairs(&mut split)?;
    let (sft, tokenizer) = load_model(results.join("best_sft_model"), false)?;
    let (dpo, _) = load_model(results.join("dpo_final_model"), false)?;
    let block = sft.config.block_size;
    let held_out = TokenizedPairs::new(&split.held_out, &tokenizer, block)?;

    let clock = Instant::now();
    let timed = |what: &str| eprintln!("{:>6.1} s  {what}", clock.elapsed().as_secs_f64());
    let mut config = options.reward();
    config.train.progress = false;
    let (judge_train, watched) = TokenizedPairs::new(&judge_pairs, &tokenizer, block)?.divide(0.9);
    let reward = RewardModel::train(&config, &sft, &judge_train, &watched, None)?;
    let judge = RewardJudge::new(reward, &tokenizer, &held_out)?;
    timed("reward model trained");

    let settings = EvalSettings { prompts: n, samples: k, refusal_prompts: n / 2, ..options.evaluation() };
    let bench = EvalBench::new(settings, &data, &split, &held_out, &tokenizer)?
        .with_classifier(options.classifier()?)
        .with_judge(judge, judge_pairs.len());
    let first = bench.evaluate("SFT", &sft)?;
    timed("SFT evaluated");
    let second = bench.evaluate("DPO", &dpo)?;
    timed("DPO evaluated");
    let table = bench.compare(&first, &second)?.trained_in(&results)?;
    timed("compared");
    println!("{}", table.table()?);
    println!(
        "{} prompts, {k} samples, {} metrics, two models: {:.1} s, the training of the judge included",
        bench.prompts().len(),
        table.rows().len(),
        clock.elapsed().as_secs_f64()
    );
    if table.provenance().beta.is_none() {
        println!("β is not known: the folder has no summary of a run with these weights");
    }
    Ok(())
}
