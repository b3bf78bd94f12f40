//! Layer norm over rows, and its gradient from the saved mean and rstd.

use crate::compute::cpu::vector::{sum, sum2, widest};

/// The mean of every row and rstd = 1 / √(variance + eps), which the backward pass needs.
#[derive(Default)]
pub(super) struct MeanRstd {
    mean: Vec<f32>,
    rstd: Vec<f32>,
}

/// Computes `out = (x - mean) / √(variance + eps) · weight + bias` for each row of `weight.len()`
/// numbers.
pub(super) fn layer_norm(
    x: &[f32],
    [weight, bias]: [&[f32]; 2],
    eps: f32,
    out: &mut [f32],
    saved: &mut MeanRstd,
) {
    let width = weight.len();
    saved.mean.clear();
    saved.rstd.clear();
    widest!({
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let mean = sum(x, |v| v) / width as f32;
            let variance = sum(x, |v| (v - mean) * (v - mean)) / width as f32;
            let rstd = 1.0 / (variance + eps).sqrt();
            scale_row(x, mean, rstd, weight, bias, out);
            saved.mean.push(mean);
            saved.rstd.push(rstd);
        }
    });
}

/// Recomputes the output from the saved mean and rstd, for a backward pass.
pub(super) fn layer_norm_again(
    x: &[f32],
    [weight, bias]: [&[f32]; 2],
    saved: &MeanRstd,
    out: &mut [f32],
) {
    let width = weight.len();
    widest!({
        for (row, (x, out)) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)).enumerate() {
            scale_row(x, saved.mean[row], saved.rstd[row], weight, bias, out);
        }
    });
}

#[inline(always)]
fn scale_row(x: &[f32], mean: f32, rstd: f32, weight: &[f32], bias: &[f32], out: &mut [f32]) {
    for (((out, &x), &w), &b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *out = (x - mean) * rstd * w + b;
    }
}

/// Adds the gradient of the input to `dx`, and those of weight and bias to `dweight` and `dbias`.
///
/// With n the normalised row and g = dout · weight: dx += rstd · (g - mean(g) - n · mean(g n)).
pub(super) fn layer_norm_backward(
    dout: &[f32],
    x: &[f32],
    weight: &[f32],
    saved: &MeanRstd,
    dx: &mut [f32],
    [dweight, dbias]: [&mut [f32]; 2],
) {
    let width = weight.len();
    let mut n = vec![0f32; width];
    let mut g = vec![0f32; width];
    widest!({
        let rows =
            dout.chunks_exact(width).zip(x.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
        for (row, ((dout, x), dx)) in rows.enumerate() {
            let (mean, rstd) = (saved.mean[row], saved.rstd[row]);
            for i in 0..width {
                n[i] = (x[i] - mean) * rstd;
                g[i] = dout[i] * weight[i];
                dweight[i] += dout[i] * n[i];
                dbias[i] += dout[i];
            }
            let mean_g = sum(&g, |v| v) / width as f32;
            let mean_gn = sum2(&g, &n, |a, b| a * b) / width as f32;
            for i in 0..width {
                dx[i] += rstd * (g[i] - mean_g - n[i] * mean_gn);
            }
        }
    });
}
