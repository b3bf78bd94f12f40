//! The whole evaluation of two saved models on held-out prompts of the embedded set, and how long it takes.
//!
//! usage: evaluate [--results FOLDER] [--prompts N] [--samples K] [--toxicity FOLDER]
//!
//! FOLDER holds best_sft_model and dpo_final_model, as ./scripts/run leaves them.

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
    let toxicity = given.get("--toxicity").unwrap_or(&".cache/toxicity");

    let seed = 0;
    let data = Dataset::embedded(seed, 4000)?;
    let mut split = data.split(0.1)?;
    let judge_pairs = RunOptions::default().judge_pairs(&mut split)?;
    let (sft, tokenizer) = load_model(results.join("best_sft_model"), false)?;
    let (dpo, _) = load_model(results.join("dpo_final_model"), false)?;
    let block = sft.config.block_size;
    let held_out = TokenizedPairs::new(&split.held_out, &tokenizer, block)?;

    let clock = Instant::now();
    let timed = |what: &str| eprintln!("{:>6.1} s  {what}", clock.elapsed().as_secs_f64());
    let config = RewardConfig {
        train: TrainConfig {
            max_steps: 60,
            learning_rate: 1e-3,
            eval_every: 20,
            progress: false,
            ..RewardConfig::default().train
        },
        ..RewardConfig::default()
    };
    let (judge_train, watched) = TokenizedPairs::new(&judge_pairs, &tokenizer, block)?.divide(0.9);
    let reward = RewardModel::train(&config, &sft, &judge_train, &watched, None)?;
    let judge = RewardJudge::new(reward, &tokenizer, &held_out)?;
    timed("reward model trained");

    let sampler = Sampler { temperature: 0.7, seed, ..Sampler::default() };
    let sample = split.held_out_sample(n);
    let prompts: Vec<String> = sample.iter().map(|p| p.prompt.clone()).collect();
    let refusal_prompts = RefusalPrompts::embedded(seed, n / 2)?;
    let draw = |model: &Gpt| -> Result<_> {
        let samples = sampler.samples(model, &tokenizer, &prompts, k)?;
        Ok((samples, sampler.replies(model, &tokenizer, &refusal_prompts.prompts)?))
    };
    let ((first, first_refusal), (second, second_refusal)) = (draw(&sft)?, draw(&dpo)?);
    timed("replies drawn");

    let mut table = Comparison::new(&data, &tokenizer, ("SFT", &sft), ("DPO", &dpo), (seed, 0.1))?;
    let reference = reference_logps(&sft, &held_out, None)?;
    let logps = evaluate_preferences(&dpo, &reference, &held_out)?;
    table.add_joint(&reward_accuracy(&logps.rewards(0.1), seed));
    table.add_joint(&head_to_head(&judge, &prompts, ("SFT", &first[0]), ("DPO", &second[0]), seed)?.rate);
    timed("ranking and judge");
    let refusal = |replies: &[Reply]| Refusal::by_matcher(&refusal_prompts, replies, seed);
    table.add_all(&refusal(&first_refusal)?, &refusal(&second_refusal)?)?;
    let likely = |model: &Gpt| likelihood_auc(&refusal_prompts, model, &tokenizer, seed);
    table.add(&likely(&sft)?, &likely(&dpo)?)?;
    timed("refusal");
    let classifier = Classifier::find(toxicity, None)?;
    let report = |samples: &[Vec<Reply>]| ToxicityReport::of(&classifier, &sample, samples, seed);
    table.add_all(&report(&first)?, &report(&second)?)?;
    timed("toxicity");
    for side in [Side::Chosen, Side::Rejected] {
        let of = |model: &Gpt| perplexity(model, &held_out, &split.held_out, side, seed);
        table.add_all(&of(&sft)?, &of(&dpo)?)?;
    }
    timed("perplexity");
    table.add_all(&quality(&first[0], seed), &quality(&second[0], seed))?;
    let novel = |replies: &[Reply]| novel_words(replies, &split.train, seed);
    table.add(&novel(&first[0]), &novel(&second[0]))?;
    timed("quality");
    println!("{}", table.table()?);
    println!(
        "{} prompts, {k} samples, {} metrics, two models: {:.1} s, the training of the judge included",
        prompts.len(),
        table.rows().len(),
        clock.elapsed().as_secs_f64()
    );
    Ok(())
}
