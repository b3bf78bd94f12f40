//! Sequences end to end without padding, and replies that share one prompt.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use crate::error::{Error, Result};

/// Some rows that attend to each other causally, and before that to all rows of `prefix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) rows: Range<usize>,
    pub(crate) prefix: Range<usize>,
}

/// The order of the reply tokens of a pass: all of the first sequence, all of the second, and so on.
///
/// Log-probabilities travel with it, so that nobody has to know in which order
/// pairs and sides were packed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenLayout {
    lengths: Vec<usize>,
}

impl TokenLayout {
    /// The layout of sequences with these numbers of reply tokens.
    pub fn of(lengths: Vec<usize>) -> Self {
        Self { lengths }
    }

    /// Reply tokens of each sequence, in order.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Sequences: S.
    pub fn n_sequences(&self) -> usize {
        self.lengths.len()
    }

    /// Reply tokens in all: N.
    pub fn n_tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// The sequence of every token, (N).
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

/// Where the parts of one sequence of a pack are.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    prompt: Range<usize>,
    reply: Range<usize>,
    targets: Range<usize>,
}

/// A sequence of a pack, taken apart again.
pub(crate) struct PackedSequence<'a> {
    pub(crate) prompt: &'a [u32],
    pub(crate) reply: &'a [u32],
    /// Whether the reply's tokens are targets.
    pub(crate) is_predicted: bool,
}

/// Tokens as they go through the model: one row each, no padding.
///
/// A prompt that several replies share has its rows once. The rows of each reply attend to the prompt's rows and to
/// their own, at the positions that follow the prompt: under causal attention this gives exactly the
/// hidden states of separate sequences. The last token of a reply predicts nothing and has no row, unless the reply was
/// added by [`Packed::push_whole`].
///
/// Shapes: R rows; N targets, in the order of the replies; E ends, one for each whole reply.
#[derive(Debug, Clone, Default)]
pub struct Packed {
    pub(crate) ids: Vec<u32>,
    pub(crate) positions: Vec<u32>,
    pub(crate) spans: Vec<Span>,
    /// Rows that predict a target or end a reply, in order: no other row is used after the last attention.
    pub(crate) needed: Vec<usize>,
    /// For every target the index in `needed` of the row that predicts it.
    pub(crate) target_rows: Vec<usize>,
    pub(crate) targets: Vec<u32>,
    /// For the last token of every whole reply its index in `needed`.
    pub(crate) end_rows: Vec<usize>,
    layout: TokenLayout,
    parts: Vec<Parts>,
}

impl Packed {
    /// Adds a prompt and the replies that share it; each is a sequence of its own for the targets.
    ///
    /// # Errors
    /// An empty prompt or reply, or no reply.
    pub fn push(&mut self, prompt: &[u32], replies: &[&[u32]]) -> Result<()> {
        check_parts(prompt, replies)?;
        self.add(prompt, replies, None);
        Ok(())
    }

    /// Adds a prompt and replies with a row for the last token of each, the end of text: a reward is read there. Only the first
    /// `predicted` replies are targets as well.
    ///
    /// # Errors
    /// An empty prompt or reply, or no reply.
    pub fn push_whole(&mut self, prompt: &[u32], replies: &[&[u32]], predicted: usize) -> Result<()> {
        check_parts(prompt, replies)?;
        self.add(prompt, replies, Some(predicted));
        Ok(())
    }

    /// `whole`: whether replies have a row at their end, and how many of them are targets.
    fn add(&mut self, prompt: &[u32], replies: &[&[u32]], whole: Option<usize>) {
        let start = self.ids.len();
        self.rows_of(prompt, 0);
        let shared = start..self.ids.len();
        let alone = replies.len() == 1;
        let last_of_prompt = self.needed.len();
        let predicted = whole.unwrap_or(replies.len());
        if predicted > 0 {
            self.needed.push(shared.end - 1);
        }
        if !alone {
            self.spans.push(Span { rows: shared.clone(), prefix: 0..0 });
        }
        for (i, reply) in replies.iter().enumerate() {
            let first = self.ids.len();
            let n = reply.len() - 1;
            self.rows_of(&reply[..n + usize::from(whole.is_some())], prompt.len());
            // A single reply continues in the prompt's own span.
            let (rows, prefix) =
                if alone { (start..self.ids.len(), 0..0) } else { (first..self.ids.len(), shared.clone()) };
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
            self.parts.push(Parts { prompt: shared.clone(), reply: own, targets });
            if whole.is_some() {
                self.end_rows.push(self.needed.len());
                self.needed.push(first + n);
            }
        }
    }

    fn rows_of(&mut self, ids: &[u32], position: usize) {
        self.ids.extend_from_slice(ids);
        self.positions.extend((position..position + ids.len()).map(|p| p as u32));
    }

    /// Rows: tokens that go through the model. R.
    pub fn n_rows(&self) -> usize {
        self.ids.len()
    }

    /// Reply tokens that are predicted: N.
    pub fn n_targets(&self) -> usize {
        self.targets.len()
    }

    /// Whole replies: E.
    pub fn n_ends(&self) -> usize {
        self.end_rows.len()
    }

    /// Refuses upstream gradients that are not one for each target.
    pub(crate) fn check_dlogps(&self, dlogps: &[f32]) -> Result<()> {
        if dlogps.len() == self.n_targets() {
            return Ok(());
        }
        let got = format!("{} gradients for {} targets", dlogps.len(), self.n_targets());
        Err(Error::new("the upstream gradients do not fit the pack", got, "give one gradient for each target"))
    }

    /// Refuses gradients of the ends that are neither (E, C) nor empty.
    pub(crate) fn check_ends(&self, dends: &[f32], n_embd: usize) -> Result<()> {
        if dends.is_empty() || dends.len() == self.n_ends() * n_embd {
            return Ok(());
        }
        let got = format!("{} numbers for {} ends", dends.len(), self.n_ends());
        Err(Error::new("the gradient of the ends does not fit the pack", got, "give n_embd for each end"))
    }

    /// The order of the targets.
    pub fn layout(&self) -> &TokenLayout {
        &self.layout
    }

    /// All sequences, in the order in which they were added.
    pub(crate) fn sequences(&self) -> impl Iterator<Item = PackedSequence<'_>> {
        self.parts.iter().map(|parts| {
            let is_predicted = !parts.targets.is_empty();
            // The last token of a reply that is only predicted has no row.
            let reply =
                if is_predicted { &self.targets[parts.targets.clone()] } else { &self.ids[parts.reply.clone()] };
            PackedSequence { prompt: &self.ids[parts.prompt.clone()], reply, is_predicted }
        })
    }

    /// A hash that identifies the pack.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.ids, &self.positions, &self.target_rows, &self.targets, &self.end_rows).hash(&mut hasher);
        hasher.finish()
    }

    /// Refuses ids and positions that a model does not have.
    pub(crate) fn check(&self, vocab_size: usize, block_size: usize) -> Result<()> {
        if self.ids.is_empty() {
            return Err(Error::new("a pass needs a sequence", "none", "push at least one prompt with a reply"));
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
    Err(Error::new("a sequence needs a prompt and a reply", got, "drop such pairs; the audit of Dataset::read does"))
}
