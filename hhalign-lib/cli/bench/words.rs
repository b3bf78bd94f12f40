//! The words after the sizes: how to compute, and how much.

use std::path::PathBuf;

use clap::Args;
use hhalign::base::error::{Error, Result};
use hhalign::compute::{Compute, Device, Precision};
use hhalign::notebook::options::parse::{self, count};

use crate::Failure;

const WORDS: &str = "f32, bf16, f16, auto, tf32, cpu, composed, checkpoint, micro N, pairs N, \
                     prompts N, tokens N, toxicity FOLDER";

/// Words as they were given.
#[derive(Args)]
pub struct Words {
    /// Any of: f32, bf16, f16, auto, tf32, cpu, composed, checkpoint, micro N; for the pipeline
    /// also pairs N, prompts N, tokens N, toxicity FOLDER.
    #[arg(value_name = "WORD")]
    words: Vec<String>,
}

/// What the words say.
#[derive(Default)]
pub struct Plan {
    /// How passes run.
    pub compute: Compute,
    /// Sequences or pairs in a pass.
    pub micro: Option<usize>,
    /// Pairs of the data at most.
    pub pairs: Option<usize>,
    /// Prompts that are answered at most.
    pub prompts: Option<usize>,
    /// Longest reply in tokens.
    pub tokens: Option<usize>,
    /// Folder of the toxicity classifier.
    pub toxicity: Option<PathBuf>,
}

impl Words {
    /// Reads the words.
    ///
    /// # Errors
    /// An unknown word, or one whose number or folder cannot be read.
    pub fn plan(&self) -> Result<Plan, Failure> {
        self.read().map_err(Failure::Usage)
    }

    fn read(&self) -> Result<Plan> {
        let mut plan = Plan::default();
        let mut words = self.words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            let mut value = || {
                let fix = format!("write it after {word}");
                words
                    .next()
                    .ok_or_else(|| Error::new(format!("{word} needs a value"), "nothing", fix))
            };
            match word {
                "tf32" => plan.compute.tf32 = true,
                "cpu" => plan.compute.device = Device::Cpu,
                "composed" => plan.compute.composed = true,
                "checkpoint" => plan.compute.checkpoint_activations = true,
                "micro" => plan.micro = Some(number(word, value)?),
                "pairs" => plan.pairs = Some(number(word, value)?),
                "prompts" => plan.prompts = Some(number(word, value)?),
                "tokens" => plan.tokens = Some(number(word, value)?),
                "toxicity" => {
                    plan.toxicity = Some(parse::folder(value()?).map_err(|e| e.at(word))?)
                }
                name => match Precision::from_name(name) {
                    Ok(precision) => plan.compute.precision = precision,
                    Err(_) => {
                        return Err(Error::new(
                            "there is no such word",
                            name,
                            format!("there are {WORDS}"),
                        ));
                    }
                },
            }
        }
        Ok(plan)
    }
}

fn number<'a>(word: &str, value: impl FnOnce() -> Result<&'a str>) -> Result<usize> {
    count(value()?).map_err(|e| e.at(word))
}
