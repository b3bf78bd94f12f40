//! Decoding token by token with a cache of keys and values, for several sequences at once.
//!
//! The logits of a sequence do not depend on its neighbours: every row is summed in the same order for any number of rows.

use super::few_rows::{self, FEW_ROWS};
use super::gelu::{gelu, start_rows};
use super::gemm::{Matrix, Store, product};
use super::norm::{MeanRstd, layer_norm};
use super::products::{Products, Weight};
use super::vector::{softmax, widest};
use super::weights::{Purpose, Weights, embed};
use crate::error::{Error, Result};
use crate::model::Affine;

/// Keys and values of some sequences, and memory for the next tokens.
pub struct Decoder<'a> {
    weights: &'a Weights<'a>,
    sequences: Vec<Sequence>,
    products: Products,
    /// Of the layer norm at work; decoding has no use for them.
    mean_rstd: MeanRstd,
    scores: Vec<f32>,
}

/// Keys and values of one sequence.
struct Sequence {
    keys: Vec<Keys>,
    /// Per layer (T, C).
    values: Vec<Vec<f32>>,
    length: usize,
}

/// The keys of one layer, (C, capacity): one line for each column, so that a query meets many keys at once.
#[derive(Clone, Default)]
struct Keys {
    lines: Vec<f32>,
    capacity: usize,
    length: usize,
}

impl Keys {
    fn push(&mut self, key: &[f32]) {
        if self.length == self.capacity {
            let capacity = self.capacity + GROWTH;
            let mut lines = vec![0f32; key.len() * capacity];
            if self.capacity > 0 {
                for (to, from) in lines.chunks_exact_mut(capacity).zip(self.lines.chunks_exact(self.capacity)) {
                    to[..self.capacity].copy_from_slice(from);
                }
            }
            (self.lines, self.capacity) = (lines, capacity);
        }
        self.lines.iter_mut().skip(self.length).step_by(self.capacity).zip(key).for_each(|(to, x)| *to = *x);
        self.length += 1;
    }
}

/// Keys by which the capacity grows.
const GROWTH: usize = 128;

impl<'a> Decoder<'a> {
    /// A decoder without sequences.
    ///
    /// # Errors
    /// The weights were not lent for decoding.
    pub fn new(weights: &'a Weights<'a>) -> Result<Self> {
        if weights.purpose != Purpose::Decode {
            return Err(Error::new(
                "these weights are not laid out for decoding",
                format!("{:?}", weights.purpose),
                "lend them with Purpose::Decode",
            ));
        }
        let (products, mean_rstd) = (Products::default(), MeanRstd::default());
        Ok(Self { weights, sequences: vec![], products, mean_rstd, scores: vec![] })
    }

    /// Reads a prompt as a new sequence; returns its number and the logits after its last token.
    ///
    /// # Shapes
    /// T ids -> (V)
    ///
    /// # Errors
    /// An empty prompt, more tokens than the model's block, or an id outside the vocabulary.
    pub fn start(&mut self, prompt: &[u32]) -> Result<(usize, Vec<f32>)> {
        if prompt.is_empty() {
            return Err(Error::new("a prompt needs a token", "none", "a prompt ends with \"\\n\\nAssistant:\""));
        }
        let n_layer = self.weights.config.n_layer;
        let (keys, values) = (vec![Keys::default(); n_layer], vec![vec![]; n_layer]);
        self.sequences.push(Sequence { keys, values, length: 0 });
        let number = self.sequences.len() - 1;
        Ok((number, self.run(&[number], prompt)?))
    }

    /// Appends one token to each of some sequences; returns the logits after each.
    ///
    /// # Shapes
    /// B numbers of sequences and B ids -> (B, V)
    ///
    /// # Errors
    /// A sequence as long as the model's block, an id outside the vocabulary, or sequences that are unknown or named
    /// twice.
    pub fn append(&mut self, numbers: &[usize], ids: &[u32]) -> Result<Vec<f32>> {
        let known = numbers.iter().enumerate().all(|(i, n)| *n < self.sequences.len() && !numbers[..i].contains(n));
        if numbers.len() != ids.len() || !known {
            return Err(Error::new(
                "each continued sequence gets one token",
                format!("sequences {numbers:?} of {}, {} tokens", self.sequences.len(), ids.len()),
                "give numbers that start returned, each once, and one id for each",
            ));
        }
        if numbers.is_empty() { Ok(vec![]) } else { self.run(numbers, ids) }
    }

    /// New rows: all of one sequence, or one of each of several.
    fn run(&mut self, numbers: &[usize], ids: &[u32]) -> Result<Vec<f32>> {
        let (config, c, rows) = (self.weights.config, self.weights.config.n_embd, ids.len());
        let per_sequence = rows / numbers.len();
        let mut residual = vec![0f32; rows * c];
        for (i, (row, &id)) in residual.chunks_exact_mut(c).zip(ids).enumerate() {
            let position = self.sequences[numbers[i / per_sequence]].length + i % per_sequence;
            self.check(id, position)?;
            embed(&self.weights.parameters, id, position as u32, row);
        }
        let eps = config.layer_norm_epsilon as f32;
        let (mut ln, mut atty) = (vec![0f32; rows * c], vec![0f32; rows * c]);
        let (mut fch, mut fch_gelu) = (vec![0f32; rows * 4 * c], vec![0f32; rows * 4 * c]);
        for layer in 0..config.n_layer {
            let block = &self.weights.parameters.blocks[layer];
            layer_norm(&residual, block.ln1.norm(), eps, &mut ln, &mut self.mean_rstd);
            let qkv = &mut fch[..rows * 3 * c];
            self.linear(&block.qkv, &ln, None, qkv);
            let sequences = qkv.chunks(per_sequence * 3 * c).zip(atty.chunks_mut(per_sequence * c));
            for (&number, (qkv, atty)) in numbers.iter().zip(sequences) {
                self.attention(number, layer, qkv, atty);
            }
            // ln has been read: it takes residual2, and later residual3.
            self.linear(&block.attproj, &atty, Some(&residual), &mut ln);
            std::mem::swap(&mut residual, &mut ln);
            layer_norm(&residual, block.ln2.norm(), eps, &mut ln, &mut self.mean_rstd);
            self.linear(&block.fc, &ln, None, &mut fch);
            gelu(&fch, &mut fch_gelu);
            self.linear(&block.fcproj, &fch_gelu, Some(&residual), &mut ln);
            std::mem::swap(&mut residual, &mut ln);
        }
        numbers.iter().for_each(|&n| self.sequences[n].length += per_sequence);
        // Only the last row of each sequence predicts the next token.
        let last: Vec<f32> =
            residual.chunks(per_sequence * c).flat_map(|rows| &rows[rows.len() - c..]).copied().collect();
        let lnf = &mut ln[..last.len()];
        layer_norm(&last, self.weights.parameters.lnf.norm(), eps, lnf, &mut self.mean_rstd);
        let mut logits = vec![0f32; numbers.len() * config.vocab_size];
        few_rows::add_product(&self.weights.head, lnf, &mut logits);
        Ok(logits)
    }

    /// out = x W + bias, plus `residual` if there is one.
    fn linear(&mut self, layer: &Affine<Weight<'_>>, x: &[f32], residual: Option<&[f32]>, out: &mut [f32]) {
        start_rows(layer.bias(), residual, out);
        if x.len() / layer.weight.n_in <= FEW_ROWS {
            few_rows::add_product(&layer.weight, x, out);
        } else {
            self.products.forward(&layer.weight, x, out, Store::Add);
        }
    }

    /// Appends the new keys and values to those of the sequence, and attends to all of them.
    fn attention(&mut self, number: usize, layer: usize, qkv: &[f32], atty: &mut [f32]) {
        let (c, n_head) = (self.weights.config.n_embd, self.weights.config.n_head);
        let (d, rows) = (c / n_head, atty.len() / c);
        let sequence = &mut self.sequences[number];
        let (keys, values) = (&mut sequence.keys[layer], &mut sequence.values[layer]);
        for row in qkv.chunks_exact(3 * c) {
            keys.push(&row[c..2 * c]);
            values.extend_from_slice(&row[2 * c..]);
        }
        let n = keys.length;
        self.scores.resize(rows * n, 0.0);
        let scale = 1.0 / (d as f32).sqrt();
        for head in 0..n_head {
            let at = head * d..(head + 1) * d;
            if rows == 1 {
                let lines = &keys.lines[at.start * keys.capacity..at.end * keys.capacity];
                let (q, scores) = (&qkv[at.clone()], &mut self.scores[..n]);
                attention_one(q, lines.chunks_exact(keys.capacity), values, at.start, scale, scores, &mut atty[at]);
                continue;
            }
            let (q, v) = (Matrix::rows(&qkv[at.start..], 3 * c), Matrix::rows(&values[at.start..], c));
            let k = Matrix::rows(&keys.lines[at.start * keys.capacity..], keys.capacity);
            let p = &mut self.scores[..rows * n];
            product([rows, n, d], q, k, p, n, Store::Overwrite, scale);
            widest!({
                for (i, row) in p.chunks_exact_mut(n).enumerate() {
                    let (seen, hidden) = row.split_at_mut(n - rows + i + 1);
                    softmax(seen);
                    hidden.fill(0.0);
                }
            });
            product([rows, d, n], Matrix::rows(p, n), v, &mut atty[at.start..], c, Store::Overwrite, 1.0);
        }
    }

    fn check(&self, id: u32, position: usize) -> Result<()> {
        let config = self.weights.config;
        if position >= config.block_size {
            return Err(Error::new(
                "the sequence is longer than the model's block",
                format!("position {position}, block_size {}", config.block_size),
                "cut the text, or use a preset with a longer block",
            ));
        }
        if id as usize >= config.vocab_size {
            return Err(Error::new(
                "a token id is outside the vocabulary",
                format!("id {id}, vocabulary of {}", config.vocab_size),
                "tokenise with the tokenizer that the model was made for",
            ));
        }
        Ok(())
    }
}

/// One query of one head; its columns of the values begin at `first`.
fn attention_one<'a>(
    q: &[f32],
    lines: impl Iterator<Item = &'a [f32]>,
    values: &[f32],
    first: usize,
    scale: f32,
    scores: &mut [f32],
    atty: &mut [f32],
) {
    let (n, d) = (scores.len(), q.len());
    let row = values.len() / n;
    widest!({
        scores.fill(0.0);
        for (q, line) in q.iter().zip(lines) {
            let q = q * scale;
            scores.iter_mut().zip(line).for_each(|(score, key)| *score += q * key);
        }
        softmax(scores);
        atty.fill(0.0);
        for (p, value) in scores.iter().zip(values.chunks_exact(row)) {
            atty.iter_mut().zip(&value[first..first + d]).for_each(|(sum, v)| *sum += p * v);
        }
    });
}
