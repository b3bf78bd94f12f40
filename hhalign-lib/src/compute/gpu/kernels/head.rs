//! Launchers of the kernels in `head.cu`. N rows, V vocabulary. Logits (N, stride) are f32, with
//! rows padded to `stride`.

use crate::compute::gpu::kernels::{Kernel, Launch, args};

/// A kernel that computes logps (N), log π of `targets` (N) under `logits`. Unless `right` is 0, it
/// also writes `right` (N), whether the target is the likeliest token, and `entropy` (N), that of
/// the prediction. Unless `dlogps` is 0, it writes `dlogits` (N, stride), the gradient of Σ scale ·
/// dlogps · log π, with `dlogps` (N).
#[cfg_attr(test, derive(Default))]
pub struct LogProbs {
    pub logps: u64,
    pub right: u64,
    pub entropy: u64,
    pub dlogits: u64,
    pub logits: u64,
    pub targets: u64,
    pub dlogps: u64,
    pub v: usize,
    pub stride: usize,
    pub scale: f32,
    /// N. The kernel has one block for each row.
    pub n: usize,
}

impl Kernel for LogProbs {
    fn launch(&self) -> Launch {
        let args =
            args!(self: logps, right, entropy, dlogits, logits, targets, dlogps, v, stride, scale);
        Launch { kernel: "log_probs", grid: [self.n, 1], block: 256, shared: 0, args }
    }
}

/// A kernel that draws a token (i32) for each row into drawn (N), from softmax(logits /
/// temperature) at the quantile `uniform` (N). It draws the likeliest token at temperature 0, and
/// -1 if logits are not finite.
#[cfg_attr(test, derive(Default))]
pub struct Draw {
    pub drawn: u64,
    pub logits: u64,
    pub uniform: u64,
    pub v: usize,
    pub stride: usize,
    pub temperature: f32,
    /// N. The kernel has one block for each row.
    pub n: usize,
}

impl Kernel for Draw {
    fn launch(&self) -> Launch {
        let args = args!(self: drawn, logits, uniform, v, stride, temperature);
        Launch { kernel: "draw", grid: [self.n, 1], block: 256, shared: 0, args }
    }
}
