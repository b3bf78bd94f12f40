//! Tokenised pairs and batches of them: this module decides which tokens a loss sees.

use candle_core::{Device, Tensor};
use rand::seq::SliceRandom;

use crate::base::error::{Error, Result};
use crate::base::rng::{sha256_hex, stream};
use crate::data::Pair;
use crate::data::packed::{Packed, TokenLayout};
use crate::data::tokenize::Tokenizer;
use crate::show::table::{Column, Table, grouped};

/// The ids of a prompt and its two replies; a reply that was not cut ends with the end-of-text id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizedPair {
    /// Ids of the prompt, cut at the start if prompt and reply do not fit.
    pub prompt: Vec<u32>,
    /// Ids of the preferred reply.
    pub chosen: Vec<u32>,
    /// Ids of the other reply.
    pub rejected: Vec<u32>,
}

impl TokenizedPair {
    /// Returns one of the two replies.
    pub fn reply(&self, side: Side) -> &[u32] {
        match side {
            Side::Chosen => &self.chosen,
            Side::Rejected => &self.rejected,
        }
    }
}

/// Tokenised pairs, a hash of all their ids, and the numbers of texts that were cut.
#[derive(Debug, Clone)]
pub struct TokenizedPairs {
    /// The pairs, in the order of the source.
    pub pairs: Vec<TokenizedPair>,
    /// The first 16 digits of the SHA-256 over all ids: it identifies data and tokenizer together.
    pub hash: String,
    /// Longest sequence allowed, prompt and reply together.
    pub max_length: usize,
    /// Prompts cut at the start.
    pub prompts_cut: usize,
    /// Replies cut at the end; they have no end-of-text id, since the text did not end there.
    pub replies_cut: usize,
    eos_id: u32,
}

/// One of the two replies of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The preferred reply.
    Chosen,
    /// The other reply.
    Rejected,
}

impl TokenizedPairs {
    /// Tokenises prompts and replies separately, so that a prompt's ids do not depend on the reply
    /// after it.
    ///
    /// A reply takes at most half of `max_length`. A prompt that does not fit is cut at the start,
    /// by the same amount for both replies of its pair.
    ///
    /// # Errors
    /// A `max_length` below 8, or a failure of the tokenizer.
    ///
    /// # Example
    /// ```
    /// use hhalign::data::batch::TokenizedPairs;
    /// use hhalign::data::Dataset;
    /// use hhalign::data::tokenize::Tokenizer;
    /// let data = Dataset::embedded(1, 100)?;
    /// let tokenizer = Tokenizer::train(&data.pairs, 400)?;
    /// let tokens = TokenizedPairs::new(&data.pairs, &tokenizer, 256)?;
    /// assert_eq!(tokens.pairs[0].chosen.last(), Some(&tokenizer.eos_id()));
    /// # Ok::<(), hhalign::base::error::Error>(())
    /// ```
    pub fn new(pairs: &[Pair], tokenizer: &Tokenizer, max_length: usize) -> Result<Self> {
        if max_length < 8 {
            return Err(Error::new(
                "max_length is too small to hold a prompt and a reply",
                max_length.to_string(),
                "use the model's block_size",
            ));
        }
        let mut cut = (0, 0);
        let mut reply = |text: &str| -> Result<Vec<u32>> {
            let mut ids = tokenizer.encode(text)?;
            ids.push(tokenizer.eos_id());
            if ids.len() > max_length / 2 {
                ids.truncate(max_length / 2);
                cut.1 += 1;
            }
            Ok(ids)
        };
        let mut tokenized = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let (chosen, rejected) = (reply(&pair.chosen)?, reply(&pair.rejected)?);
            tokenized.push(TokenizedPair {
                prompt: tokenizer.encode(&pair.prompt)?,
                chosen,
                rejected,
            });
        }
        for pair in &mut tokenized {
            let available = max_length - pair.chosen.len().max(pair.rejected.len());
            if pair.prompt.len() > available {
                pair.prompt.drain(..pair.prompt.len() - available);
                cut.0 += 1;
            }
        }
        let mut pairs = Self::from_ids(tokenized, max_length, tokenizer.eos_id());
        (pairs.prompts_cut, pairs.replies_cut) = cut;
        Ok(pairs)
    }

    /// Makes tokenised pairs from ids.
    pub fn from_ids(pairs: Vec<TokenizedPair>, max_length: usize, eos_id: u32) -> Self {
        let bytes: Vec<u8> = pairs
            .iter()
            .flat_map(|p| [&p.prompt, &p.chosen, &p.rejected])
            .flat_map(|ids| ids.iter().flat_map(|id| id.to_le_bytes()).chain([0xff; 4]))
            .collect();
        let hash = sha256_hex([bytes.as_slice()], 16);
        Self { pairs, hash, max_length, prompts_cut: 0, replies_cut: 0, eos_id }
    }

    /// Returns the first `n` pairs, or all if there are fewer.
    #[must_use]
    pub fn head(&self, n: usize) -> Self {
        Self::from_ids(self.pairs.iter().take(n).cloned().collect(), self.max_length, self.eos_id)
    }

    /// Divides the pairs into the first part, which holds a `share` of them, and the rest.
    ///
    /// Each part has at least one pair if there are two.
    ///
    /// # Example
    /// ```
    /// use hhalign::data::batch::{TokenizedPair, TokenizedPairs};
    /// let pair = TokenizedPair { prompt: vec![1], chosen: vec![2, 0], rejected: vec![3, 0] };
    /// let (most, rest) = TokenizedPairs::from_ids(vec![pair; 10], 8, 0).divide(0.9);
    /// assert_eq!((most.len(), rest.len()), (9, 1));
    /// ```
    pub fn divide(&self, share: f64) -> (Self, Self) {
        let n = ((self.len() as f64 * share).round() as usize)
            .clamp(self.len().min(1), self.len().saturating_sub(1));
        let part =
            |pairs: &[TokenizedPair]| Self::from_ids(pairs.to_vec(), self.max_length, self.eos_id);
        (part(&self.pairs[..n]), part(&self.pairs[n..]))
    }

    /// Returns the end-of-text id.
    pub fn eos_id(&self) -> u32 {
        self.eos_id
    }

    /// Returns the number of pairs.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Returns whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    fn pair(&self, index: usize) -> Result<&TokenizedPair> {
        let missing = || {
            Error::new(
                "no such pair",
                index.to_string(),
                format!("choose indices below {}", self.len()),
            )
        };
        self.pairs.get(index).ok_or_else(missing)
    }

    /// Makes a batch of one reply of each pair at `indices`.
    ///
    /// # Errors
    /// An index out of range, or no index.
    pub fn batch(&self, indices: &[usize], side: Side) -> Result<Batch> {
        self.batch_of(indices, &[side])
    }

    /// Makes a batch of the `sides` of each pair at `indices`: first all sequences of the first
    /// pair, then all of the second, and so on.
    ///
    /// # Errors
    /// An index out of range, or no index.
    pub fn batch_of(&self, indices: &[usize], sides: &[Side]) -> Result<Batch> {
        let mut sequences = vec![];
        for &i in indices {
            let pair = self.pair(i)?;
            sequences.extend(sides.iter().map(|&side| (pair.prompt.as_slice(), pair.reply(side))));
        }
        Batch::new(&sequences, self.eos_id)
    }

    /// Packs the `sides` of each pair at `indices` for the fast path, without padding.
    ///
    /// With `share_prompts`, the replies of a pair share one copy of the prompt.
    ///
    /// # Errors
    /// An index out of range, or an empty prompt or reply.
    pub fn packed(&self, indices: &[usize], sides: &[Side], share_prompts: bool) -> Result<Packed> {
        let mut packed = Packed::default();
        for &i in indices {
            let pair = self.pair(i)?;
            let replies: Vec<&[u32]> = sides.iter().map(|&side| pair.reply(side)).collect();
            for replies in replies.chunks(if share_prompts { replies.len().max(1) } else { 1 }) {
                packed.push(&pair.prompt, replies)?;
            }
        }
        Ok(packed)
    }

    /// Returns whether a reply is whole: it ends with the end-of-text id and was not cut.
    pub fn is_whole(&self, index: usize, side: Side) -> bool {
        self.pairs[index].reply(side).last() == Some(&self.eos_id)
    }

    /// Counts the tokens of prompt and reply of the pairs at `indices`, for each of the `sides`.
    pub fn n_tokens(&self, indices: &[usize], sides: &[Side]) -> usize {
        let of_pair = |p: &TokenizedPair| {
            sides.iter().map(|&s| p.prompt.len() + p.reply(s).len()).sum::<usize>()
        };
        indices.iter().map(|&i| of_pair(&self.pairs[i])).sum()
    }

    /// Counts the tokens of one reply of the pairs at `indices`.
    pub fn n_reply_tokens(&self, indices: &[usize], side: Side) -> usize {
        indices.iter().map(|&i| self.pairs[i].reply(side).len()).sum()
    }

    /// Returns the tokens of prompt and longer reply; batches of similar lengths are made by it.
    fn length(&self, index: usize) -> usize {
        let p = &self.pairs[index];
        p.prompt.len() + p.chosen.len().max(p.rejected.len())
    }

    /// Divides a batch into passes of at most `size` pairs, with about equal numbers of tokens, so
    /// that threads with one pass each finish together.
    pub fn balanced(&self, batch: &[usize], size: usize, sides: &[Side]) -> Vec<Vec<usize>> {
        let mut order = batch.to_vec();
        order.sort_by_key(|&i| std::cmp::Reverse(self.n_tokens(&[i], sides)));
        let mut passes: Vec<(usize, Vec<usize>)> =
            vec![(0, vec![]); batch.len().div_ceil(size.max(1))];
        for i in order {
            // The longest remaining pair goes to the pass with the fewest tokens.
            let open = passes.iter_mut().filter(|p| p.1.len() < size.max(1));
            let pass = open.min_by_key(|p| p.0).expect("the passes hold every pair");
            pass.0 += self.n_tokens(&[i], sides);
            pass.1.push(i);
        }
        passes.into_iter().map(|p| p.1).collect()
    }

    /// Returns the batches of one epoch: shuffled by `seed` and `epoch`, of similar lengths within
    /// a batch, each pair once.
    ///
    /// The same arguments give the same batches, so that a run can resume in the middle of an
    /// epoch.
    pub fn epoch(&self, batch_size: usize, seed: u64, epoch: u64) -> Vec<Vec<usize>> {
        let mut rng = stream(seed, "epoch", &[epoch]);
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.shuffle(&mut rng);
        let mut batches = vec![];
        let batch_size = batch_size.clamp(1, self.len().max(1));
        for chunk in order.chunks_mut(batch_size * 32) {
            chunk.sort_by_key(|&i| self.length(i));
            batches.extend(chunk.chunks(batch_size).map(<[usize]>::to_vec));
        }
        batches.shuffle(&mut rng);
        batches
    }

    /// Returns batches of all pairs in order of length, for evaluation; the order does not change
    /// any result.
    pub fn by_length(&self, batch_size: usize) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by_key(|&i| self.length(i));
        order.chunks(batch_size.max(1)).map(<[usize]>::to_vec).collect()
    }

    /// Returns a table of token counts and cuts.
    ///
    /// # Errors
    /// A failure of the table library.
    pub fn table(&self) -> Result<Table> {
        let mean = |f: fn(&TokenizedPair) -> usize| {
            self.pairs.iter().map(f).sum::<usize>() as f64 / self.len().max(1) as f64
        };
        let mean = |f| format!("{:.1}", mean(f));
        let rows = [
            ("pairs", grouped(self.len() as i64)),
            ("tokens in a prompt, mean", mean(|p| p.prompt.len())),
            ("tokens in a chosen reply, mean", mean(|p| p.chosen.len())),
            ("tokens in a rejected reply, mean", mean(|p| p.rejected.len())),
            ("prompts cut at the start", grouped(self.prompts_cut as i64)),
            ("replies cut at the end (no end-of-text id)", grouped(self.replies_cut as i64)),
        ];
        Table::new(
            format!("Tokenised to at most {} ids", self.max_length),
            vec![
                Column::text("what", rows.iter().map(|r| r.0.to_string()).collect()),
                Column::text("value", rows.iter().map(|r| r.1.clone()).collect()),
            ],
        )
    }
}

/// Sequences padded on the right, and the positions whose log-probabilities a loss may see.
///
/// Shapes: B sequences, T the longest of them, N reply tokens in all.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Ids, (B, T), u32; padding is the end-of-text id, which no loss uses and causal attention
    /// hides.
    pub input_ids: Tensor,
    /// 1 where a token belongs to a reply, 0 elsewhere, (B, T), f32.
    pub completion_mask: Tensor,
    /// The flattened position b * T + t - 1 whose logits predict each reply token, (N), u32.
    pub predicted_from: Tensor,
    /// The reply tokens, (N), u32.
    pub targets: Tensor,
    /// The sequence that each reply token belongs to.
    pub layout: TokenLayout,
}

impl Batch {
    /// Concatenates prompts and replies, and pads them to the longest.
    ///
    /// # Errors
    /// No sequence, an empty prompt, or an empty reply.
    pub fn new(sequences: &[(&[u32], &[u32])], pad_id: u32) -> Result<Self> {
        let t = sequences.iter().map(|(p, r)| p.len() + r.len()).max().ok_or_else(|| {
            Error::new("a batch needs a sequence", "none", "pass at least one index")
        })?;
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        let (mut from, mut targets, mut lengths) = (vec![], vec![], vec![]);
        for (b, (prompt, reply)) in sequences.iter().enumerate() {
            if prompt.is_empty() || reply.is_empty() {
                let what = if prompt.is_empty() { "prompt" } else { "reply" };
                return Err(Error::new(
                    format!("sequence {b} has an empty {what}"),
                    "0 tokens",
                    "drop such pairs; the audit of Dataset::read does",
                ));
            }
            let length = prompt.len() + reply.len();
            ids.extend(
                prompt.iter().chain(*reply).copied().chain(std::iter::repeat_n(pad_id, t - length)),
            );
            mask.extend(
                (0..t).map(|i| if (prompt.len()..length).contains(&i) { 1f32 } else { 0. }),
            );
            from.extend((prompt.len()..length).map(|i| (b * t + i - 1) as u32));
            targets.extend_from_slice(reply);
            lengths.push(reply.len());
        }
        let (b, n) = (sequences.len(), targets.len());
        let cpu = &Device::Cpu;
        Ok(Self {
            input_ids: Tensor::from_vec(ids, (b, t), cpu)?,
            completion_mask: Tensor::from_vec(mask, (b, t), cpu)?,
            predicted_from: Tensor::from_vec(from, n, cpu)?,
            targets: Tensor::from_vec(targets, n, cpu)?,
            layout: TokenLayout::of(lengths),
        })
    }

    /// Returns the number of sequences in the batch: B.
    pub fn n_sequences(&self) -> usize {
        self.layout.n_sequences()
    }

    /// Returns the number of reply tokens in the batch: N.
    pub fn n_reply_tokens(&self) -> usize {
        self.layout.n_tokens()
    }
}
