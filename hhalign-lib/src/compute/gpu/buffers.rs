//! Buffers that passes keep on a card: activations of a block, gradients, the cache for decoding.

use super::card::{Buffer, GrowBuf};
use super::weights::{Param, Weights};
use crate::base::error::Result;

/// Activations of a block that its backward pass reads. Shapes: R rows, width C, H heads.
#[derive(Default)]
pub(super) struct BlockActivations {
    /// Mean and rstd of each row, (R, 2).
    pub(super) ln1_mean_rstd: GrowBuf,
    /// Queries, keys and values without their bias, (R, 3C).
    pub(super) qkv: GrowBuf,
    /// Output of attention, (R, C).
    pub(super) atty: GrowBuf,
    /// Log-sum-exp of the scores, (R, H).
    pub(super) lse: GrowBuf,
    /// The residual stream between attention and MLP, (R, C) in f32.
    pub(super) residual2: GrowBuf,
    /// Mean and rstd of each row, (R, 2).
    pub(super) ln2_mean_rstd: GrowBuf,
    /// Input of the GELU without its bias, (R, 4C).
    pub(super) fch: GrowBuf,
}

/// The keys and values of earlier tokens, (sequences, capacity, 2C) for each layer.
pub(super) struct Cache {
    pub(super) layers: Vec<Buffer>,
    pub(super) capacity: usize,
}

/// The gradient of every parameter, on the GPU.
pub struct GpuGradients {
    pub(super) buffer: Buffer,
}

/// The upstream gradients of a pass.
#[derive(Clone, Copy)]
pub(super) struct Upstream<'a> {
    /// The gradient of every log π, (N).
    pub(super) dlogps: &'a [f32],
    /// The gradient of the ends, (E, C); empty means zeros.
    pub(super) dends: &'a [f32],
    /// The factor of both gradients, so that small ones do not underflow in f16.
    pub(super) scale: f32,
    /// The parameters' gradients, to which the pass adds.
    pub(super) gradients: &'a GpuGradients,
}

impl GpuGradients {
    /// Makes gradients of zero.
    pub(super) fn zeros(w: &Weights) -> Result<Self> {
        Ok(Self { buffer: Buffer::cleared(&w.card, w.layout.len * 4)? })
    }

    /// Returns the address of a parameter's gradient.
    pub(super) fn address_of(&self, param: Param) -> u64 {
        self.buffer.address() + 4 * param.offset as u64
    }
}
