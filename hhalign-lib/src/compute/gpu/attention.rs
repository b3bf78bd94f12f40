//! Causal attention of one layer: selects the kernels for the head width and launches them.

use crate::base::error::Result;
use crate::compute::gpu::Storage;
use crate::compute::gpu::kernels::attention as plain;
use crate::compute::gpu::kernels::attention_tensor::{
    AttentionTensor, AttentionTensorKeys, AttentionTensorQueries, Width,
};
use crate::compute::gpu::lists::Lists;
use crate::compute::gpu::weights::Weights;

/// The attention of one layer over the rows of a pack. Shapes: R rows, H heads of width d, C = H d.
pub(super) struct Attention<'a> {
    w: &'a Weights,
    lists: &'a Lists,
    /// The address of the biases of queries, keys and values, (3C).
    bias: u64,
    heads: usize,
    d: usize,
    scale: f32,
    /// The width of the tensor-core kernels, if they support this head width and dtype.
    tensor: Option<Width>,
}

/// Addresses of the inputs, the output and the scratch of a backward pass.
pub(super) struct Backward {
    /// The output: the gradient of `qkv`, (R, 3C).
    pub(super) dqkv: u64,
    /// The gradient of `atty`, (R, C).
    pub(super) datty: u64,
    /// From the forward pass, (R, C).
    pub(super) atty: u64,
    /// From the forward pass, (R, H).
    pub(super) lse: u64,
    /// From the forward pass, (R, 3C).
    pub(super) qkv: u64,
    /// Scratch, (R, H).
    pub(super) delta: u64,
}

impl<'a> Attention<'a> {
    pub(super) fn new(w: &'a Weights, lists: &'a Lists, layer: usize) -> Self {
        let (heads, d) = (w.config.n_head, w.config.n_embd / w.config.n_head);
        let tensor = if w.dtypes.storage == Storage::F32 { None } else { Width::for_head(d) };
        let (bias, scale) = (w.f32_address(w.block(layer).qkv.bias()), 1.0 / (d as f32).sqrt());
        Self { w, lists, bias, heads, d, scale, tensor }
    }

    /// Computes `atty` (R, C) and `lse` (R, H) from `qkv` (R, 3C) without its bias. The tensor-core
    /// kernels add the queries' bias to qkv in place.
    pub(super) fn forward(&self, qkv: u64, atty: u64, lse: u64) -> Result<()> {
        let Self { w, lists, bias, heads, d, scale, tensor } = *self;
        let (blocks, n_blocks) = (lists.address(lists.query_blocks), lists.n_query_blocks());
        match tensor {
            Some(width) => w.launch(&AttentionTensor {
                width,
                atty,
                lse,
                qkv,
                bias,
                blocks,
                heads,
                d,
                scale,
                n_blocks,
            }),
            None => w.launch(&plain::Attention {
                atty,
                lse,
                qkv,
                bias,
                blocks,
                heads,
                d,
                scale,
                n_blocks,
            }),
        }
    }

    /// Overwrites `dqkv` with the gradient of `qkv`.
    pub(super) fn backward(
        &self,
        Backward { dqkv, datty, atty, lse, qkv, delta }: Backward,
    ) -> Result<()> {
        let Self { w, lists, bias, heads, d, scale, tensor } = *self;
        let rows = lists.n_rows;
        // The tensor-core kernels have added the values' bias, the last third of the biases, to
        // atty.
        let values_bias = if tensor.is_some() { bias + 2 * 4 * (heads * d) as u64 } else { 0 };
        w.launch(&plain::AttentionDelta { delta, datty, atty, bias: values_bias, rows, heads, d })?;
        let (blocks, n_blocks) = (lists.address(lists.query_blocks), lists.n_query_blocks());
        match tensor {
            Some(width) => w.launch(&AttentionTensorQueries {
                width,
                dqkv,
                datty,
                delta,
                lse,
                qkv,
                blocks,
                heads,
                d,
                scale,
                n_blocks,
            })?,
            None => w.launch(&plain::AttentionQueries {
                dqkv,
                datty,
                delta,
                lse,
                qkv,
                bias,
                blocks,
                heads,
                d,
                scale,
                n_blocks,
            })?,
        }
        let (blocks, n_blocks) = (lists.address(lists.key_blocks), lists.n_key_blocks());
        match tensor {
            Some(width) => {
                let kernel = AttentionTensorKeys {
                    width,
                    dqkv,
                    datty,
                    delta,
                    lse,
                    qkv,
                    blocks,
                    heads,
                    d,
                    scale,
                    n_blocks,
                };
                w.launch(&kernel)
            }
            None => w.launch(&plain::AttentionKeys {
                dqkv,
                datty,
                delta,
                lse,
                qkv,
                bias,
                blocks,
                heads,
                d,
                scale,
                n_blocks,
            }),
        }
    }
}
