use hhalign::batch::TokenizedPairs;
use hhalign::data::Dataset;
use hhalign::error::Result;
use hhalign::loss::Values;
use hhalign::model::{Gpt, Preset};
use hhalign::tokenize::Tokenizer;
use hhalign::train::{Dpo, Sft, evaluate_preferences};
use std::time::Instant;

fn arg(name: &str, default: f64) -> f64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn main() -> Result<()> {
    let t = Instant::now();
    let data = Dataset::embedded(0, 4000)?;
    println!("{}\n{}", data.audit.table()?, data.split(0.1)?.table()?);
    let split = data.split(0.1)?;
    let tokenizer = Tokenizer::train(&split.train, arg("V", 1024.) as usize)?;
    let mut config = Preset::Toy.config(tokenizer.vocab_size());
    config.n_layer = arg("L", 4.) as usize;
    config.n_embd = arg("D", 128.) as usize;
    let train = TokenizedPairs::new(&split.train, &tokenizer, config.block_size)?;
    let held = TokenizedPairs::new(&split.held_out, &tokenizer, config.block_size)?;
    let watch = TokenizedPairs::new(&split.held_out_sample(200), &tokenizer, config.block_size)?;
    println!("{}\n{} parameters, {:.1} s", train.table()?, config.n_parameters(), t.elapsed().as_secs_f64());
    let mut model = Gpt::new(config, 0)?;
    let mut sft = Sft::default();
    sft.train.max_steps = arg("SFT", 300.) as usize;
    sft.train.learning_rate = arg("SFT_LR", 2e-3);
    sft.train.batch_size = arg("B", 32.) as usize;
    sft.train.log_every = 25;
    let run = sft.fit(&mut model, &train, &watch)?;
    println!("sft best {:?} {:.1} s", run.best, run.seconds);
    let reference = model.freeze()?;
    let mut dpo = Dpo::default();
    dpo.train.max_steps = arg("DPO", 110.) as usize;
    dpo.train.learning_rate = arg("DPO_LR", 5e-4);
    dpo.train.log_every = 10;
    dpo.train.warmup_steps = 10;
    dpo.train.batch_size = arg("DB", 32.) as usize;
    let t = Instant::now();
    let mut policy = model.fork()?;
    let run = dpo.fit(&mut policy, &reference, &train, &watch)?;
    println!("dpo best {:?} {:.1} s, {:.1} with reference", run.best, run.seconds, t.elapsed().as_secs_f64());
    let reference = hhalign::score::score_pairs(&model, &held)?;
    let logps = evaluate_preferences(&policy, &reference, &held)?;
    let rewards = logps.rewards(0.1);
    println!(
        "held-out accuracy {:.3} of {}  a {:.2}",
        rewards.correct() / held.len() as f64,
        held.len(),
        Values::mean(&logps.chosen_logratios())
    );
    let m = rewards.margins();
    for kind in ["Helpful", "Harmful", "LookAlike"] {
        let rows: Vec<usize> =
            (0..held.len()).filter(|&i| format!("{:?}", split.held_out[i].kind.unwrap()) == kind).collect();
        println!(
            "  {kind}: {:.3} of {}",
            rows.iter().filter(|&&i| m[i] > 0.).count() as f64 / rows.len() as f64,
            rows.len()
        );
    }
    Ok(())
}
