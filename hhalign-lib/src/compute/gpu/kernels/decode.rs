//! Launchers of the kernels in `decode.cu`. R rows, H heads of width d, C = H d. A cache is
//! (sequences, capacity, 2C), stored.

use crate::compute::gpu::kernels::{Kernel, Launch, args};

/// A kernel that writes the keys and values of qkv (R, 3C), plus their part of `bias` (3C), to the
/// cache at `sequences` (R) and `positions` (R).
#[cfg_attr(test, derive(Default))]
pub struct CacheAppend {
    pub cache: u64,
    pub qkv: u64,
    pub bias: u64,
    pub sequences: u64,
    pub positions: u64,
    pub rows: usize,
    pub capacity: usize,
    pub c: usize,
}

impl Kernel for CacheAppend {
    fn launch(&self) -> Launch {
        let args = args!(self: cache, qkv, bias, sequences, positions, rows, capacity, c);
        Launch::grid_stride("cache_append", 2 * self.rows * self.c, args)
    }
}

/// A kernel that computes atty (R, C). The query of each row of qkv (R, 3C), plus its part of
/// `bias` (3C), attends to its sequence in the cache up to its own position. `sequences` and
/// `positions` (R).
#[cfg_attr(test, derive(Default))]
pub struct AttentionCached {
    pub atty: u64,
    pub qkv: u64,
    pub bias: u64,
    pub cache: u64,
    pub sequences: u64,
    pub positions: u64,
    pub capacity: usize,
    pub heads: usize,
    pub d: usize,
    pub scale: f32,
    /// R. The kernel has one block for each row and head.
    pub rows: usize,
}

impl Kernel for AttentionCached {
    fn launch(&self) -> Launch {
        // The scores of a row, its query, and an output for each of four warps.
        let shared = (self.capacity + self.d + 4 * self.d) * 4;
        let args =
            args!(self: atty, qkv, bias, cache, sequences, positions, capacity, heads, d, scale);
        Launch {
            kernel: "attention_cached",
            grid: [self.rows, self.heads],
            block: 128,
            shared,
            args,
        }
    }
}
