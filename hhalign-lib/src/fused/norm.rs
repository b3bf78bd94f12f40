//! Layer norm over rows, and its gradient from the saved mean and deviation.

use super::vector::{sum, sum2, widest};

/// Mean and one over the deviation of every row: what the backward pass needs.
#[derive(Default)]
pub(super) struct Moments {
    mean: Vec<f32>,
    rstd: Vec<f32>,
}

/// `out = (x - mean) / √(variance + eps) · weight + bias` for each row of `weight.len()` numbers.
pub(super) fn layer_norm(x: &[f32], [weight, bias]: [&[f32]; 2], eps: f32, out: &mut [f32], moments: &mut Moments) {
    let width = weight.len();
    moments.mean.clear();
    moments.rstd.clear();
    widest!({
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let mean = sum(x, |v| v) / width as f32;
            let variance = sum(x, |v| (v - mean) * (v - mean)) / width as f32;
            let rstd = 1.0 / (variance + eps).sqrt();
            scale_row(x, mean, rstd, weight, bias, out);
            moments.mean.push(mean);
            moments.rstd.push(rstd);
        }
    });
}

/// The same once more from the moments, for a backward pass that did not keep the output.
pub(super) fn layer_norm_again(x: &[f32], [weight, bias]: [&[f32]; 2], moments: &Moments, out: &mut [f32]) {
    let width = weight.len();
    widest!({
        for (row, (x, out)) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)).enumerate() {
            scale_row(x, moments.mean[row], moments.rstd[row], weight, bias, out);
        }
    });
}

#[inline(always)]
fn scale_row(x: &[f32], mean: f32, rstd: f32, weight: &[f32], bias: &[f32], out: &mut [f32]) {
    for (((out, &x), &w), &b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *out = (x - mean) * rstd * w + b;
    }
}

/// Adds the gradients: to that of the input, `dx`, and to those of weight and bias.
///
/// With n the normalised row and g = dout · weight: dx += rstd · (g - mean(g) - n · mean(g n)).
pub(super) fn layer_norm_backward(
    dout: &[f32],
    x: &[f32],
    weight: &[f32],
    moments: &Moments,
    dx: &mut [f32],
    [dweight, dbias]: [&mut [f32]; 2],
) {
    let width = weight.len();
    let mut normal = vec![0f32; width];
    let mut g = vec![0f32; width];
    widest!({
        let rows = dout.chunks_exact(width).zip(x.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
        for (row, ((dout, x), dx)) in rows.enumerate() {
            let (mean, rstd) = (moments.mean[row], moments.rstd[row]);
            for i in 0..width {
                normal[i] = (x[i] - mean) * rstd;
                g[i] = dout[i] * weight[i];
                dweight[i] += dout[i] * normal[i];
                dbias[i] += dout[i];
            }
            let mean_g = sum(&g, |v| v) / width as f32;
            let mean_gn = sum2(&g, &normal, |a, b| a * b) / width as f32;
            for i in 0..width {
                dx[i] += rstd * (g[i] - mean_g - normal[i] * mean_gn);
            }
        }
    });
}
