//! Settings of an evaluation: numbers of prompts and replies, the seed, and the computation.

use crate::base::error::{Error, Result};
use crate::compute::Compute;

/// Settings of an evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalSettings {
    /// Seed of replies, refusal prompts, intervals and tests.
    pub seed: u64,
    /// The most held-out prompts to answer.
    pub prompts: usize,
    /// Replies to each prompt.
    pub samples: usize,
    /// Temperature of the replies.
    pub temperature: f64,
    /// Longest reply, in tokens.
    pub max_new_tokens: usize,
    /// Refusal prompts of each kind, harmful and look-alike.
    pub refusal_prompts: usize,
    /// How the models are computed. Classifiers and a language model from a GGUF file always run on
    /// the processor in f32.
    pub compute: Compute,
    /// The name of the models' size in a summary; `None` leaves it out.
    pub model: Option<String>,
}

impl Default for EvalSettings {
    fn default() -> Self {
        Self {
            seed: 0,
            prompts: 600,
            samples: 4,
            temperature: 0.7,
            max_new_tokens: 64,
            refusal_prompts: 250,
            compute: Compute::default(),
            model: None,
        }
    }
}

impl EvalSettings {
    /// Checks the settings; [`EvalBench::new`](super::EvalBench::new) calls it.
    ///
    /// # Errors
    /// No prompt, or no reply.
    pub fn check(&self) -> Result<()> {
        if self.prompts > 0 && self.samples > 0 {
            return Ok(());
        }
        let got = format!("{} prompts, {} replies to each", self.prompts, self.samples);
        Err(Error::new("an evaluation needs replies", got, "start from EvalSettings::default()"))
    }
}
