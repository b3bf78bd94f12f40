//! A short vector of numbers, one for each pair, with the arithmetic that a lesson needs and a gradient behind it.

use std::ops::{Add, Mul, Neg, Sub};

use candle_core::{DType, Device, Tensor};

use crate::error::Result;
use crate::nn;

/// Numbers, one for each pair or sequence of a batch, (B).
///
/// # Example
/// ```
/// use hhalign::loss::Values;
/// let a = Values::new(&[1.0, 2.0]);
/// let b = Values::new(&[0.5, 4.0]);
/// assert_eq!((&(&a - &b) * 0.1).to_vec(), vec![0.05, -0.2]);
/// ```
#[derive(Debug, Clone)]
pub struct Values(Tensor);

impl Values {
    /// Values in f64, without a gradient.
    pub fn new(values: &[f64]) -> Self {
        Self(Tensor::new(values, &Device::Cpu).expect("a slice becomes a tensor"))
    }

    /// Values of a tensor (B), with its gradient.
    pub fn from_tensor(tensor: Tensor) -> Self {
        Self(tensor)
    }

    /// The tensor behind it, (B).
    pub fn tensor(&self) -> &Tensor {
        &self.0
    }

    /// The numbers.
    pub fn to_vec(&self) -> Vec<f64> {
        self.0.to_dtype(DType::F64).and_then(|t| t.to_vec1()).expect("a vector of numbers")
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.elem_count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their mean.
    pub fn mean(&self) -> f64 {
        self.to_vec().iter().sum::<f64>() / self.len() as f64
    }

    /// log σ of each; see [`nn::log_sigmoid`].
    ///
    /// # Errors
    /// A failure of the tensor library.
    pub fn log_sigmoid(&self) -> Result<Self> {
        Ok(Self(nn::log_sigmoid(&self.0)?))
    }

    /// σ of each, as exp(log σ): stable on both sides.
    ///
    /// # Errors
    /// A failure of the tensor library.
    pub fn sigmoid(&self) -> Result<Self> {
        Ok(Self(nn::log_sigmoid(&self.0)?.exp()?))
    }
}

impl Sub for &Values {
    type Output = Values;
    fn sub(self, other: &Values) -> Values {
        Values((&self.0 - &other.0).expect("values of one length"))
    }
}

impl Add for &Values {
    type Output = Values;
    fn add(self, other: &Values) -> Values {
        Values((&self.0 + &other.0).expect("values of one length"))
    }
}

impl Mul<f64> for &Values {
    type Output = Values;
    fn mul(self, factor: f64) -> Values {
        Values((&self.0 * factor).expect("a vector of numbers"))
    }
}

impl Neg for &Values {
    type Output = Values;
    fn neg(self) -> Values {
        self * -1.0
    }
}
