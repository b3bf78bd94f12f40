//! Causal attention of one layer: which kernels serve a head, and their launches.

use super::Storage;
use super::kernels::attention as plain;
use super::kernels::attention_tensor::{AttentionTensor, AttentionTensorKeys, AttentionTensorQueries, Width};
use super::lists::Lists;
use super::weights::Weights;
use crate::error::Result;

/// The attention of one layer over the rows of a pack. Shapes: R rows, H heads of width d, C = H d.
pub(super) struct Attention<'a> {
    w: &'a Weights,
    lists: &'a Lists,
    /// Address of the biases of queries, keys and values, (3C).
    bias: u64,
    heads: usize,
    d: usize,
    scale: f32,
    /// The kernels on tensor cores, if they serve heads of this width.
    tensor: Option<Width>,
}

/// Addresses of what a backward pass reads and writes.
pub(super) struct Backward {
    /// Output, (R, 3C).
    pub(super) dqkv: u64,
    /// (R, C)
    pub(super) datty: u64,
    /// As the forward pass left it, (R, C).
    pub(super) atty: u64,
    /// As the forward pass left it, (R, H).
    pub(super) lse: u64,
    /// As the forward pass left it, (R, 3C).
    pub(super) qkv: u64,
    /// Scratch, (R, H).
    pub(super) delta: u64,
}

impl<'a> Attention<'a> {
    pub(super) fn of(w: &'a Weights, lists: &'a Lists, layer: usize) -> Self {
        let (heads, d) = (w.config.n_head, w.config.n_embd / w.config.n_head);
        let tensor = if w.dtypes.storage == Storage::F32 { None } else { Width::of(d) };
        let (bias, scale) = (w.value(w.block(layer).qkv.bias()), 1.0 / (d as f32).sqrt());
        Self { w, lists, bias, heads, d, scale, tensor }
    }

    /// `atty` (R, C) and `lse` (R, H) from `qkv` (R, 3C) without its bias. The kernels on tensor cores add the queries' bias to
    /// qkv in place.
    pub(super) fn forward(&self, qkv: u64, atty: u64, lse: u64) -> Result<()> {
        let Self { w, lists, bias, heads, d, scale, tensor } = *self;
        let (blocks, n_blocks) = (lists.address(lists.query_blocks), lists.n_query_blocks());
        match tensor {
            Some(width) => {
                w.launch(&AttentionTensor { width, atty, lse, qkv, bias, blocks, heads, d, scale, n_blocks })
            }
            None => w.launch(&plain::Attention { atty, lse, qkv, bias, blocks, heads, d, scale, n_blocks }),
        }
    }

    /// Overwrites `dqkv` with the gradient of `qkv`.
    pub(super) fn backward(&self, Backward { dqkv, datty, atty, lse, qkv, delta }: Backward) -> Result<()> {
        let Self { w, lists, bias, heads, d, scale, tensor } = *self;
        let rows = lists.n_rows;
        // The kernels on tensor cores have added the values' bias, the last third, to atty.
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
                let kernel =
                    AttentionTensorKeys { width, dqkv, datty, delta, lse, qkv, blocks, heads, d, scale, n_blocks };
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
