//! Judges of replies behind one trait: people, a reward model, a chat model.

mod answers;
pub mod chat;
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

use super::judgements::Preference;
use crate::error::Result;
use crate::sample::Reply;

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

/// Something that says which of two replies is better.
pub trait Judge {
    /// Who judges: name, version, and the hash of weights or of instructions; it stands beside every figure.
    fn identity(&self) -> String;

    /// One judgement for each question, in their order; `None` where a question was not judged.
    ///
    /// # Errors
    /// The judge cannot be asked. What was judged before is not lost where asking costs money or time.
    fn judge(&self, questions: &[Question<'_>]) -> Result<Vec<Option<Preference>>>;
}

/// A judge that gives each reply a number, so that replies of many models lie on one scale.
pub trait RewardScorer {
    /// As [`Judge::identity`].
    fn identity(&self) -> String;

    /// The reward of each reply to its prompt; only differences between replies to one prompt mean something.
    ///
    /// # Errors
    /// Lists of different lengths, or a failure of the model.
    fn rewards(&self, prompts: &[String], replies: &[Reply]) -> Result<Vec<f64>>;
}
