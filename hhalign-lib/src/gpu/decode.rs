//! Decoding token by token on a GPU, for many sequences at once.

use super::Gpu;
use super::card::{Buffer, GrowBuf, download};
use super::kernels::head::Draw;
use super::lists::Lists;
use super::pass::{Attend, Cache, Pass};
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::fused::{Keep, Packed, Precision};
use crate::model::Gpt;

/// Rows that go through the model at once while prompts are read.
const PROMPT_ROWS: usize = 16_384;

/// Decodes sequences with a cache of keys and values on the GPU.
pub struct GpuDecoder {
    weights: Weights,
    pass: Pass,
    cache: Cache,
    lengths: Vec<usize>,
    waiting: Packed,
    /// Rows whose logits are available.
    rows: usize,
    uniform: GrowBuf,
    drawn: GrowBuf,
}

impl GpuDecoder {
    /// Room for `sequences` of at most `length` tokens each.
    ///
    /// # Errors
    /// The GPU's memory is full, or its kernels do not fit the model.
    pub fn new(gpu: &Gpu, model: &Gpt, precision: Precision, sequences: usize, length: usize) -> Result<Self> {
        let weights = Weights::new(gpu, model, gpu.dtypes(precision, false)?)?;
        let (config, bytes) = (&weights.config, weights.dtypes.storage.bytes());
        let size = sequences * length * 2 * config.n_embd * bytes;
        let layers = (0..config.n_layer).map(|_| Buffer::new(&gpu.card, size)).collect::<Result<_>>()?;
        let cache = Cache { layers, capacity: length };
        let (pass, uniform, drawn) = (Pass::default(), GrowBuf::default(), GrowBuf::default());
        Ok(Self { weights, pass, cache, lengths: vec![], waiting: Packed::default(), rows: 0, uniform, drawn })
    }

    /// Bytes of cache that one sequence of `length` tokens needs.
    pub fn bytes_per_sequence(model: &Gpt, length: usize, precision: Precision) -> usize {
        let config = &model.config;
        let bytes = if precision == Precision::F32 { 4 } else { 2 };
        config.n_layer * length * 2 * config.n_embd * bytes
    }

    /// Whether the waiting prompts should be read before a prompt of `next` tokens is added.
    pub fn is_full(&self, next: usize) -> bool {
        self.waiting.n_rows() > 0 && self.waiting.n_rows() + next > PROMPT_ROWS
    }

    /// Forgets all sequences: the next one is number 0.
    pub fn clear(&mut self) {
        (self.waiting, self.rows) = (Packed::default(), 0);
        self.lengths.clear();
    }

    /// Begins a sequence with a prompt, which waits until [`GpuDecoder::read`]; sequences are numbered from 0.
    ///
    /// # Errors
    /// An empty prompt, or more tokens than there is room for.
    pub fn push(&mut self, prompt: &[u32]) -> Result<()> {
        if prompt.len() > self.cache.capacity {
            return Err(too_long(prompt.len(), self.cache.capacity));
        }
        // The target only marks the row that predicts the next token.
        self.waiting.push(prompt, &[&prompt[..1.min(prompt.len())]])?;
        self.lengths.push(prompt.len());
        Ok(())
    }

    /// Reads the waiting prompts in one pass; the logits after their last tokens are then available.
    ///
    /// # Errors
    /// No prompt waits, or one has an id outside the vocabulary.
    pub fn read(&mut self) -> Result<()> {
        let packed = std::mem::take(&mut self.waiting);
        packed.check(self.weights.config.vocab_size, self.weights.config.block_size)?;
        let n = packed.n_targets();
        let first = self.lengths.len() - n;
        let sequences = (first..self.lengths.len()).flat_map(|s| std::iter::repeat_n(s, self.lengths[s]));
        let lists = Lists::of(&packed, false).with_sequences(sequences);
        self.pass.hidden(&self.weights, lists, Keep::Nothing, &Attend::PackAndFill(&self.cache))?;
        self.rows = n;
        Ok(())
    }

    /// Appends one token to each of some sequences.
    ///
    /// # Errors
    /// A full sequence, or an id outside the vocabulary.
    pub fn append(&mut self, sequences: &[usize], ids: &[u32]) -> Result<()> {
        let positions: Vec<usize> = sequences.iter().map(|&s| self.lengths[s]).collect();
        let capacity = self.cache.capacity.min(self.weights.config.block_size);
        if let Some(&length) = positions.iter().find(|p| **p >= capacity) {
            return Err(too_long(length + 1, capacity));
        }
        let vocabulary = self.weights.config.vocab_size;
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocabulary) {
            let got = format!("id {id}, vocabulary of {vocabulary}");
            let fix = "tokenise with the tokenizer that the model was made for";
            return Err(Error::new("a token id is outside the vocabulary", got, fix));
        }
        let lists = Lists::of_tokens(ids, &positions, sequences);
        self.pass.hidden(&self.weights, lists, Keep::Nothing, &Attend::Cache(&self.cache))?;
        sequences.iter().for_each(|&s| self.lengths[s] += 1);
        self.rows = sequences.len();
        Ok(())
    }

    /// The logits after the last tokens.
    ///
    /// # Shapes
    /// -> (B, V)
    ///
    /// # Errors
    /// The GPU fails.
    pub fn logits(&mut self) -> Result<Vec<f32>> {
        let (rows, stride, v) = (self.rows, self.weights.layout.vocab, self.weights.config.vocab_size);
        let at = self.pass.logits(&self.weights, 0, rows)?;
        let all: Vec<f32> = download(&*self.weights.card, at, rows * stride)?;
        Ok(all.chunks_exact(stride).flat_map(|row| &row[..v]).copied().collect())
    }

    /// Draws a token after each last one, at the quantile that a uniform number in [0, 1) gives; the likeliest token at
    /// temperature 0.
    ///
    /// # Shapes
    /// uniform (B) -> (B)
    ///
    /// # Errors
    /// The logits are not finite.
    pub fn draw(&mut self, uniform: &[f32], temperature: f32) -> Result<Vec<u32>> {
        let (w, rows) = (&self.weights, self.rows);
        let logits = self.pass.logits(w, 0, rows)?;
        let (uniform, drawn) = (self.uniform.upload(&w.card, uniform)?, self.drawn.sized(&w.card, rows * 4)?);
        let (v, stride) = (w.config.vocab_size, w.layout.vocab);
        w.launch(&Draw { drawn, logits, uniform, v, stride, temperature, n: rows })?;
        let ids: Vec<i32> = download(&*w.card, drawn, rows)?;
        if ids.contains(&-1) {
            let fix = "the weights are not finite: load a model from before its training failed";
            return Err(Error::new("the model gives no numbers", "logits that are not finite", fix));
        }
        Ok(ids.into_iter().map(|id| id as u32).collect())
    }
}

fn too_long(length: usize, capacity: usize) -> Error {
    let got = format!("{length} tokens, room for {capacity}");
    Error::new(
        "the sequence is longer than there is room for",
        got,
        "cut the text, or use a preset with a longer block",
    )
}
