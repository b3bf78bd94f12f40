//! Kernels and products as the passes call them.

use super::card::{Arg, Launch, Operand, Product};
use super::weights::{Weights, Which};
use crate::error::Result;

/// Starts a kernel; nothing where the grid is empty.
pub(super) fn kernel(
    w: &Weights,
    name: &'static str,
    grid: [usize; 2],
    block: u32,
    shared: usize,
    args: &[Arg],
) -> Result<()> {
    if grid.contains(&0) {
        return Ok(());
    }
    w.card.launch(w.numbers.storage, &Launch { kernel: name, grid, block, shared, args })
}

/// A kernel that goes over `n` numbers, four at a time.
pub(super) fn each(w: &Weights, name: &'static str, n: usize, args: &[Arg]) -> Result<()> {
    kernel(w, name, [(n / 4).div_ceil(256).min(4096), 1], 256, 0, args)
}

/// `out (+)= a b` of stored numbers; nothing where there is nothing to add up.
pub(super) fn product(
    w: &Weights,
    size: [usize; 3],
    a: Operand,
    b: Operand,
    (out, wide, add): (u64, bool, bool),
) -> Result<()> {
    if size.contains(&0) {
        return Ok(());
    }
    w.card.product(w.numbers, &Product { size, a, b, out, out_row: size[1], wide, add })
}

/// x (R, in) by the weight (in, out) -> stored (R, out)
pub(super) fn linear(
    w: &Weights,
    which: Which,
    x: u64,
    rows: usize,
    [n_in, n_out]: [usize; 2],
    out: u64,
) -> Result<()> {
    let weight = Operand::rows(w.stored(which), n_out);
    product(w, [rows, n_out, n_in], Operand::rows(x, n_in), weight, (out, false, false))
}

/// The way back: d (R, out) by the weight transposed -> stored (R, in)
pub(super) fn linear_back(
    w: &Weights,
    which: Which,
    d: u64,
    rows: usize,
    [n_in, n_out]: [usize; 2],
    out: u64,
) -> Result<()> {
    let weight = Operand::transposed(w.stored(which), n_out);
    product(w, [rows, n_in, n_out], Operand::rows(d, n_out), weight, (out, false, false))
}

pub(super) fn at(address: u64) -> Arg {
    Arg::At(address)
}

pub(super) fn int(n: usize) -> Arg {
    Arg::Int(n as i32)
}
