//! Sequences packed end to end without padding; replies may share one prompt.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use crate::base::error::{Error, Result};

/// Rows that attend to all rows of `prefix`, and causally to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) rows: Range<usize>,
    pub(crate) prefix: Range<usize>,
}

/// The order of the reply tokens of a pass: all tokens of the first sequence, then all of the
/// second, and so on.
///
/// Log-probabilities come with their layout, so that no caller has to know how pairs and sides were
/// packed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenLayout {
    lengths: Vec<usize>,
}

impl TokenLayout {
    /// Makes the layout of sequences from the number of reply tokens of each.
    pub fn of(lengths: Vec<usize>) -> Self {
        Self { lengths }
    }

    /// Returns the number of reply tokens of each sequence, in order.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Returns the number of sequences: S.
    pub fn n_sequences(&self) -> usize {
        self.lengths.len()
    }

    /// Returns the number of reply tokens: N.
    pub fn n_tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// Returns the index of each token's sequence, (N).
    pub fn sequence_of_tokens(&self) -> Vec<u32> {
        let each = self.lengths.iter().enumerate();
        each.flat_map(|(sequence, &n)| std::iter::repeat_n(sequence as u32, n)).collect()
    }

    /// Sums per-token values over each sequence.
    ///
    /// # Shapes
    /// (N) -> (S)
    pub fn sums(&self, values: &[f32]) -> Vec<f32> {
        let mut rest = values;
        let sum = |&n: &usize| {
            let (own, later) = rest.split_at(n);
            rest = later;
            own.iter().sum()
        };
        self.lengths.iter().map(sum).collect()
    }
}

/// The row and target ranges of one sequence of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SequenceRanges {
    prompt: Range<usize>,
    reply: Range<usize>,
    targets: Range<usize>,
}

/// One sequence of a pack, unpacked.
pub(crate) struct PackedSequence<'a> {
    pub(crate) prompt: &'a [u32],
    pub(crate) reply: &'a [u32],
    /// Whether the reply's tokens are targets.
    pub(crate) is_predicted: bool,
}

/// The tokens of a pass: one row each, no padding.
///
/// A prompt shared by several replies has its rows once. The rows of each reply attend to the
/// prompt's rows and to their own. Their positions follow those of the prompt. Under causal
/// attention this gives exactly the hidden states of separate sequences. The last token of a reply
/// predicts nothing and has no row, unless the reply was added by [`Packed::push_whole`].
///
/// Shapes: R rows; N targets, in the order of the replies; E ends, one for each whole reply.
#[derive(Debug, Clone, Default)]
pub struct Packed {
    pub(crate) ids: Vec<u32>,
    pub(crate) positions: Vec<u32>,
    pub(crate) spans: Vec<Span>,
    /// Rows that predict a target or end a reply, in order. No other row is used after the last
    /// attention.
    pub(crate) needed: Vec<usize>,
    /// For each target, the index in `needed` of the row that predicts it.
    pub(crate) target_rows: Vec<usize>,
    pub(crate) targets: Vec<u32>,
    /// For the last token of each whole reply, its index in `needed`.
    pub(crate) end_rows: Vec<usize>,
    layout: TokenLayout,
    ranges: Vec<SequenceRanges>,
}

impl Packed {
    /// Adds a prompt and the replies that share it; each reply is a sequence in the layout.
    ///
    /// # Errors
    /// An empty prompt or reply, or no reply.
    pub fn push(&mut self, prompt: &[u32], replies: &[&[u32]]) -> Result<()> {
        check_parts(prompt, replies)?;
        self.add(prompt, replies, None);
        Ok(())
    }

    /// Adds a prompt and whole replies. The last token of each reply, its end-of-text token, also
    /// has a row. A reward is read from that row.
    ///
    /// Only the tokens of the first `predicted` replies are targets.
    ///
    /// # Errors
    /// An empty prompt or reply, or no reply.
    pub fn push_whole(
        &mut self,
        prompt: &[u32],
        replies: &[&[u32]],
        predicted: usize,
    ) -> Result<()> {
        check_parts(prompt, replies)?;
        self.add(prompt, replies, Some(predicted));
        Ok(())
    }

    /// Adds rows and targets. `whole` is `Some` if replies have a row at their end; its value is
    /// the number of replies that are targets.
    fn add(&mut self, prompt: &[u32], replies: &[&[u32]], whole: Option<usize>) {
        let start = self.ids.len();
        self.push_rows(prompt, 0);
        let shared = start..self.ids.len();
        let single = replies.len() == 1;
        let last_of_prompt = self.needed.len();
        let predicted = whole.unwrap_or(replies.len());
        if predicted > 0 {
            self.needed.push(shared.end - 1);
        }
        if !single {
            self.spans.push(Span { rows: shared.clone(), prefix: 0..0 });
        }
        for (i, reply) in replies.iter().enumerate() {
            let first = self.ids.len();
            let n = reply.len() - 1;
            self.push_rows(&reply[..n + usize::from(whole.is_some())], prompt.len());
            // A single reply continues in the prompt's own span.
            let (rows, prefix) = if single {
                (start..self.ids.len(), 0..0)
            } else {
                (first..self.ids.len(), shared.clone())
            };
            if !rows.is_empty() {
                self.spans.push(Span { rows, prefix });
            }
            let first_target = self.targets.len();
            if i < predicted {
                self.target_rows.push(last_of_prompt);
                self.target_rows.extend(self.needed.len()..self.needed.len() + n);
                self.needed.extend(first..first + n);
                self.targets.extend_from_slice(reply);
                self.layout.lengths.push(reply.len());
            }
            let (own, targets) = (first..self.ids.len(), first_target..self.targets.len());
            self.ranges.push(SequenceRanges { prompt: shared.clone(), reply: own, targets });
            if whole.is_some() {
                self.end_rows.push(self.needed.len());
                self.needed.push(first + n);
            }
        }
    }

    fn push_rows(&mut self, ids: &[u32], position: usize) {
        self.ids.extend_from_slice(ids);
        self.positions.extend((position..position + ids.len()).map(|p| p as u32));
    }

    /// Returns R, the number of rows. A row is a token that passes through the model.
    pub fn n_rows(&self) -> usize {
        self.ids.len()
    }

    /// Returns the number of predicted reply tokens: N.
    pub fn n_targets(&self) -> usize {
        self.targets.len()
    }

    /// Returns the number of whole replies: E.
    pub fn n_ends(&self) -> usize {
        self.end_rows.len()
    }

    /// Checks that there is one upstream gradient for each target.
    pub(crate) fn check_dlogps(&self, dlogps: &[f32]) -> Result<()> {
        if dlogps.len() == self.n_targets() {
            return Ok(());
        }
        let got = format!("{} gradients for {} targets", dlogps.len(), self.n_targets());
        Err(Error::new(
            "the upstream gradients do not match the pack",
            got,
            "give one gradient for each target",
        ))
    }

    /// Checks that the gradients of the ends have shape (E, C) or are empty.
    pub(crate) fn check_ends(&self, dends: &[f32], n_embd: usize) -> Result<()> {
        if dends.is_empty() || dends.len() == self.n_ends() * n_embd {
            return Ok(());
        }
        let got = format!("{} numbers for {} ends", dends.len(), self.n_ends());
        Err(Error::new(
            "the gradient of the ends does not match the pack",
            got,
            "give n_embd numbers for each end",
        ))
    }

    /// Returns the order of the targets.
    pub fn layout(&self) -> &TokenLayout {
        &self.layout
    }

    /// Returns all sequences in the order in which they were added.
    pub(crate) fn sequences(&self) -> impl Iterator<Item = PackedSequence<'_>> {
        self.ranges.iter().map(|ranges| {
            let is_predicted = !ranges.targets.is_empty();
            // A reply that is only predicted has no row for its last token.
            let reply = if is_predicted {
                &self.targets[ranges.targets.clone()]
            } else {
                &self.ids[ranges.reply.clone()]
            };
            PackedSequence { prompt: &self.ids[ranges.prompt.clone()], reply, is_predicted }
        })
    }

    /// Returns a hash that identifies the pack.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.ids, &self.positions, &self.target_rows, &self.targets, &self.end_rows)
            .hash(&mut hasher);
        hasher.finish()
    }

    /// Checks that all ids and positions of the pack are within the model's vocabulary and context.
    pub(crate) fn check(&self, vocab_size: usize, block_size: usize) -> Result<()> {
        if self.ids.is_empty() {
            return Err(Error::new(
                "a pass needs a sequence",
                "none",
                "push at least one prompt with a reply",
            ));
        }
        if let Some(position) = self.positions.iter().max().filter(|p| **p as usize >= block_size) {
            return Err(Error::new(
                "the sequence is longer than the model's block",
                format!("position {position}, block_size {block_size}"),
                "cut the text, or use a preset with a longer block",
            ));
        }
        let ids = self.ids.iter().chain(&self.targets);
        if let Some(id) = ids.max().filter(|id| **id as usize >= vocab_size) {
            return Err(Error::new(
                "a token id is outside the vocabulary",
                format!("id {id}, vocabulary of {vocab_size}"),
                "tokenise with the tokenizer that the model was made for",
            ));
        }
        Ok(())
    }
}

fn check_parts(prompt: &[u32], replies: &[&[u32]]) -> Result<()> {
    if !prompt.is_empty() && !replies.is_empty() && replies.iter().all(|r| !r.is_empty()) {
        return Ok(());
    }
    let lengths: Vec<usize> = replies.iter().map(|r| r.len()).collect();
    let got = format!("{} prompt tokens, replies of {lengths:?}", prompt.len());
    Err(Error::new(
        "a sequence needs a prompt and a reply",
        got,
        "drop such pairs; the audit of Dataset::read does",
    ))
}
