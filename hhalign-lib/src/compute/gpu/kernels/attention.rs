//! Launchers of the kernels in `attention.cu`, for every head width and dtype. R rows, H heads of
//! width d, C = H d. `lists.rs` makes the lists of blocks.

use crate::compute::gpu::kernels::{Kernel, Launch, args};

/// Queries or keys of one block of the lists. Each is two blocks for the kernels of `attention.cu`.
pub const TILE: usize = 64;

/// Returns the bytes of `n` tiles of f32 rows, each one number longer than a head.
fn shared(n: usize, d: usize) -> usize {
    n * TILE / 2 * (d + 1) * 4
}

/// A kernel that computes atty (R, C) and lse (R, H) from qkv (R, 3C) without its bias (3C), for
/// `blocks` (n_blocks, 5) of queries.
#[cfg_attr(test, derive(Default))]
pub struct Attention {
    pub atty: u64,
    pub lse: u64,
    pub qkv: u64,
    pub bias: u64,
    pub blocks: u64,
    pub heads: usize,
    pub d: usize,
    pub scale: f32,
    pub n_blocks: usize,
}

impl Kernel for Attention {
    fn launch(&self) -> Launch {
        let args = args!(self: atty, lse, qkv, bias, blocks, heads, d, scale);
        let grid = [2 * self.n_blocks, self.heads];
        Launch { kernel: "attention", grid, block: 128, shared: shared(3, self.d), args }
    }
}

/// A kernel that computes delta (R, H) = Σ datty (atty - bias) over each head, from datty and atty
/// (R, C). `bias` (C) is the bias that the forward pass added to atty, or 0.
#[cfg_attr(test, derive(Default))]
pub struct AttentionDelta {
    pub delta: u64,
    pub datty: u64,
    pub atty: u64,
    pub bias: u64,
    pub rows: usize,
    pub heads: usize,
    pub d: usize,
}

impl Kernel for AttentionDelta {
    fn launch(&self) -> Launch {
        let args = args!(self: delta, datty, atty, bias, rows, heads, d);
        Launch::warp_per_row("attention_delta", self.rows * self.heads, args)
    }
}

/// A kernel that computes the queries' part of dqkv (R, 3C), for `blocks` (n_blocks, 5) of queries.
/// datty (R, C), delta and lse (R, H), qkv (R, 3C) without its bias (3C).
#[cfg_attr(test, derive(Default))]
pub struct AttentionQueries {
    pub dqkv: u64,
    pub datty: u64,
    pub delta: u64,
    pub lse: u64,
    pub qkv: u64,
    pub bias: u64,
    pub blocks: u64,
    pub heads: usize,
    pub d: usize,
    pub scale: f32,
    pub n_blocks: usize,
}

impl Kernel for AttentionQueries {
    fn launch(&self) -> Launch {
        let args = args!(self: dqkv, datty, delta, lse, qkv, bias, blocks, heads, d, scale);
        let grid = [2 * self.n_blocks, self.heads];
        Launch { kernel: "attention_queries", grid, block: 128, shared: shared(4, self.d), args }
    }
}

/// A kernel that computes the keys' and values' parts of dqkv (R, 3C), for `blocks` (n_blocks, 3)
/// of keys. The other shapes are those of [`AttentionQueries`].
#[cfg_attr(test, derive(Default))]
pub struct AttentionKeys {
    pub dqkv: u64,
    pub datty: u64,
    pub delta: u64,
    pub lse: u64,
    pub qkv: u64,
    pub bias: u64,
    pub blocks: u64,
    pub heads: usize,
    pub d: usize,
    pub scale: f32,
    pub n_blocks: usize,
}

impl Kernel for AttentionKeys {
    fn launch(&self) -> Launch {
        let args = args!(self: dqkv, datty, delta, lse, qkv, bias, blocks, heads, d, scale);
        let grid = [2 * self.n_blocks, self.heads];
        Launch { kernel: "attention_keys", grid, block: 128, shared: shared(4, self.d), args }
    }
}
