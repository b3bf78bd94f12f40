//! Token by token on a GPU, many sequences at a time.

use super::Gpu;
use super::calls::kernel;
use super::card::{Arg, Buffer, Room, download};
use super::lists::Lists;
use super::pass::{Attend, Cache, Pass};
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::fused::{Keep, Packed, Precision};
use crate::model::Gpt;

/// Rows that go through the model at once while prompts are read.
const PROMPT_ROWS: usize = 16_384;

/// Sequences that grow side by side, their keys and values on the card.
pub struct GpuDecoder {
    weights: Weights,
    pass: Pass,
    cache: Cache,
    lengths: Vec<usize>,
    waiting: Packed,
    /// Rows whose logits can be asked for.
    rows: usize,
    uniform: Room,
    drawn: Room,
}

impl GpuDecoder {
    /// Room for `sequences` of at most `length` tokens each.
    ///
    /// # Errors
    /// The GPU's memory is full, or its kernels do not fit the model.
    pub fn new(gpu: &Gpu, model: &Gpt, precision: Precision, sequences: usize, length: usize) -> Result<Self> {
        let weights = Weights::new(gpu, model, gpu.numbers(precision, false)?)?;
        let (config, bytes) = (&weights.config, weights.numbers.storage.bytes());
        let size = sequences * length * 2 * config.n_embd * bytes;
        let layers = (0..config.n_layer).map(|_| Buffer::new(&gpu.card, size)).collect::<Result<_>>()?;
        let cache = Cache { layers, room: length };
        let (pass, uniform, drawn) = (Pass::default(), Room::default(), Room::default());
        Ok(Self { weights, pass, cache, lengths: vec![], waiting: Packed::default(), rows: 0, uniform, drawn })
    }

    /// Bytes of cache that one sequence of `length` tokens takes.
    pub fn bytes_per_sequence(model: &Gpt, length: usize, precision: Precision) -> usize {
        let config = &model.config;
        let bytes = if precision == Precision::F32 { 4 } else { 2 };
        config.n_layer * length * 2 * config.n_embd * bytes
    }

    /// Whether the waiting prompts should be read before one of so many tokens is added.
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
        if prompt.len() > self.cache.room {
            return Err(too_long(prompt.len(), self.cache.room));
        }
        // The target only marks the row that predicts the next token.
        self.waiting.push(prompt, &[&prompt[..1.min(prompt.len())]])?;
        self.lengths.push(prompt.len());
        Ok(())
    }

    /// Reads the waiting prompts in one pass: the logits behind their last tokens can be asked for.
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
        self.pass.run(&self.weights, lists, Keep::Nothing, &Attend::AndRemember(&self.cache))?;
        self.rows = n;
        Ok(())
    }

    /// Appends one token to each of some sequences.
    ///
    /// # Errors
    /// A sequence without room, or an id outside the vocabulary.
    pub fn append(&mut self, numbers: &[usize], ids: &[u32]) -> Result<()> {
        let positions: Vec<usize> = numbers.iter().map(|&n| self.lengths[n]).collect();
        let room = self.cache.room.min(self.weights.config.block_size);
        if let Some(&length) = positions.iter().find(|p| **p >= room) {
            return Err(too_long(length + 1, room));
        }
        let vocabulary = self.weights.config.vocab_size;
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocabulary) {
            let got = format!("id {id}, vocabulary of {vocabulary}");
            let fix = "tokenise with the tokenizer that the model was made for";
            return Err(Error::new("a token id is outside the vocabulary", got, fix));
        }
        let lists = Lists::of_tokens(ids, &positions, numbers);
        self.pass.run(&self.weights, lists, Keep::Nothing, &Attend::Cache(&self.cache))?;
        numbers.iter().for_each(|&n| self.lengths[n] += 1);
        self.rows = numbers.len();
        Ok(())
    }

    /// The logits behind the last tokens.
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

    /// Draws a token behind each last one: uniform numbers in [0, 1) say where in the distribution; the likeliest with
    /// temperature 0.
    ///
    /// # Shapes
    /// uniform (B) -> (B)
    ///
    /// # Errors
    /// The model gives no numbers.
    pub fn draw(&mut self, uniform: &[f32], temperature: f32) -> Result<Vec<u32>> {
        let (w, rows) = (&self.weights, self.rows);
        let logits = self.pass.logits(w, 0, rows)?;
        let (uniform, drawn) = (self.uniform.upload(&w.card, uniform)?, self.drawn.sized(&w.card, rows * 4)?);
        let [v, stride] = [w.config.vocab_size, w.layout.vocab].map(|n| Arg::Int(n as i32));
        let args = [Arg::At(drawn), Arg::At(logits), Arg::At(uniform), v, stride, Arg::Float(temperature)];
        kernel(w, "draw", [rows, 1], 256, 0, &args)?;
        let ids: Vec<i32> = download(&*w.card, drawn, rows)?;
        if ids.contains(&-1) {
            let fix = "the weights are not finite: load a model from before its training failed";
            return Err(Error::new("the model gives no numbers", "logits that are not finite", fix));
        }
        Ok(ids.into_iter().map(|id| id as u32).collect())
    }
}

fn too_long(length: usize, room: usize) -> Error {
    let got = format!("{length} tokens, room for {room}");
    Error::new(
        "the sequence is longer than there is room for",
        got,
        "cut the text, or use a preset with a longer block",
    )
}
