//! Judges of replies with one trait: people, a reward model, a chat model.

mod address;
mod answers;
pub mod chat;
mod config;
mod endpoint;
mod instructions;
mod panel;
mod people;
mod reward;
mod usage;

pub use chat::ChatJudge;
pub use panel::{HeadToHead, head_to_head};
pub use people::People;
pub use reward::RewardJudge;

use crate::base::error::Result;
use crate::eval::preferences::judgements::Preference;
use crate::infer::sample::Reply;

/// Two replies to one prompt, in the order in which a judge sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Question<'a> {
    /// The dialogue that both answer.
    pub prompt: &'a str,
    /// The reply shown as A.
    pub a: &'a str,
    /// The reply shown as B.
    pub b: &'a str,
}

/// A judge of which of two replies is better.
pub trait Judge {
    /// The identity: name, version, and the hash of weights or of instructions, which accompanies
    /// every value.
    fn identity(&self) -> String;

    /// Judges each question, in their order; `None` if a question was not judged.
    ///
    /// # Errors
    /// The judge fails. Earlier judgements are kept if they cost money or time.
    fn judge(&self, questions: &[Question<'_>]) -> Result<Vec<Option<Preference>>>;
}

/// A judge that gives each reply a number, so that replies of many models are on one scale.
pub trait RewardScorer {
    /// As [`Judge::identity`].
    fn identity(&self) -> String;

    /// Returns the reward of each reply to its prompt; only differences between replies to one
    /// prompt are meaningful.
    ///
    /// # Errors
    /// Lists of different lengths, or an error of the model.
    fn rewards(&self, prompts: &[String], replies: &[Reply]) -> Result<Vec<f64>>;
}
