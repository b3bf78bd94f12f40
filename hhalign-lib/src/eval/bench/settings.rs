//! How models are evaluated: the numbers of prompts and replies, the seed, and how models are computed.

use crate::error::{Error, Result};
use crate::fused::Compute;

/// How models are evaluated.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalSettings {
    /// Seed of replies, prompts for refusal, intervals and tests.
    pub seed: u64,
    /// Held-out prompts that are answered, at most.
    pub prompts: usize,
    /// Replies to each of them.
    pub samples: usize,
    /// Temperature of the replies.
    pub temperature: f64,
    /// Longest reply, in tokens.
    pub max_new_tokens: usize,
    /// Prompts for refusal of each kind, harmful and look-alike.
    pub refusal_prompts: usize,
    /// How the models are computed. Classifiers and a language model from a GGUF file have their own passes, which run on
    /// the processor in f32.
    pub compute: Compute,
    /// What a summary calls the models' size; `None` leaves it out.
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
    /// Says what is wrong with the settings, if anything; [`EvalBench::new`](super::EvalBench::new) calls it.
    ///
    /// # Errors
    /// No prompt, or no reply to it.
    pub fn check(&self) -> Result<()> {
        if self.prompts > 0 && self.samples > 0 {
            return Ok(());
        }
        let got = format!("{} prompts, {} replies to each", self.prompts, self.samples);
        Err(Error::new("an evaluation needs replies", got, "start from EvalSettings::default()"))
    }
}
