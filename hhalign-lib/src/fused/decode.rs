//! Decoding token by token with a cache of keys and values, for several sequences at once.
//!
//! What a sequence gets does not depend on its neighbours: every row is summed up in the same order however many rows
//! there are.

use super::few_rows::{self, FEW_ROWS};
use super::gelu::{gelu, start_rows};
use super::gemm::{Into, Matrix, product};
use super::norm::{Moments, layer_norm};
use super::products::Products;
use super::vector::{softmax, widest};
use super::weights::{Linear, Purpose, Weights};
use crate::error::{Error, Result};

/// Keys and values of some sequences, and memory for the next tokens.
pub struct Decoder<'a> {
    weights: &'a Weights<'a>,
    sequences: Vec<Sequence>,
    products: Products,
    moments: Moments,
    scores: Vec<f32>,
}

/// Keys and values of one sequence.
struct Sequence {
    keys: Vec<Keys>,
    /// Per layer (T, C).
    values: Vec<Vec<f32>>,
    length: usize,
}

/// The keys of one layer, (C, room): one line for each column, so that a query meets many keys at once.
#[derive(Clone, Default)]
struct Keys {
    lines: Vec<f32>,
    room: usize,
    length: usize,
}

impl Keys {
    fn push(&mut self, key: &[f32]) {
        if self.length == self.room {
            let room = self.room + ROOM;
            let mut lines = vec![0f32; key.len() * room];
            if self.room > 0 {
                for (to, from) in lines.chunks_exact_mut(room).zip(self.lines.chunks_exact(self.room)) {
                    to[..self.room].copy_from_slice(from);
                }
            }
            (self.lines, self.room) = (lines, room);
        }
        self.lines.iter_mut().skip(self.length).step_by(self.room).zip(key).for_each(|(to, x)| *to = *x);
        self.length += 1;
    }
}

/// Keys that room is made for at once.
const ROOM: usize = 128;

impl<'a> Decoder<'a> {
    /// For sequences that are still to come.
    ///
    /// # Errors
    /// The weights were not lent for decoding.
    pub fn new(weights: &'a Weights<'a>) -> Result<Self> {
        if weights.purpose != Purpose::Decode {
            return Err(Error::new(
                "these weights do not lie as decoding needs them",
                format!("{:?}", weights.purpose),
                "lend them with Purpose::Decode",
            ));
        }
        let (products, moments) = (Products::default(), Moments::default());
        Ok(Self { weights, sequences: vec![], products, moments, scores: vec![] })
    }

    /// Reads a prompt as a new sequence; returns its number and the logits behind its last token.
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

    /// Appends one token to each of some sequences; returns the logits behind each.
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
                "each sequence that goes on gets one token",
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
        let mut x = vec![0f32; rows * c];
        for (i, (row, &id)) in x.chunks_exact_mut(c).zip(ids).enumerate() {
            let position = self.sequences[numbers[i / per_sequence]].length + i % per_sequence;
            self.check(id, position)?;
            let (token, place) = (&self.weights.wte[id as usize * c..], &self.weights.wpe[position * c..]);
            row.iter_mut().zip(token).zip(place).for_each(|((x, t), p)| *x = t + p);
        }
        let eps = config.layer_norm_epsilon as f32;
        let (mut normal, mut y) = (vec![0f32; rows * c], vec![0f32; rows * c]);
        let (mut wide, mut active) = (vec![0f32; rows * 4 * c], vec![0f32; rows * 4 * c]);
        for layer in 0..config.n_layer {
            let block = &self.weights.blocks[layer];
            layer_norm(&x, block.ln_1, eps, &mut normal, &mut self.moments);
            let qkv = &mut wide[..rows * 3 * c];
            start_rows(block.c_attn.bias, None, qkv);
            self.add_product(&block.c_attn, &normal, qkv);
            for (&number, (qkv, y)) in
                numbers.iter().zip(qkv.chunks(per_sequence * 3 * c).zip(y.chunks_mut(per_sequence * c)))
            {
                self.attend(number, layer, qkv, y);
            }
            start_rows(block.attn_c_proj.bias, Some(&x), &mut normal);
            self.add_product(&block.attn_c_proj, &y, &mut normal);
            std::mem::swap(&mut x, &mut normal);
            layer_norm(&x, block.ln_2, eps, &mut normal, &mut self.moments);
            start_rows(block.c_fc.bias, None, &mut wide);
            self.add_product(&block.c_fc, &normal, &mut wide);
            gelu(&wide, &mut active);
            start_rows(block.mlp_c_proj.bias, Some(&x), &mut normal);
            self.add_product(&block.mlp_c_proj, &active, &mut normal);
            std::mem::swap(&mut x, &mut normal);
        }
        numbers.iter().for_each(|&n| self.sequences[n].length += per_sequence);
        // Only the last row of each sequence is asked what comes next.
        let last: Vec<f32> = x.chunks(per_sequence * c).flat_map(|rows| &rows[rows.len() - c..]).copied().collect();
        let hidden = &mut normal[..last.len()];
        layer_norm(&last, self.weights.ln_f, eps, hidden, &mut self.moments);
        let mut logits = vec![0f32; numbers.len() * config.vocab_size];
        few_rows::add_product(&self.weights.head, hidden, &mut logits);
        Ok(logits)
    }

    fn add_product(&mut self, linear: &Linear<'_>, x: &[f32], out: &mut [f32]) {
        if x.len() / linear.weight.n_in <= FEW_ROWS {
            few_rows::add_product(&linear.weight, x, out);
        } else {
            self.products.forward(&linear.weight, x, out, Into::Add);
        }
    }

    /// Puts the new keys and values behind those of the sequence, and attends to all of them.
    fn attend(&mut self, number: usize, layer: usize, qkv: &[f32], y: &mut [f32]) {
        let (c, n_head) = (self.weights.config.n_embd, self.weights.config.n_head);
        let (d, rows) = (c / n_head, y.len() / c);
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
                let lines = &keys.lines[at.start * keys.room..at.end * keys.room];
                let (q, scores) = (&qkv[at.clone()], &mut self.scores[..n]);
                attend_one(q, lines.chunks_exact(keys.room), values, at.start, scale, scores, &mut y[at]);
                continue;
            }
            let (q, v) = (Matrix::rows(&qkv[at.start..], 3 * c), Matrix::rows(&values[at.start..], c));
            let k = Matrix::rows(&keys.lines[at.start * keys.room..], keys.room);
            let p = &mut self.scores[..rows * n];
            product([rows, n, d], q, k, p, n, Into::Overwrite, scale);
            widest!({
                for (i, row) in p.chunks_exact_mut(n).enumerate() {
                    let (seen, hidden) = row.split_at_mut(n - rows + i + 1);
                    softmax(seen);
                    hidden.fill(0.0);
                }
            });
            product([rows, d, n], Matrix::rows(p, n), v, &mut y[at.start..], c, Into::Overwrite, 1.0);
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

/// One query of one head, which takes the columns of the values from `first` on.
fn attend_one<'a>(
    q: &[f32],
    lines: impl Iterator<Item = &'a [f32]>,
    values: &[f32],
    first: usize,
    scale: f32,
    scores: &mut [f32],
    y: &mut [f32],
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
        y.fill(0.0);
        for (p, value) in scores.iter().zip(values.chunks_exact(row)) {
            y.iter_mut().zip(&value[first..first + d]).for_each(|(y, v)| *y += p * v);
        }
    });
}
