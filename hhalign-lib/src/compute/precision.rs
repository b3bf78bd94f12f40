//! The precision of matrix products.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::cpu::bf16;
use crate::base::error::{Error, Result};

/// The precision of the matrix products in training. Weights, sums, gradients and the optimiser are
/// always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Precision {
    /// f32 operands. This is exact, and results agree on every processor up to rounding.
    #[default]
    F32,
    /// Operands rounded to bf16 (8 bits of precision), sums in f32. Attention scores stay f32.
    /// Needs a processor with AVX512-BF16.
    Bf16,
    /// Operands rounded to f16, sums in f32. Gradients are scaled so that small ones do not
    /// underflow. For GPUs only, such as a T4, which has no bf16.
    F16,
    /// [`Precision::Bf16`] where the hardware supports it; otherwise [`Precision::F16`] on a GPU
    /// and [`Precision::F32`] on a CPU.
    Auto,
}

impl Precision {
    /// Returns the precision with a name: `f32`, `bf16`, `f16` or `auto`.
    ///
    /// # Errors
    /// The name is another one.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            "auto" => Ok(Self::Auto),
            other => Err(Error::new("no such precision", other, "choose f32, bf16, f16 or auto")),
        }
    }

    /// Returns whether products run in bf16 on this processor.
    pub(crate) fn is_bf16(self) -> Result<bool> {
        match (self, bf16::is_available()) {
            (Self::F32, _) | (Self::Auto, false) => Ok(false),
            (Self::F16, _) => Err(Error::device(
                "a CPU does not train in f16",
                "Precision::F16 without a GPU",
                "use Precision::Auto, which chooses what the hardware supports",
            )),
            (_, true) => Ok(true),
            (Self::Bf16, false) => Err(Error::device(
                "this processor has no bf16 products",
                "Precision::Bf16 without AVX512-BF16",
                "use Precision::Auto, which uses f32 without bf16",
            )),
        }
    }
}

/// The name that [`Precision::from_name`] reads.
impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::Auto => "auto",
        })
    }
}
