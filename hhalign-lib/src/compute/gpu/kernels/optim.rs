//! Launchers of the kernels in `optim.cu`. All parameters are one vector of n numbers, each
//! parameter padded to whole tiles.

use crate::compute::gpu::kernels::{Kernel, Launch, args};

/// Parameters are padded to multiples of this number, as in `optim.cu`.
pub const TILE: usize = 1024;

/// The number of blocks of [`SquareSums`], each with one f64 sum.
pub const SQUARE_SUMS: usize = 1024;

/// A kernel that sums the squares of `gradients` (n) into partial (SQUARE_SUMS), f64.
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

/// A kernel that takes one step of AdamW on `weights`, with the moments `first` and `second`, all
/// (n). It writes `stored` (n), the copy for products, unless it is 0, and clears `gradients` (n).
/// `decays` (n_tiles), u8, is whether a tile's parameter decays. The coefficients are those of
/// [`crate::compute::optim::AdamW::advance`].
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
    pub decay_factor: f32,
    pub step_size: f32,
    pub inv_sqrt_correction2: f32,
    pub epsilon: f32,
    pub n_tiles: usize,
}

impl Kernel for Adamw {
    fn launch(&self) -> Launch {
        let args = args!(
            self: weights, first, second, gradients, stored, decays, scale, beta1, beta2,
            decay_factor, step_size, inv_sqrt_correction2, epsilon
        );
        Launch { kernel: "adamw", grid: [self.n_tiles, 1], block: TILE as u32 / 4, shared: 0, args }
    }
}

/// A kernel that copies weights (n) to stored (n) in the storage dtype.
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
