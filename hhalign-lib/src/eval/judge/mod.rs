//! Judges of replies behind one trait: people, a reward model, a chat model.

mod panel;
mod people;

pub use panel::{HeadToHead, head_to_head};
pub use people::People;

use super::judgements::Preference;
use crate::error::Result;

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
