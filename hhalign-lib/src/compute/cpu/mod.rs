//! The CPU's fast path: the model's forward and backward pass over plain slices.
//!
//! [`crate::model`] composes the same model of readable operations and is the oracle for this
//! module: the integration tests `fused` compare values and every gradient. This path has no
//! padding and no graph, computes the logits of a few rows at a time, and selects vector
//! instructions at run time. A pass stays in one thread; the passes of a step run in parallel.
//!
//! Read `pass` first (forward), then `backward`. `attention`, `norm`, `gelu` and `head` are the
//! layers that they call. `products` has the products of a linear layer, on top of `gemm` (f32) and
//! `bf16`. `decode` generates token by token and uses `few_rows`. `weights` lends the parameters as
//! slices, and `vector` compiles loops for vector instructions.

mod attention;
mod backward;
pub(super) mod bf16;
mod decode;
mod few_rows;
mod gelu;
mod gemm;
mod head;
mod norm;
mod pass;
mod products;
mod vector;
mod weights;

use std::time::Instant;

pub use self::decode::Decoder;
pub use self::head::TokenStats;
pub use self::pass::{Keep, Workspace};
use self::products::{Products, Weight};
pub(crate) use self::vector::{ARCH, CallOnce, widest};
pub use self::weights::{Purpose, Weights, with_weights};
use crate::base::error::Result;
use crate::compute::Precision;

/// Measures the rate of a product x W in one thread, in floating-point operations per second. No
/// pass can exceed it.
///
/// # Shapes
/// x (R, in), W (in, out)
///
/// # Errors
/// The processor does not support the precision.
pub fn product_rate([rows, n_in, n_out]: [usize; 3], precision: Precision) -> Result<f64> {
    let mut products = Products::default();
    let (x, data) = (vec![0.5f32; rows * n_in], vec![0.25f32; n_in * n_out]);
    let mut weight = Weight::stored(&data, n_out);
    if precision.is_bf16()? {
        weight.pack(Default::default(), false);
    }
    let mut out = vec![0f32; rows * n_out];
    let mut best = f64::INFINITY;
    for _ in 0..20 {
        let clock = Instant::now();
        products.forward(&weight, &x, &mut out, gemm::Store::Overwrite);
        best = best.min(clock.elapsed().as_secs_f64());
    }
    Ok(2.0 * (rows * n_in * n_out) as f64 / best)
}
