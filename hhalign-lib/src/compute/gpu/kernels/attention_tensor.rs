//! Launchers of the kernels in `attention_tensor.cu`: attention on tensor cores, for 16-bit dtypes.
//! Shapes as in `attention.rs`. Each kernel exists for three head widths.

use crate::compute::gpu::kernels::attention::TILE;
use crate::compute::gpu::kernels::{Argument, Kernel, Launch, args};

/// The head widths of the kernels. Narrower heads are padded with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(Default))]
pub enum Width {
    #[cfg_attr(test, default)]
    W32,
    W64,
    W128,
}

impl Width {
    pub const ALL: [Self; 3] = [Self::W32, Self::W64, Self::W128];

    /// Returns the smallest width for heads of `d` numbers. `d` must be a multiple of 8, since 16
    /// bytes are read at a time.
    pub fn for_head(d: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|width| d.is_multiple_of(8) && d <= width.columns())
    }

    fn columns(self) -> usize {
        32 << self as usize
    }

    /// Launches the kernel for this width, out of three in the order of [`Width::ALL`], with one
    /// block for each list block and head.
    fn launch(
        self,
        kernels: [&'static str; 3],
        [n_blocks, heads]: [usize; 2],
        args: Vec<Argument>,
    ) -> Launch {
        // Two tiles of stored rows, each row 8 numbers longer than a head.
        let shared = 2 * TILE * (self.columns() + 8) * 2;
        Launch { kernel: kernels[self as usize], grid: [n_blocks, heads], block: 128, shared, args }
    }
}

/// A kernel that computes atty (R, C) and lse (R, H) from qkv (R, 3C) without its bias (3C), for
/// `blocks` (n_blocks, 5) of queries. It adds the queries' bias to qkv in place; atty includes the
/// values' bias.
#[cfg_attr(test, derive(Default))]
pub struct AttentionTensor {
    pub width: Width,
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

impl Kernel for AttentionTensor {
    fn launch(&self) -> Launch {
        let args = args!(self: atty, lse, qkv, bias, blocks, heads, d, scale);
        let kernels = ["attention_tensor_32", "attention_tensor_64", "attention_tensor_128"];
        self.width.launch(kernels, [self.n_blocks, self.heads], args)
    }
}

/// A kernel that computes the queries' part of dqkv (R, 3C), for `blocks` (n_blocks, 5) of queries.
/// datty (R, C), delta and lse (R, H), and qkv (R, 3C) as [`AttentionTensor`] left it.
#[cfg_attr(test, derive(Default))]
pub struct AttentionTensorQueries {
    pub width: Width,
    pub dqkv: u64,
    pub datty: u64,
    pub delta: u64,
    pub lse: u64,
    pub qkv: u64,
    pub blocks: u64,
    pub heads: usize,
    pub d: usize,
    pub scale: f32,
    pub n_blocks: usize,
}

impl Kernel for AttentionTensorQueries {
    fn launch(&self) -> Launch {
        let args = args!(self: dqkv, datty, delta, lse, qkv, blocks, heads, d, scale);
        let kernels = [
            "attention_tensor_queries_32",
            "attention_tensor_queries_64",
            "attention_tensor_queries_128",
        ];
        self.width.launch(kernels, [self.n_blocks, self.heads], args)
    }
}

/// A kernel that computes the keys' and values' parts of dqkv (R, 3C), for `blocks` (n_blocks, 3)
/// of keys. The other shapes are those of [`AttentionTensorQueries`].
#[cfg_attr(test, derive(Default))]
pub struct AttentionTensorKeys {
    pub width: Width,
    pub dqkv: u64,
    pub datty: u64,
    pub delta: u64,
    pub lse: u64,
    pub qkv: u64,
    pub blocks: u64,
    pub heads: usize,
    pub d: usize,
    pub scale: f32,
    pub n_blocks: usize,
}

impl Kernel for AttentionTensorKeys {
    fn launch(&self) -> Launch {
        let args = args!(self: dqkv, datty, delta, lse, qkv, blocks, heads, d, scale);
        let kernels =
            ["attention_tensor_keys_32", "attention_tensor_keys_64", "attention_tensor_keys_128"];
        self.width.launch(kernels, [self.n_blocks, self.heads], args)
    }
}
