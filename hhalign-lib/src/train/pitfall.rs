//! Mistakes that are easy to make and hard to see, made on purpose.

use std::borrow::Cow;

use rand::Rng as _;
use serde::{Deserialize, Serialize};

use super::TrainConfig;
use crate::batch::{TokenizedPair, TokenizedPairs};
use crate::error::{Error, Result};
use crate::rng::stream;

/// A mistake for [`TrainConfig::pitfall`]. Held-out pairs stay as they are, so that an evaluation shows the harm.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Pitfall {
    /// The loss counts the prompt's tokens as well: the model learns to imitate the human.
    UnmaskedPrompt,
    /// Replies do not end with the end of text: the model never learns to stop.
    NoEos,
    /// The loss counts padding: easy tokens make it look better than it is.
    PaddingLeak,
    /// The reference is not the model that the policy began from.
    WrongReference,
    /// In a share of the pairs chosen and rejected have changed places.
    FlippedLabels {
        /// The share, between 0 and 1.
        share: f64,
    },
    /// Dropout stays on while the policy is scored: its log-probabilities are noise around the reference's.
    DropoutLeftOn,
}

impl Pitfall {
    /// All of them, with the settings of the lesson.
    pub const ALL: [Self; 6] = [
        Self::UnmaskedPrompt,
        Self::NoEos,
        Self::PaddingLeak,
        Self::WrongReference,
        Self::FlippedLabels { share: 0.4 },
        Self::DropoutLeftOn,
    ];

    /// A name for figures and tables.
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

    /// Whether policy and reference differ at step 0 because of it: the trainer's own test would refuse to begin.
    pub(super) fn breaks_the_self_test(self) -> bool {
        self == Self::WrongReference
    }

    /// The training pairs with the mistake in them.
    ///
    /// # Errors
    /// A share outside [0, 1].
    ///
    /// # Example
    /// ```
    /// use hhalign::{batch::{TokenizedPair, TokenizedPairs}, train::Pitfall};
    /// let pair = TokenizedPair { prompt: vec![1, 2], chosen: vec![3, 0], rejected: vec![4, 5, 0] };
    /// let pairs = TokenizedPairs::from_ids(vec![pair], 8, 0);
    /// assert_eq!(Pitfall::NoEos.apply(&pairs, 0)?.pairs[0].chosen, [3]);
    /// assert_eq!(Pitfall::UnmaskedPrompt.apply(&pairs, 0)?.pairs[0].chosen, [2, 3, 0]);
    /// # Ok::<(), hhalign::error::Error>(())
    /// ```
    pub fn apply<'a>(&self, pairs: &'a TokenizedPairs, seed: u64) -> Result<Cow<'a, TokenizedPairs>> {
        let eos = pairs.eos_id();
        let changed: Vec<TokenizedPair> = match *self {
            Self::WrongReference | Self::DropoutLeftOn => return Ok(Cow::Borrowed(pairs)),
            // All of the prompt but its first token, which has nothing before it, becomes part of the reply.
            Self::UnmaskedPrompt => each(pairs, |p| {
                let with_prompt = |reply: &[u32]| p.prompt.iter().skip(1).chain(reply).copied().collect();
                TokenizedPair {
                    prompt: p.prompt[..p.prompt.len().min(1)].to_vec(),
                    chosen: with_prompt(&p.chosen),
                    rejected: with_prompt(&p.rejected),
                }
            }),
            Self::NoEos => each(pairs, |p| {
                let open = |reply: &[u32]| match reply.split_last() {
                    Some((last, rest)) if *last == eos && !rest.is_empty() => rest.to_vec(),
                    _ => reply.to_vec(),
                };
                TokenizedPair { prompt: p.prompt.clone(), chosen: open(&p.chosen), rejected: open(&p.rejected) }
            }),
            Self::PaddingLeak => {
                let longest = pairs.pairs.iter().map(|p| p.chosen.len().max(p.rejected.len())).max().unwrap_or(0);
                each(pairs, |p| {
                    let padded = |reply: &[u32]| {
                        let mut reply = reply.to_vec();
                        reply.resize(longest.min(pairs.max_length - p.prompt.len()).max(reply.len()), eos);
                        reply
                    };
                    TokenizedPair { prompt: p.prompt.clone(), chosen: padded(&p.chosen), rejected: padded(&p.rejected) }
                })
            }
            Self::FlippedLabels { share } => {
                if !(0.0..=1.0).contains(&share) {
                    let fix = "0.4 makes a clear picture";
                    return Err(Error::new("the share of flipped labels must lie in [0, 1]", share.to_string(), fix));
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

fn each(pairs: &TokenizedPairs, change: impl Fn(&TokenizedPair) -> TokenizedPair) -> Vec<TokenizedPair> {
    pairs.pairs.iter().map(change).collect()
}

impl TrainConfig {
    /// The pairs as they are, or with the mistake in them that the config asks for.
    pub(super) fn with_pitfall<'a>(&self, pairs: &'a TokenizedPairs) -> Result<Cow<'a, TokenizedPairs>> {
        match &self.pitfall {
            Some(pitfall) => pitfall.apply(pairs, self.seed),
            None => Ok(Cow::Borrowed(pairs)),
        }
    }
}
