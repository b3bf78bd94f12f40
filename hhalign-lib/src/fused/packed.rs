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

/// Tokens as they go through the model: one row each, no padding.
///
/// A prompt that several replies follow stands there once. The rows of each reply attend to the prompt's rows and to
/// their own, at the positions they would have right behind the prompt: under causal attention this gives exactly the
/// hidden states of separate sequences. The last token of a reply predicts nothing and has no row, unless the reply was
/// added by [`Packed::push_whole`].
///
/// Shapes: R rows; N targets, in the order of the replies; E ends, one for each whole reply.
#[derive(Debug, Clone, Default)]
pub struct Packed {
    pub(crate) ids: Vec<u32>,
    pub(crate) positions: Vec<u32>,
    pub(crate) spans: Vec<Span>,
    /// Rows that predict a target, in order: behind the last attention no other row is looked at.
    pub(crate) needed: Vec<usize>,
    /// For every target its place in `needed`.
    pub(crate) target_rows: Vec<usize>,
    pub(crate) targets: Vec<u32>,
    /// For the last token of every whole reply its place in `needed`.
    pub(crate) end_rows: Vec<usize>,
    reply_lengths: Vec<usize>,
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

    /// The same with a row for the last token of each reply, the end of text: what a reward is read from. Only the first
    /// `predicted` replies are targets too.
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
            // A single reply goes on in the prompt's own span.
            let (rows, prefix) =
                if alone { (start..self.ids.len(), 0..0) } else { (first..self.ids.len(), shared.clone()) };
            if !rows.is_empty() {
                self.spans.push(Span { rows, prefix });
            }
            if i < predicted {
                self.target_rows.push(last_of_prompt);
                self.target_rows.extend(self.needed.len()..self.needed.len() + n);
                self.needed.extend(first..first + n);
                self.targets.extend_from_slice(reply);
                self.reply_lengths.push(reply.len());
            }
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

    /// Says so where there is not one slope for each target.
    pub(crate) fn check_slopes(&self, slopes: &[f32]) -> Result<()> {
        if slopes.len() == self.n_targets() {
            return Ok(());
        }
        let got = format!("{} slopes for {} targets", slopes.len(), self.n_targets());
        Err(Error::new("the slopes do not fit the pack", got, "one gradient for each target"))
    }

    /// Says so where there are gradients of the ends (E, C), and not of each.
    pub(crate) fn check_ends(&self, d_ends: &[f32], n_embd: usize) -> Result<()> {
        if d_ends.is_empty() || d_ends.len() == self.n_ends() * n_embd {
            return Ok(());
        }
        let got = format!("{} numbers for {} ends", d_ends.len(), self.n_ends());
        Err(Error::new("the gradient of the ends does not fit the pack", got, "give n_embd for each end"))
    }

    /// Targets in each sequence that has any, in the order in which they were added; they sum to N.
    pub fn reply_lengths(&self) -> &[usize] {
        &self.reply_lengths
    }

    /// Sums per-token values over each sequence.
    ///
    /// # Shapes
    /// (N) -> one for each reply
    pub fn sum_by_sequence(&self, values: &[f32]) -> Vec<f32> {
        let mut rest = values;
        let sum = |&n: &usize| {
            let (own, later) = rest.split_at(n);
            rest = later;
            own.iter().sum()
        };
        self.reply_lengths.iter().map(sum).collect()
    }

    /// A number that another pack would hardly have.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.ids, &self.positions, &self.target_rows, &self.targets, &self.end_rows).hash(&mut hasher);
        hasher.finish()
    }

    /// Says whether every id and position exists in a model.
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
