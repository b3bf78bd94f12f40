//! Launchers of the kernels in `rows.cu`. R rows, C width. Addresses are of f32, except that
//! activations and `_stored` have the storage dtype and lists are i32.

use crate::compute::gpu::kernels::{Kernel, Launch, args};

/// The number of rows that one block of a sum over rows adds up, as in `rows.cu`.
pub const SUM_ROWS: usize = 128;

/// A kernel that computes encoded (R, C) = wte[ids] + wpe[positions], for ids (R) and positions
/// (R).
#[cfg_attr(test, derive(Default))]
pub struct Embed {
    pub encoded: u64,
    pub wte: u64,
    pub wpe: u64,
    pub ids: u64,
    pub positions: u64,
    pub rows: usize,
    pub c: usize,
}

impl Kernel for Embed {
    fn launch(&self) -> Launch {
        Launch::grid_stride(
            "embed",
            self.rows * self.c,
            args!(self: encoded, wte, wpe, ids, positions, rows, c),
        )
    }
}

/// A kernel that computes a residual sum and its layer norm. If y is not 0, it writes `sum` (R, C)
/// = residual (R, C) + y (R, C) + y_bias (C). `ln` (R, C) and `mean_rstd` (R, 2) are those of the
/// sum, or of `residual` if y is 0. Weight and bias (C).
#[cfg_attr(test, derive(Default))]
pub struct ResidualLayerNorm {
    pub sum: u64,
    pub ln: u64,
    pub mean_rstd: u64,
    pub residual: u64,
    pub y: u64,
    pub y_bias: u64,
    pub weight: u64,
    pub bias: u64,
    pub rows: usize,
    pub c: usize,
    pub epsilon: f32,
}

impl Kernel for ResidualLayerNorm {
    fn launch(&self) -> Launch {
        let args =
            args!(self: sum, ln, mean_rstd, residual, y, y_bias, weight, bias, rows, c, epsilon);
        Launch::warp_per_row("residual_layer_norm", self.rows, args)
    }
}

/// A kernel that computes sum (R, C) = residual (R, C) + y (R, C) + y_bias (C).
#[cfg_attr(test, derive(Default))]
pub struct ResidualAdd {
    pub sum: u64,
    pub residual: u64,
    pub y: u64,
    pub y_bias: u64,
    pub rows: usize,
    pub c: usize,
}

impl Kernel for ResidualAdd {
    fn launch(&self) -> Launch {
        Launch::grid_stride(
            "residual_add",
            self.rows * self.c,
            args!(self: sum, residual, y, y_bias, rows, c),
        )
    }
}

/// A kernel that recomputes ln (R, C) of x (R, C) from the saved `mean_rstd` (R, 2). Weight and
/// bias (C).
#[cfg_attr(test, derive(Default))]
pub struct LayerNormAgain {
    pub ln: u64,
    pub x: u64,
    pub mean_rstd: u64,
    pub weight: u64,
    pub bias: u64,
    pub rows: usize,
    pub c: usize,
}

impl Kernel for LayerNormAgain {
    fn launch(&self) -> Launch {
        let args = args!(self: ln, x, mean_rstd, weight, bias, rows, c);
        Launch::grid_stride("layer_norm_again", self.rows * self.c, args)
    }
}

/// A kernel that adds the gradient of a layer norm's input x (R, C) to `dresidual` (R, C), from dln
/// (R, C), and copies the result to `dresidual_stored` (R, C) in the storage dtype. `mean_rstd` (R,
/// 2), weight (C).
#[cfg_attr(test, derive(Default))]
pub struct LayerNormBackward {
    pub dresidual: u64,
    pub dresidual_stored: u64,
    pub dln: u64,
    pub x: u64,
    pub mean_rstd: u64,
    pub weight: u64,
    pub rows: usize,
    pub c: usize,
}

impl Kernel for LayerNormBackward {
    fn launch(&self) -> Launch {
        let args = args!(self: dresidual, dresidual_stored, dln, x, mean_rstd, weight, rows, c);
        Launch::warp_per_row("layer_norm_backward", self.rows, args)
    }
}

/// A kernel that computes fch_gelu (R, F) = gelu(fch (R, F) + bias (F)), with F = `width`.
#[cfg_attr(test, derive(Default))]
pub struct GeluForward {
    pub fch_gelu: u64,
    pub fch: u64,
    pub bias: u64,
    pub rows: usize,
    pub width: usize,
}

impl Kernel for GeluForward {
    fn launch(&self) -> Launch {
        Launch::grid_stride(
            "gelu_forward",
            self.rows * self.width,
            args!(self: fch_gelu, fch, bias, rows, width),
        )
    }
}

/// A kernel that replaces `dfch` (R, F), the gradient of fch_gelu, by the gradient of fch, and
/// `fch` (R, F) by fch_gelu. Bias (F).
#[cfg_attr(test, derive(Default))]
pub struct GeluBackward {
    pub dfch: u64,
    pub fch: u64,
    pub bias: u64,
    pub rows: usize,
    pub width: usize,
}

impl Kernel for GeluBackward {
    fn launch(&self) -> Launch {
        Launch::grid_stride(
            "gelu_backward",
            self.rows * self.width,
            args!(self: dfch, fch, bias, rows, width),
        )
    }
}

/// A kernel that writes the column sums of each SUM_ROWS rows of x (R, width) to partial (⌈R /
/// SUM_ROWS⌉, width).
#[cfg_attr(test, derive(Default))]
pub struct ColumnSums {
    pub partial: u64,
    pub x: u64,
    pub rows: usize,
    pub width: usize,
}

impl Kernel for ColumnSums {
    fn launch(&self) -> Launch {
        let grid = [self.width.div_ceil(128), self.rows.div_ceil(SUM_ROWS)];
        Launch {
            kernel: "column_sums",
            grid,
            block: 256,
            shared: 0,
            args: args!(self: partial, x, rows, width),
        }
    }
}

/// A kernel that writes the column sums of each SUM_ROWS rows to partial (⌈R / SUM_ROWS⌉, 2C):
/// first of dln (R, C) times the normalised x (R, C), then of dln. `mean_rstd` (R, 2).
#[cfg_attr(test, derive(Default))]
pub struct LayerNormSums {
    pub partial: u64,
    pub dln: u64,
    pub x: u64,
    pub mean_rstd: u64,
    pub rows: usize,
    pub c: usize,
}

impl Kernel for LayerNormSums {
    fn launch(&self) -> Launch {
        let (grid, args) = (
            [self.c.div_ceil(128), self.rows.div_ceil(SUM_ROWS)],
            args!(self: partial, dln, x, mean_rstd, rows, c),
        );
        Launch { kernel: "layer_norm_sums", grid, block: 256, shared: 0, args }
    }
}

/// A kernel that adds the sum over `chunks` rows of `partial` (chunks, stride), columns offset ..
/// offset + width, to out (width).
#[cfg_attr(test, derive(Default))]
pub struct AddPartials {
    pub out: u64,
    pub partial: u64,
    pub chunks: usize,
    pub stride: usize,
    pub offset: usize,
    pub width: usize,
}

impl Kernel for AddPartials {
    fn launch(&self) -> Launch {
        let args = args!(self: out, partial, chunks, stride, offset, width);
        Launch {
            kernel: "add_partials",
            grid: [self.width.div_ceil(128), 1],
            block: 128,
            shared: 0,
            args,
        }
    }
}

/// A kernel that copies out (N, C) = from[rows] in the storage dtype; `rows` (N) is a list.
#[cfg_attr(test, derive(Default))]
pub struct GatherStored {
    pub out: u64,
    pub from: u64,
    pub rows: u64,
    pub n: usize,
    pub c: usize,
}

impl Kernel for GatherStored {
    fn launch(&self) -> Launch {
        Launch::grid_stride("gather_stored", self.n * self.c, args!(self: out, from, rows, n, c))
    }
}

/// A kernel that copies out (N, C) = from[rows] in f32; `rows` (N) is a list.
#[cfg_attr(test, derive(Default))]
pub struct GatherResidual {
    pub out: u64,
    pub from: u64,
    pub rows: u64,
    pub n: usize,
    pub c: usize,
}

impl Kernel for GatherResidual {
    fn launch(&self) -> Launch {
        Launch::grid_stride("gather_residual", self.n * self.c, args!(self: out, from, rows, n, c))
    }
}

/// A kernel that computes out (N, C) in f32. Row i is the sum of the rows of `from` that `order`
/// lists from starts[i] to starts[i+1]. Unless `stored` (N, C) is 0, it copies out to it in the
/// storage dtype. `starts` (N + 1) and `order` are lists.
#[cfg_attr(test, derive(Default))]
pub struct ScatterSumResidual {
    pub out: u64,
    pub stored: u64,
    pub from: u64,
    pub starts: u64,
    pub order: u64,
    pub n: usize,
    pub c: usize,
}

impl Kernel for ScatterSumResidual {
    fn launch(&self) -> Launch {
        let args = args!(self: out, stored, from, starts, order, n, c);
        Launch::grid_stride("scatter_sum_residual", self.n * self.c, args)
    }
}

/// A kernel that computes the sums of [`ScatterSumResidual`] in the storage dtype: out (N, C),
/// `from` (M, C).
#[cfg_attr(test, derive(Default))]
pub struct ScatterSumStored {
    pub out: u64,
    pub from: u64,
    pub starts: u64,
    pub order: u64,
    pub n: usize,
    pub c: usize,
}

impl Kernel for ScatterSumStored {
    fn launch(&self) -> Launch {
        Launch::grid_stride(
            "scatter_sum_stored",
            self.n * self.c,
            args!(self: out, from, starts, order, n, c),
        )
    }
}

/// A kernel that adds the gradient of an embedding. It adds the rows of `dresidual` (R, C) that
/// `order` lists from starts[i] to starts[i+1] to dembedding[keys[i]]. `keys` (K), `starts` (K + 1)
/// and `order` (R) are lists.
#[cfg_attr(test, derive(Default))]
pub struct EmbedBackward {
    pub dembedding: u64,
    pub dresidual: u64,
    pub keys: u64,
    pub starts: u64,
    pub order: u64,
    pub c: usize,
    /// K. The kernel has one block for each key.
    pub n_keys: usize,
}

impl Kernel for EmbedBackward {
    fn launch(&self) -> Launch {
        let args = args!(self: dembedding, dresidual, keys, starts, order, c);
        Launch { kernel: "embed_backward", grid: [self.n_keys, 1], block: 192, shared: 0, args }
    }
}
