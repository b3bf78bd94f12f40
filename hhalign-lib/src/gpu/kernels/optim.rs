//! Launchers of the kernels in `optim.cu`. All parameters are one vector of n numbers, each padded to whole tiles.

use super::{Kernel, Launch, args};

/// Parameters are padded to multiples of this, as in `optim.cu`.
pub const TILE: usize = 1024;

/// Blocks of [`SquareSums`], one f64 each.
pub const SQUARE_SUMS: usize = 1024;

/// partial (SQUARE_SUMS), f64: sums of the squares of `gradients` (n).
#[cfg_attr(test, derive(Default))]
pub struct SquareSums {
    pub partial: u64,
    pub gradients: u64,
    pub n: i64,
}

impl Kernel for SquareSums {
    fn launch(&self) -> Launch {
        let args = args!(self: partial, gradients, n);
        Launch { kernel: "square_sums", grid: [SQUARE_SUMS, 1], block: 256, shared: 0, args }
    }
}

/// One step of AdamW on `weights`, with the moments `first` and `second`, all (n); writes `stored` (n), the copy for products,
/// unless it is 0, and clears `gradients` (n). `decays` (n_tiles), u8: whether a tile's parameter decays. The numbers are those of
/// [`crate::optim::AdamW::advance`].
#[cfg_attr(test, derive(Default))]
pub struct Adamw {
    pub weights: u64,
    pub first: u64,
    pub second: u64,
    pub gradients: u64,
    pub stored: u64,
    pub decays: u64,
    pub scale: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub keep: f32,
    pub rate: f32,
    pub root: f32,
    pub epsilon: f32,
    pub n_tiles: usize,
}

impl Kernel for Adamw {
    fn launch(&self) -> Launch {
        let args = args!(
            self: weights, first, second, gradients, stored, decays, scale, beta1, beta2, keep, rate, root, epsilon
        );
        Launch { kernel: "adamw", grid: [self.n_tiles, 1], block: TILE as u32 / 4, shared: 0, args }
    }
}

/// stored (n) = weights (n), as products read them.
#[cfg_attr(test, derive(Default))]
pub struct CopyWeights {
    pub stored: u64,
    pub weights: u64,
    pub n: i64,
}

impl Kernel for CopyWeights {
    fn launch(&self) -> Launch {
        let args = args!(self: stored, weights, n);
        Launch { kernel: "copy_weights", grid: [1024, 1], block: 256, shared: 0, args }
    }
}
