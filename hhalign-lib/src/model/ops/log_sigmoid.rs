//! log σ(x) without underflow and with a gradient everywhere.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

use crate::base::error::Result;

/// Computes log σ(x) = min(x, 0) - ln(1 + e^(-|x|)), exact up to rounding for all x, with gradient
/// σ(-x).
///
/// This is a custom operation because `sigmoid().log()` underflows to -∞ below about -88 in f32,
/// and this formula composed of minimum and absolute value has no gradient at 0, where DPO starts.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[-200f32, 0., 200.], &Device::Cpu).unwrap();
/// let y = hhalign::model::ops::log_sigmoid(&x)?.to_vec1::<f32>().unwrap();
/// assert_eq!(y[0], -200.);
/// assert!((y[1] + 2f32.ln()).abs() < 1e-7 && y[2] <= 0.);
/// # Ok::<(), hhalign::base::error::Error>(())
/// ```
pub fn log_sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok(x.contiguous()?.apply_op1(LogSigmoid)?)
}

struct LogSigmoid;

impl CustomOp1 for LogSigmoid {
    fn name(&self) -> &'static str {
        "log-sigmoid"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (start, end) = layout
            .contiguous_offsets()
            .ok_or(candle_core::Error::RequiresContiguous { op: "log-sigmoid" })?;
        let output = match storage {
            CpuStorage::F32(x) => CpuStorage::F32(
                x[start..end].iter().map(|&x| x.min(0.) - (-x.abs()).exp().ln_1p()).collect(),
            ),
            CpuStorage::F64(x) => CpuStorage::F64(
                x[start..end].iter().map(|&x| x.min(0.) - (-x.abs()).exp().ln_1p()).collect(),
            ),
            _ => candle_core::bail!("log-sigmoid takes f32 or f64"),
        };
        Ok((output, layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        // σ(-x) = exp(log σ(-x)) is stable for large positive and negative x.
        let derivative = x.neg()?.apply_op1_no_bwd(&Self)?.exp()?;
        Ok(Some((gradient * derivative)?))
    }
}
