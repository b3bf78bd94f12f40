//! Launchers of the kernels in `head.cu`. N rows, V vocabulary; logits (N, stride) are f32, rows padded to `stride`.

use super::{Kernel, Launch, args};

/// logps (N): log π of `targets` (N) under `logits`. `right` and `entropy` (N), unless `right` is 0: whether the target is the
/// likeliest token, and the prediction's entropy. `dlogits` (N, stride), unless `dlogps` is 0: the gradient of
/// Σ scale · dlogps · log π, with `dlogps` (N).
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
    /// N; the kernel has one block for each.
    pub n: usize,
}

impl Kernel for LogProbs {
    fn launch(&self) -> Launch {
        let args = args!(self: logps, right, entropy, dlogits, logits, targets, dlogps, v, stride, scale);
        Launch { kernel: "log_probs", grid: [self.n, 1], block: 256, shared: 0, args }
    }
}

/// drawn (N), i32: a token of each row of softmax(logits / temperature) at the quantile `uniform` (N); the likeliest token at
/// temperature 0, and -1 where logits are not finite.
#[cfg_attr(test, derive(Default))]
pub struct Draw {
    pub drawn: u64,
    pub logits: u64,
    pub uniform: u64,
    pub v: usize,
    pub stride: usize,
    pub temperature: f32,
    /// N; the kernel has one block for each.
    pub n: usize,
}

impl Kernel for Draw {
    fn launch(&self) -> Launch {
        let args = args!(self: drawn, logits, uniform, v, stride, temperature);
        Launch { kernel: "draw", grid: [self.n, 1], block: 256, shared: 0, args }
    }
}
