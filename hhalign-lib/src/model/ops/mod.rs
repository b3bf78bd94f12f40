//! Differentiable operations composed of candle's basic operations, so that every step is readable
//! and has a gradient.
//!
//! candle-nn's fused layer norm and last-dimension softmax have no backward pass and silently drop
//! the gradient, so they are not used here.

mod log_sigmoid;

use candle_core::{D, Tensor};
use rand::Rng as _;

use crate::base::error::Result;
use crate::base::rng::Rng;
pub use log_sigmoid::log_sigmoid;

/// Computes y = x W + b, with W stored (in, out) as in GPT-2's files.
///
/// # Shapes
/// x (..., in), weight (in, out), bias (out) -> (..., out)
pub fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let mut dims = x.dims().to_vec();
    let (n_in, n_out) = weight.dims2()?;
    let y = x.reshape(((), n_in))?.matmul(weight)?.broadcast_add(bias)?;
    *dims.last_mut().expect("x has a last dimension") = n_out;
    Ok(y.reshape(dims)?)
}

/// Computes (x - mean) / √(variance + eps) · weight + bias over the last dimension.
///
/// # Shapes
/// x (..., C), weight (C), bias (C) -> (..., C)
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normal = centred.broadcast_div(&(variance + eps)?.sqrt()?)?;
    Ok(normal.broadcast_mul(weight)?.broadcast_add(bias)?)
}

/// Computes GELU in GPT-2's tanh form: x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³))).
///
/// # Source
/// arXiv 1606.08415, section 2.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    Ok(x.gelu()?)
}

/// Computes log softmax over the last dimension, shifted by the maximum so that it cannot overflow.
///
/// # Shapes
/// (..., V) -> (..., V)
pub fn log_softmax(x: &Tensor) -> Result<Tensor> {
    // The shift cancels in the gradient, so it is treated as a constant.
    let shifted = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?;
    let log_sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    Ok(shifted.broadcast_sub(&log_sum)?)
}

/// Computes softmax over the last dimension.
///
/// # Shapes
/// (..., V) -> (..., V)
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    let exp = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
    Ok(exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?)
}

/// Computes causal attention: softmax(q kᵀ / √d + mask) v, where each query sees the keys up to its
/// own position.
///
/// With cached keys there are more keys (S) than queries (T); the last query has the position of
/// the last key.
///
/// # Shapes
/// q (B, H, T, d), k and v (B, H, S, d) -> (B, H, T, d)
pub fn causal_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    dropout: &mut Dropout,
) -> Result<Tensor> {
    let (t, d) = (q.dim(2)?, q.dim(3)?);
    let s = k.dim(2)?;
    let scores = (q * (1.0 / (d as f64).sqrt()))?.matmul(&k.t()?)?;
    let scores = if t > 1 { scores.broadcast_add(&causal_mask(t, s, q)?)? } else { scores };
    Ok(dropout.apply(&softmax(&scores)?)?.matmul(v)?)
}

/// Returns the mask (T, S): 0 if query i, at position S - T + i, sees the key, -∞ otherwise.
fn causal_mask(t: usize, s: usize, like: &Tensor) -> Result<Tensor> {
    let mask: Vec<f32> = (0..t)
        .flat_map(|i| (0..s).map(move |j| if j + t <= s + i { 0. } else { f32::NEG_INFINITY }))
        .collect();
    Ok(Tensor::from_vec(mask, (t, s), like.device())?.to_dtype(like.dtype())?)
}

/// Seeded dropout: either off, or zeroing elements with probability `p` and scaling the others by
/// 1 / (1 - p).
#[derive(Debug)]
pub struct Dropout(Option<(f64, Rng)>);

impl Dropout {
    /// Returns no dropout, for evaluation, references and sampling.
    pub fn off() -> Self {
        Self(None)
    }

    /// Returns dropout with probability `p`, drawn from `rng`; off if `p` is zero.
    pub fn new(p: f64, rng: Rng) -> Self {
        Self((p > 0.0).then_some((p, rng)))
    }

    /// Applies dropout to a tensor.
    pub fn apply(&mut self, x: &Tensor) -> Result<Tensor> {
        let Some((p, rng)) = &mut self.0 else {
            return Ok(x.clone());
        };
        let keep = (1.0 / (1.0 - *p)) as f32;
        let mask: Vec<f32> =
            (0..x.elem_count()).map(|_| if rng.random::<f64>() < *p { 0. } else { keep }).collect();
        Ok((x * Tensor::from_vec(mask, x.dims(), x.device())?.to_dtype(x.dtype())?)?)
    }
}
