//! `hhalign export`: a training of a run, to be continued elsewhere.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use hhalign::notebook::options::parse;
use hhalign::prelude::*;
use hhalign::train::export::{export_dpo, export_sft};

use crate::Failure;
use crate::repository::{run_options, usual_results};

/// Pairs that the run watches while it trains.
const WATCHED: usize = 200;

/// Export the SFT or the DPO training of a run as a folder for transformers, TRL and accelerate.
///
/// The training is that of notebook 01_pipeline: the options that the run left in its results
/// folder, the same pairs in every step, and for dpo the model that SFT had found best.
#[derive(Args)]
pub struct Export {
    /// The training.
    training: Training,
    /// The folder to write; it must be new or empty.
    #[arg(value_parser = parse::folder)]
    folder: PathBuf,
    /// Results folder of the run; without it, results/ in the repository.
    #[arg(long, value_name = "FOLDER", value_parser = parse::folder)]
    results: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Training {
    /// Supervised fine-tuning
    Sft,
    /// Direct preference optimisation
    Dpo,
}

impl Export {
    pub fn run(self) -> Result<(), Failure> {
        let results = self.results.unwrap_or_else(usual_results);
        let missing = || {
            let got = format!("no {} in {}", RunOptions::FILE, results.display());
            Error::new("there is no run to export", got, "./scripts/run leaves its options there")
        };
        let options = run_options(&results)?.ok_or_else(missing)?;
        let data = options.dataset()?;
        let mut split = data.split(0.1)?;
        // Takes the judge's pairs out of real data, as the run does.
        options.judge_pairs(&mut split)?;
        let watched = split.held_out_sample(WATCHED);
        let sides = (split.train.as_slice(), watched.as_slice());
        let folder = match self.training {
            Training::Sft => {
                let tokenizer = options.tokenizer(&split.train)?;
                let model = options.model(&tokenizer)?;
                let length = model.config.block_size;
                export_sft(&options.sft(), &model, &tokenizer, sides, length, &self.folder)?
            }
            Training::Dpo => {
                let (model, tokenizer) = load_model(results.join("best_sft_model"), false)?;
                let length = model.config.block_size;
                export_dpo(&options.dpo(), &model, &model, &tokenizer, sides, length, &self.folder)?
            }
        };
        println!("exported to {}; its README.md says how to start it", folder.display());
        Ok(())
    }
}
