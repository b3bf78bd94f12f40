//! Deliberate mistakes that are easy to make and hard to see.

use std::borrow::Cow;

use rand::Rng as _;
use serde::{Deserialize, Serialize};

use crate::base::error::{Error, Result};
use crate::base::rng::stream;
use crate::data::batch::{TokenizedPair, TokenizedPairs};

/// A mistake for [`TrainConfig::pitfall`](super::TrainConfig::pitfall). Held-out pairs stay
/// unchanged, so that an evaluation shows the harm.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Pitfall {
    /// The loss includes the prompt's tokens: the model learns to imitate the human.
    UnmaskedPrompt,
    /// Replies have no end-of-text token: the model never learns to stop.
    NoEos,
    /// The loss includes padding: easy tokens make it look better than it is.
    PaddingLeak,
    /// The reference is not the policy's initial model.
    WrongReference,
    /// Chosen and rejected are swapped in a share of the pairs.
    FlippedLabels {
        /// The share, between 0 and 1.
        share: f64,
    },
    /// Dropout stays on while the policy is scored: its log-probabilities are noise around the
    /// reference's.
    DropoutLeftOn,
}

impl Pitfall {
    /// All pitfalls, with the settings of the lesson.
    pub const ALL: [Self; 6] = [
        Self::UnmaskedPrompt,
        Self::NoEos,
        Self::PaddingLeak,
        Self::WrongReference,
        Self::FlippedLabels { share: 0.4 },
        Self::DropoutLeftOn,
    ];

    /// Returns a name for figures and tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::UnmaskedPrompt => "prompt not masked",
            Self::NoEos => "no end of text",
            Self::PaddingLeak => "padding counted",
            Self::WrongReference => "wrong reference",
            Self::FlippedLabels { .. } => "labels flipped",
            Self::DropoutLeftOn => "dropout left on",
        }
    }

    /// Returns whether policy and reference differ at step 0 because of it, which the trainer's
    /// self-test would refuse.
    pub(super) fn breaks_the_self_test(self) -> bool {
        self == Self::WrongReference
    }

    /// Returns the training pairs with the mistake.
    ///
    /// # Errors
    /// A share outside [0, 1].
    ///
    /// # Example
    /// ```
    /// use hhalign::data::batch::{TokenizedPair, TokenizedPairs};
    /// use hhalign::train::Pitfall;
    /// let (prompt, chosen, rejected) = (vec![1, 2], vec![3, 0], vec![4, 5, 0]);
    /// let pair = TokenizedPair { prompt, chosen, rejected };
    /// let pairs = TokenizedPairs::from_ids(vec![pair], 8, 0);
    /// assert_eq!(Pitfall::NoEos.apply(&pairs, 0)?.pairs[0].chosen, [3]);
    /// assert_eq!(Pitfall::UnmaskedPrompt.apply(&pairs, 0)?.pairs[0].chosen, [2, 3, 0]);
    /// # Ok::<(), hhalign::base::error::Error>(())
    /// ```
    pub fn apply<'a>(
        &self,
        pairs: &'a TokenizedPairs,
        seed: u64,
    ) -> Result<Cow<'a, TokenizedPairs>> {
        let eos = pairs.eos_id();
        let changed: Vec<TokenizedPair> = match *self {
            Self::WrongReference | Self::DropoutLeftOn => return Ok(Cow::Borrowed(pairs)),
            // The first token stays the prompt, since nothing precedes it; the rest becomes part of
            // the reply.
            Self::UnmaskedPrompt => each(pairs, |p| {
                let with_prompt =
                    |reply: &[u32]| p.prompt.iter().skip(1).chain(reply).copied().collect();
                TokenizedPair {
                    prompt: p.prompt[..p.prompt.len().min(1)].to_vec(),
                    chosen: with_prompt(&p.chosen),
                    rejected: with_prompt(&p.rejected),
                }
            }),
            Self::NoEos => each(pairs, |p| {
                let without_eos = |reply: &[u32]| match reply.split_last() {
                    Some((last, rest)) if *last == eos && !rest.is_empty() => rest.to_vec(),
                    _ => reply.to_vec(),
                };
                TokenizedPair {
                    prompt: p.prompt.clone(),
                    chosen: without_eos(&p.chosen),
                    rejected: without_eos(&p.rejected),
                }
            }),
            Self::PaddingLeak => {
                let longest = pairs
                    .pairs
                    .iter()
                    .map(|p| p.chosen.len().max(p.rejected.len()))
                    .max()
                    .unwrap_or(0);
                each(pairs, |p| {
                    let padded = |reply: &[u32]| {
                        let mut reply = reply.to_vec();
                        reply.resize(
                            longest.min(pairs.max_length - p.prompt.len()).max(reply.len()),
                            eos,
                        );
                        reply
                    };
                    TokenizedPair {
                        prompt: p.prompt.clone(),
                        chosen: padded(&p.chosen),
                        rejected: padded(&p.rejected),
                    }
                })
            }
            Self::FlippedLabels { share } => {
                if !(0.0..=1.0).contains(&share) {
                    let fix = "0.4 shows the effect clearly";
                    return Err(Error::new(
                        "the share of flipped labels must lie in [0, 1]",
                        share.to_string(),
                        fix,
                    ));
                }
                let mut rng = stream(seed, "flipped labels", &[]);
                let mut flipped = pairs.pairs.clone();
                for pair in &mut flipped {
                    if rng.random::<f64>() < share {
                        std::mem::swap(&mut pair.chosen, &mut pair.rejected);
                    }
                }
                flipped
            }
        };
        Ok(Cow::Owned(TokenizedPairs::from_ids(changed, pairs.max_length, eos)))
    }
}

fn each(
    pairs: &TokenizedPairs,
    change: impl Fn(&TokenizedPair) -> TokenizedPair,
) -> Vec<TokenizedPair> {
    pairs.pairs.iter().map(change).collect()
}
