//! `hhalign evaluate`: saved models on held-out prompts.

mod refusal_detector;

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, Subcommand};
use hhalign::notebook::options::parse::{self, count};
use hhalign::prelude::*;

use crate::Failure;
use crate::repository::{run_options, usual_results, usual_toxicity};

/// Evaluate the two models of a run by all metrics on held-out prompts, and say how long it took.
///
/// The results folder holds best_sft_model and dpo_final_model, as a run leaves them, and the
/// run's options, which give the data and the seed. A folder without options is evaluated on the
/// synthetic set. β is read from the run's summary; a folder without one has none.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Evaluate {
    #[command(subcommand)]
    instrument: Option<Instrument>,
    #[command(flatten)]
    models: Models,
}

#[derive(Subcommand)]
enum Instrument {
    RefusalDetector(refusal_detector::RefusalDetector),
}

#[derive(Args)]
struct Models {
    /// Results folder of the run; without it, results/ in the repository.
    #[arg(long, value_name = "FOLDER", value_parser = parse::folder)]
    results: Option<PathBuf>,
    /// Held-out prompts that are answered, at most.
    #[arg(long, value_name = "N", value_parser = count, default_value = "200")]
    prompts: usize,
    /// Replies to each of them.
    #[arg(long, value_name = "N", value_parser = count, default_value = "4")]
    samples: usize,
    /// Folder of the small toxicity classifier; without it, that of the run's options.
    #[arg(long, value_name = "FOLDER", value_parser = parse::folder)]
    toxicity: Option<PathBuf>,
}

impl Evaluate {
    pub fn run(self) -> Result<(), Failure> {
        match self.instrument {
            Some(Instrument::RefusalDetector(detector)) => detector.run(),
            None => Ok(self.models.evaluate()?),
        }
    }
}

impl Models {
    fn evaluate(self) -> Result<()> {
        let results = self.results.unwrap_or_else(usual_results);
        let mut options = match run_options(&results)? {
            Some(options) => options,
            None => RunOptions { toxicity: usual_toxicity(), ..RunOptions::default() },
        };
        options.toxicity = self.toxicity.unwrap_or(options.toxicity);
        let (n, k) = (self.prompts, self.samples);
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
        let (judge_train, watched) =
            TokenizedPairs::new(&judge_pairs, &tokenizer, block)?.divide(0.9);
        let reward = RewardModel::train(&config, &sft, &judge_train, &watched, None)?;
        let judge = RewardJudge::new(reward, &tokenizer, &held_out)?;
        timed("reward model trained");

        let settings =
            EvalSettings { prompts: n, samples: k, refusal_prompts: n / 2, ..options.evaluation() };
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
}
