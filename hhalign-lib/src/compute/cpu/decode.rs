//! Decoding token by token with a cache of keys and values, for several sequences together.
//!
//! The logits of a sequence do not depend on the other sequences: the order of summation within a
//! row is the same for any number of rows.

use crate::base::error::{Error, Result};
use crate::compute::cpu::few_rows::FEW_ROWS;
use crate::compute::cpu::gelu::{gelu, init_rows};
use crate::compute::cpu::gemm::{Matrix, Store, product};
use crate::compute::cpu::norm::{MeanRstd, layer_norm};
use crate::compute::cpu::products::{Products, Weight};
use crate::compute::cpu::vector::{softmax, widest};
use crate::compute::cpu::weights::{Purpose, Weights, embed};
use crate::model::Affine;

/// A decoder: the keys and values of its sequences, and memory for the next tokens.
pub struct Decoder<'a> {
    weights: &'a Weights<'a>,
    sequences: Vec<Sequence>,
    products: Products,
    /// Scratch memory of layer norms; decoding does not read it.
    mean_rstd: MeanRstd,
    scores: Vec<f32>,
}

/// The keys and values of one sequence.
struct Sequence {
    keys: Vec<Keys>,
    /// (T, C) for each layer.
    values: Vec<Vec<f32>>,
    length: usize,
}

/// The keys of one layer, (C, capacity). Each column of the keys is contiguous, so a query is
/// multiplied with many keys in one vector operation.
#[derive(Clone, Default)]
struct Keys {
    lines: Vec<f32>,
    capacity: usize,
    length: usize,
}

impl Keys {
    fn push(&mut self, key: &[f32]) {
        if self.length == self.capacity {
            let capacity = self.capacity + CAPACITY_STEP;
            let mut lines = vec![0f32; key.len() * capacity];
            if self.capacity > 0 {
                for (to, from) in
                    lines.chunks_exact_mut(capacity).zip(self.lines.chunks_exact(self.capacity))
                {
                    to[..self.capacity].copy_from_slice(from);
                }
            }
            (self.lines, self.capacity) = (lines, capacity);
        }
        self.lines
            .iter_mut()
            .skip(self.length)
            .step_by(self.capacity)
            .zip(key)
            .for_each(|(to, x)| *to = *x);
        self.length += 1;
    }
}

/// The number of keys by which the capacity grows.
const CAPACITY_STEP: usize = 128;

impl<'a> Decoder<'a> {
    /// Makes a decoder without sequences.
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

    /// Reads a prompt as a new sequence. Returns the sequence's index and the logits after its last
    /// token.
    ///
    /// # Shapes
    /// T ids -> (V)
    ///
    /// # Errors
    /// The prompt is empty or longer than the model's block, or an id is outside the vocabulary.
    pub fn start(&mut self, prompt: &[u32]) -> Result<(usize, Vec<f32>)> {
        if prompt.is_empty() {
            return Err(Error::new(
                "a prompt needs a token",
                "none",
                "a prompt ends with \"\\n\\nAssistant:\"",
            ));
        }
        let n_layer = self.weights.config.n_layer;
        let (keys, values) = (vec![Keys::default(); n_layer], vec![vec![]; n_layer]);
        self.sequences.push(Sequence { keys, values, length: 0 });
        let index = self.sequences.len() - 1;
        Ok((index, self.run(&[index], prompt)?))
    }

    /// Appends one token to each of some sequences. Returns the logits after each.
    ///
    /// # Shapes
    /// B sequence indices and B ids -> (B, V)
    ///
    /// # Errors
    /// A sequence fills the model's block, an id is outside the vocabulary, or a sequence is
    /// unknown or given twice.
    pub fn append(&mut self, indices: &[usize], ids: &[u32]) -> Result<Vec<f32>> {
        let known = indices
            .iter()
            .enumerate()
            .all(|(i, n)| *n < self.sequences.len() && !indices[..i].contains(n));
        if indices.len() != ids.len() || !known {
            return Err(Error::new(
                "each continued sequence gets one token",
                format!("sequences {indices:?} of {}, {} tokens", self.sequences.len(), ids.len()),
                "give each index that start returned at most once, with one id",
            ));
        }
        if indices.is_empty() { Ok(vec![]) } else { self.run(indices, ids) }
    }

    /// Runs new rows through the model: several of one sequence, or one of each of several
    /// sequences.
    fn run(&mut self, indices: &[usize], ids: &[u32]) -> Result<Vec<f32>> {
        let (config, c, rows) = (self.weights.config, self.weights.config.n_embd, ids.len());
        let per_sequence = rows / indices.len();
        let mut residual = vec![0f32; rows * c];
        for (i, (row, &id)) in residual.chunks_exact_mut(c).zip(ids).enumerate() {
            let position = self.sequences[indices[i / per_sequence]].length + i % per_sequence;
            self.check(id, position)?;
            embed(&self.weights.parameters, id, position as u32, row);
        }
        let eps = config.layer_norm_epsilon as f32;
        let (mut ln, mut atty) = (vec![0f32; rows * c], vec![0f32; rows * c]);
        let (mut fch, mut fch_gelu) = (vec![0f32; rows * 4 * c], vec![0f32; rows * 4 * c]);
        for layer in 0..config.n_layer {
            let block = &self.weights.parameters.blocks[layer];
            layer_norm(&residual, block.ln1.weight_and_bias(), eps, &mut ln, &mut self.mean_rstd);
            let qkv = &mut fch[..rows * 3 * c];
            self.linear(&block.qkv, &ln, None, qkv);
            let sequences = qkv.chunks(per_sequence * 3 * c).zip(atty.chunks_mut(per_sequence * c));
            for (&index, (qkv, atty)) in indices.iter().zip(sequences) {
                self.attention(index, layer, qkv, atty);
            }
            // ln is not needed any more, so it takes residual2, and later residual3.
            self.linear(&block.attproj, &atty, Some(&residual), &mut ln);
            std::mem::swap(&mut residual, &mut ln);
            layer_norm(&residual, block.ln2.weight_and_bias(), eps, &mut ln, &mut self.mean_rstd);
            self.linear(&block.fc, &ln, None, &mut fch);
            gelu(&fch, &mut fch_gelu);
            self.linear(&block.fcproj, &fch_gelu, Some(&residual), &mut ln);
            std::mem::swap(&mut residual, &mut ln);
        }
        indices.iter().for_each(|&n| self.sequences[n].length += per_sequence);
        // Only the last row of each sequence predicts the next token.
        let last: Vec<f32> = residual
            .chunks(per_sequence * c)
            .flat_map(|rows| &rows[rows.len() - c..])
            .copied()
            .collect();
        let lnf = &mut ln[..last.len()];
        layer_norm(
            &last,
            self.weights.parameters.lnf.weight_and_bias(),
            eps,
            lnf,
            &mut self.mean_rstd,
        );
        let mut logits = vec![0f32; indices.len() * config.vocab_size];
        self.weights.head.add_few_rows(lnf, &mut logits);
        Ok(logits)
    }

    /// Computes out = x W + bias, plus `residual` if given.
    fn linear(
        &mut self,
        layer: &Affine<Weight<'_>>,
        x: &[f32],
        residual: Option<&[f32]>,
        out: &mut [f32],
    ) {
        init_rows(layer.bias(), residual, out);
        if x.len() / layer.weight.n_in <= FEW_ROWS {
            layer.weight.add_few_rows(x, out);
        } else {
            self.products.forward(&layer.weight, x, out, Store::Add);
        }
    }

    /// Appends the new keys and values to those of the sequence, and attends to all of them.
    fn attention(&mut self, index: usize, layer: usize, qkv: &[f32], atty: &mut [f32]) {
        let (c, n_head) = (self.weights.config.n_embd, self.weights.config.n_head);
        let (d, rows) = (c / n_head, atty.len() / c);
        let sequence = &mut self.sequences[index];
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
                attention_one(
                    q,
                    lines.chunks_exact(keys.capacity),
                    values,
                    at.start,
                    scale,
                    scores,
                    &mut atty[at],
                );
                continue;
            }
            let (q, v) =
                (Matrix::rows(&qkv[at.start..], 3 * c), Matrix::rows(&values[at.start..], c));
            let k = Matrix::rows(&keys.lines[at.start * keys.capacity..], keys.capacity);
            let p = &mut self.scores[..rows * n];
            product([rows, n, d], q, k, p, n, Store::Overwrite, scale);
            widest!({
                for (i, row) in p.chunks_exact_mut(n).enumerate() {
                    let (visible, masked) = row.split_at_mut(n - rows + i + 1);
                    softmax(visible);
                    masked.fill(0.0);
                }
            });
            product(
                [rows, d, n],
                Matrix::rows(p, n),
                v,
                &mut atty[at.start..],
                c,
                Store::Overwrite,
                1.0,
            );
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

/// Computes attention for one query of one head, whose columns of the values begin at `first`.
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
