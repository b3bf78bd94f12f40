//! The products of a linear layer. The kernel that reads the result adds the bias, so that
//! activations go through the card's memory fewer times.

use crate::base::error::Result;
use crate::compute::gpu::card::{Operand, Product, Store};
use crate::compute::gpu::weights::{Param, Weights};
use crate::model::Affine;

/// Computes out (rows, out) = x (rows, in) W, stored.
pub(super) fn linear(
    w: &Weights,
    layer: &Affine<Param>,
    x: u64,
    rows: usize,
    out: u64,
) -> Result<()> {
    let Param { rows: n_in, columns: n_out, .. } = layer.weight;
    w.product(&Product {
        size: [rows, n_out, n_in],
        a: Operand::rows(x, n_in),
        b: Operand::rows(w.stored_address(layer.weight), n_out),
        out,
        store: Store::Stored,
    })
}

/// Computes dx (rows, in) = dout (rows, out) Wᵀ, stored.
pub(super) fn linear_backward(
    w: &Weights,
    layer: &Affine<Param>,
    dout: u64,
    rows: usize,
    dx: u64,
) -> Result<()> {
    let Param { rows: n_in, columns: n_out, .. } = layer.weight;
    w.product(&Product {
        size: [rows, n_in, n_out],
        a: Operand::rows(dout, n_out),
        b: Operand::transposed(w.stored_address(layer.weight), n_out),
        out: dx,
        store: Store::Stored,
    })
}
