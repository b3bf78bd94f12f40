//! Attention: which kernels serve a head, and how they are started.

use super::Storage;
use super::calls::{at, int, kernel};
use super::card::Arg;
use super::weights::{Part, Weights, Which};
use crate::error::Result;

/// Queries or keys of one block in the lists. Kernels without tensor cores halve it.
pub(super) const TILE: usize = 64;

/// Widths of heads that tensor cores have kernels for; what is narrower is filled up with zeros.
const WIDTHS: [usize; 3] = [32, 64, 128];
const FORWARD: [&str; 3] = ["attention_32", "attention_64", "attention_128"];
const QUERIES: [&str; 3] = ["attention_queries_32", "attention_queries_64", "attention_queries_128"];
const KEYS: [&str; 3] = ["attention_keys_32", "attention_keys_64", "attention_keys_128"];

/// A list of blocks on the card and how many there are; `lists.rs` makes them.
#[derive(Clone, Copy)]
pub(super) struct Blocks {
    pub(super) at: u64,
    pub(super) n: usize,
}

/// The attention of one layer.
pub(super) struct Attention<'a> {
    w: &'a Weights,
    /// Biases of queries, keys and values (3C), on the card.
    bias: u64,
    heads: usize,
    width: usize,
    /// Which of the tensor cores' kernels serves, if one does.
    tensor: Option<usize>,
}

impl<'a> Attention<'a> {
    pub(super) fn of(w: &'a Weights, layer: usize) -> Self {
        let (heads, width) = (w.config.n_head, w.config.n_embd / w.config.n_head);
        // 16 bytes are read at a time.
        let fits = w.numbers.storage != Storage::F32 && width % 8 == 0;
        let tensor = WIDTHS.iter().position(|most| fits && width <= *most);
        Self { w, bias: w.value(Which::Block(layer, Part::QkvBias)), heads, width, tensor }
    }

    /// `y` (R, C) and `lse` (R, H) from `qkv` (R, 3C) without its bias. The kernels on tensor cores add the queries' bias to it.
    pub(super) fn forward(&self, [y, lse, qkv]: [u64; 3], queries: Blocks) -> Result<()> {
        let args =
            [at(y), at(lse), at(qkv), at(self.bias), at(queries.at), int(self.heads), int(self.width), self.scale()];
        match self.tensor {
            Some(i) => self.start(FORWARD[i], [queries.n, self.heads], self.tiles(i), &args),
            None => self.start("attention", [2 * queries.n, self.heads], self.rows(3), &args),
        }
    }

    /// `d_qkv` (R, 3C) from `d_y` (R, C), with the `qkv` and `lse` that the forward pass left; `delta` (R, H) is scratch.
    pub(super) fn backward(
        &self,
        d_qkv: u64,
        [d_y, y, delta, lse, qkv]: [u64; 5],
        rows: usize,
        queries: Blocks,
        keys: Blocks,
    ) -> Result<()> {
        let (heads, width) = (int(self.heads), int(self.width));
        let values_bias = if self.tensor.is_some() { self.bias + 2 * 4 * (self.heads * self.width) as u64 } else { 0 };
        let args = [at(delta), at(d_y), at(y), at(values_bias), int(rows), heads, width];
        self.start("attention_delta", [(rows * self.heads).div_ceil(4), 1], 0, &args)?;
        let plain = ["attention_queries", "attention_keys"];
        for (blocks, name, tensor) in [(queries, plain[0], QUERIES), (keys, plain[1], KEYS)] {
            let mut args = vec![at(d_qkv), at(d_y), at(delta), at(lse), at(qkv)];
            if self.tensor.is_none() {
                args.push(at(self.bias));
            }
            args.extend([at(blocks.at), heads, width, self.scale()]);
            match self.tensor {
                Some(i) => self.start(tensor[i], [blocks.n, self.heads], self.tiles(i), &args)?,
                None => self.start(name, [2 * blocks.n, self.heads], self.rows(4), &args)?,
            }
        }
        Ok(())
    }

    fn scale(&self) -> Arg {
        Arg::Float(1.0 / (self.width as f32).sqrt())
    }

    fn start(&self, name: &'static str, grid: [usize; 2], shared: usize, args: &[Arg]) -> Result<()> {
        kernel(self.w, name, grid, 128, shared, args)
    }

    /// Shared memory of two tiles of `kernels/tensor.cu`.
    fn tiles(&self, i: usize) -> usize {
        2 * TILE * (WIDTHS[i] + 8) * 2
    }

    /// Shared memory of some tiles of `kernels/attention.cu`.
    fn rows(&self, n: usize) -> usize {
        n * TILE / 2 * (self.width + 1) * 4
    }
}
