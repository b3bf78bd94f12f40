//! Decoding token by token on a GPU, for many sequences together.

use crate::base::error::{Error, Result};
use crate::compute::Precision;
use crate::compute::cpu::Keep;
use crate::compute::gpu::Gpu;
use crate::compute::gpu::card::{Buffer, GrowBuf, download};
use crate::compute::gpu::kernels::head::Draw;
use crate::compute::gpu::lists::Lists;
use crate::compute::gpu::pass::{Attend, Cache, Pass};
use crate::compute::gpu::weights::Weights;
use crate::data::packed::Packed;
use crate::model::Gpt;

/// The maximum number of rows of a pass that reads prompts.
const MAX_PROMPT_ROWS: usize = 16_384;

/// A decoder of sequences with a cache of keys and values on the GPU.
pub struct GpuDecoder {
    weights: Weights,
    pass: Pass,
    cache: Cache,
    lengths: Vec<usize>,
    queued: Packed,
    /// The number of rows whose logits are available.
    n_rows: usize,
    uniform: GrowBuf,
    drawn: GrowBuf,
}

impl GpuDecoder {
    /// Makes a decoder with a cache for `sequences` sequences of at most `length` tokens.
    ///
    /// # Errors
    /// The GPU's memory is full, or its kernels do not fit the model.
    pub fn new(
        gpu: &Gpu,
        model: &Gpt,
        precision: Precision,
        sequences: usize,
        length: usize,
    ) -> Result<Self> {
        let weights = Weights::new(gpu, model, gpu.dtypes(precision, false)?)?;
        let (config, bytes) = (&weights.config, weights.dtypes.storage.bytes());
        let size = sequences * length * 2 * config.n_embd * bytes;
        let layers =
            (0..config.n_layer).map(|_| Buffer::new(&gpu.card, size)).collect::<Result<_>>()?;
        let cache = Cache { layers, capacity: length };
        let (pass, uniform, drawn) = (Pass::default(), GrowBuf::default(), GrowBuf::default());
        Ok(Self {
            weights,
            pass,
            cache,
            lengths: vec![],
            queued: Packed::default(),
            n_rows: 0,
            uniform,
            drawn,
        })
    }

    /// Returns the bytes of cache for one sequence of `length` tokens.
    pub fn bytes_per_sequence(model: &Gpt, length: usize, precision: Precision) -> usize {
        let config = &model.config;
        let bytes = if precision == Precision::F32 { 4 } else { 2 };
        config.n_layer * length * 2 * config.n_embd * bytes
    }

    /// Returns whether the queued prompts should be read before a prompt of `next` tokens is added.
    pub fn is_full(&self, next: usize) -> bool {
        self.queued.n_rows() > 0 && self.queued.n_rows() + next > MAX_PROMPT_ROWS
    }

    /// Removes all sequences. The next one has index 0.
    pub fn clear(&mut self) {
        (self.queued, self.n_rows) = (Packed::default(), 0);
        self.lengths.clear();
    }

    /// Starts a sequence with a prompt and queues it for [`GpuDecoder::read`]. Sequences are
    /// numbered from 0.
    ///
    /// # Errors
    /// The prompt is empty or longer than the cache.
    pub fn push(&mut self, prompt: &[u32]) -> Result<()> {
        if prompt.len() > self.cache.capacity {
            return Err(too_long(prompt.len(), self.cache.capacity));
        }
        // The target only marks the row that predicts the next token.
        self.queued.push(prompt, &[&prompt[..1.min(prompt.len())]])?;
        self.lengths.push(prompt.len());
        Ok(())
    }

    /// Reads the queued prompts in one pass. The logits after their last tokens are then available.
    ///
    /// # Errors
    /// No prompt is queued, or one has an id outside the vocabulary.
    pub fn read(&mut self) -> Result<()> {
        let packed = std::mem::take(&mut self.queued);
        packed.check(self.weights.config.vocab_size, self.weights.config.block_size)?;
        let n = packed.n_targets();
        let first = self.lengths.len() - n;
        let sequences =
            (first..self.lengths.len()).flat_map(|s| std::iter::repeat_n(s, self.lengths[s]));
        let lists = Lists::new(&packed, false).with_sequences(sequences);
        self.pass.hidden(&self.weights, lists, Keep::Nothing, &Attend::PackAndFill(&self.cache))?;
        self.n_rows = n;
        Ok(())
    }

    /// Appends one token to each of some sequences.
    ///
    /// # Errors
    /// A sequence is full, or an id is outside the vocabulary.
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
        let lists = Lists::from_tokens(ids, &positions, sequences);
        self.pass.hidden(&self.weights, lists, Keep::Nothing, &Attend::Cache(&self.cache))?;
        sequences.iter().for_each(|&s| self.lengths[s] += 1);
        self.n_rows = sequences.len();
        Ok(())
    }

    /// Returns the logits after the last tokens.
    ///
    /// # Shapes
    /// -> (B, V)
    ///
    /// # Errors
    /// The GPU fails.
    pub fn logits(&mut self) -> Result<Vec<f32>> {
        let (rows, stride, v) =
            (self.n_rows, self.weights.layout.vocab, self.weights.config.vocab_size);
        let address = self.pass.logits(&self.weights, 0, rows)?;
        let all: Vec<f32> = download(&*self.weights.card, address, rows * stride)?;
        Ok(all.chunks_exact(stride).flat_map(|row| &row[..v]).copied().collect())
    }

    /// Draws a token for each last row, at the quantile in [0, 1) that `uniform` gives. At
    /// temperature 0 it takes the likeliest token.
    ///
    /// # Shapes
    /// uniform (B) -> (B)
    ///
    /// # Errors
    /// The logits are not finite.
    pub fn draw(&mut self, uniform: &[f32], temperature: f32) -> Result<Vec<u32>> {
        let (w, rows) = (&self.weights, self.n_rows);
        let logits = self.pass.logits(w, 0, rows)?;
        let (uniform, drawn) =
            (self.uniform.upload(&w.card, uniform)?, self.drawn.sized(&w.card, rows * 4)?);
        let (v, stride) = (w.config.vocab_size, w.layout.vocab);
        w.launch(&Draw { drawn, logits, uniform, v, stride, temperature, n: rows })?;
        let ids: Vec<i32> = download(&*w.card, drawn, rows)?;
        if ids.contains(&-1) {
            let fix = "the weights are not finite: load a model from before its training failed";
            return Err(Error::numeric(
                "the model gives no numbers",
                "logits that are not finite",
                fix,
            ));
        }
        Ok(ids.into_iter().map(|id| id as u32).collect())
    }
}

fn too_long(length: usize, capacity: usize) -> Error {
    let got = format!("{length} tokens, capacity {capacity}");
    Error::new(
        "the sequence is longer than the cache",
        got,
        "cut the text, or use a preset with a longer block",
    )
}
