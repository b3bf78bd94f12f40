//! GELU in the tanh form, and the column sums and initial rows of linear layers.

use crate::compute::cpu::vector::{tanh, widest};

const SQRT_2_OVER_PI: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;

/// Computes `out = x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
pub(super) fn gelu(x: &[f32], out: &mut [f32]) {
    widest!({
        for (out, &x) in out.iter_mut().zip(x) {
            let t = tanh(SQRT_2_OVER_PI * (x + CUBIC * x * x * x));
            *out = 0.5 * x * (1.0 + t);
        }
    });
}

/// Replaces `x` by gelu(x), and `grad`, the gradient of gelu(x), by the gradient of x.
pub(super) fn gelu_backward(x: &mut [f32], grad: &mut [f32]) {
    widest!({
        for (x, grad) in x.iter_mut().zip(grad) {
            let v = *x;
            let t = tanh(SQRT_2_OVER_PI * (v + CUBIC * v * v * v));
            let derivative = 0.5 * (1.0 + t)
                + 0.5 * v * (1.0 - t * t) * SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * v * v);
            *x = 0.5 * v * (1.0 + t);
            *grad *= derivative;
        }
    });
}

/// Adds every row of `x` to `out`.
pub(super) fn add_rows(x: &[f32], out: &mut [f32]) {
    widest!({
        for row in x.chunks_exact(out.len()) {
            for (out, &x) in out.iter_mut().zip(row) {
                *out += x;
            }
        }
    });
}

/// Sets every row of `out` to `bias`, plus the row of `x` if given. A product is then added to it.
pub(super) fn init_rows(bias: &[f32], x: Option<&[f32]>, out: &mut [f32]) {
    let width = bias.len();
    widest!(match x {
        None => out.chunks_exact_mut(width).for_each(|row| row.copy_from_slice(bias)),
        Some(x) => {
            for (row, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                for ((out, &x), &b) in row.iter_mut().zip(x).zip(bias) {
                    *out = x + b;
                }
            }
        }
    });
}
