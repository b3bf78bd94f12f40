//! A vector of numbers, one for each pair, with the arithmetic that a lesson needs.

use std::fmt;
use std::ops::{Add, Div, Mul, Neg, Sub};

use candle_core::{DType, Device, Tensor};

use super::arena::{self, Vector};
use crate::base::error::{Error, Result};
use crate::model::ops;

/// A vector (B) of numbers, one for each pair or sequence of a batch, which may have a gradient.
///
/// `Values` is a `Copy` handle: a formula takes it by value, and a variable that one notebook cell
/// uses is still there in the next. Two `Values` of one length, or `Values` and a number, can be
/// added, subtracted, multiplied and divided. An operation that fails returns failed values, and so
/// does every operation on them. The next `?` returns the first error; showing the values displays
/// it.
///
/// An arena of the process stores the numbers. For old handles, it first drops the gradient, and
/// asking for it is then an error. After 100,000 newer vectors it drops the numbers as well.
///
/// # Example
/// ```
/// use hhalign::loss::Values;
/// let a = Values::new(&[1.0, 2.0]);
/// let b = Values::new(&[0.5, 4.0]);
/// let beta = 0.1;
/// assert_eq!((beta * (a - b)).to_vec()?, [0.05, -0.2]);
/// let loss = -(beta * (a - b)).log_sigmoid()?;
/// assert!((loss.mean()? - 0.7333).abs() < 1e-4);
/// let of_three_pairs = Values::new(&[1.0, 2.0, 3.0]);
/// let failed = 1.0 - (a - of_three_pairs); // no panic
/// assert!(failed.to_vec().unwrap_err().got().contains("2 and 3"));
/// # Ok::<(), hhalign::base::error::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Values {
    id: u64,
}

impl Values {
    /// Makes values in f64 without a gradient.
    pub fn new(values: &[f64]) -> Self {
        match Tensor::new(values, &Device::Cpu) {
            Ok(tensor) => Self::store(Vector::new(tensor)),
            Err(error) => Self::store(Vector::failed(error.into())),
        }
    }

    /// Makes values from a tensor (B) and keeps its gradient. A tensor of another rank gives failed
    /// values.
    pub fn from_tensor(tensor: Tensor) -> Self {
        Self::store(match float_vector(tensor) {
            Ok(tensor) => Vector::new(tensor),
            Err(error) => Vector::failed(error),
        })
    }

    fn store(vector: Vector) -> Self {
        Self { id: arena::insert(vector) }
    }

    /// Returns the tensor (B) with its gradient.
    ///
    /// # Errors
    /// The operation that computed these values failed, or their gradient was released.
    pub fn tensor(self) -> Result<Tensor> {
        arena::get(self.id).tensor()
    }

    /// Returns the numbers.
    ///
    /// # Errors
    /// The operation that computed these values failed.
    pub fn to_vec(self) -> Result<Vec<f64>> {
        numbers(arena::get(self.id).content()?)
    }

    /// Returns the number of values.
    ///
    /// # Errors
    /// The operation that computed these values failed.
    pub fn len(self) -> Result<usize> {
        Ok(arena::get(self.id).content()?.elem_count())
    }

    /// Returns whether there are no values.
    ///
    /// # Errors
    /// The operation that computed these values failed.
    pub fn is_empty(self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Returns the mean of the values; NaN if there are none.
    ///
    /// # Errors
    /// The operation that computed these values failed.
    pub fn mean(self) -> Result<f64> {
        mean(arena::get(self.id).content()?)
    }

    /// Computes log σ of each value; see [`ops::log_sigmoid`].
    ///
    /// # Errors
    /// The operation that computed these values failed.
    pub fn log_sigmoid(self) -> Result<Self> {
        self.map(ops::log_sigmoid).checked()
    }

    /// Computes σ of each value as exp(log σ), which is stable for large positive and negative
    /// values.
    ///
    /// # Errors
    /// The operation that computed these values failed.
    pub fn sigmoid(self) -> Result<Self> {
        self.map(|x| Ok(ops::log_sigmoid(x)?.exp()?)).checked()
    }

    fn checked(self) -> Result<Self> {
        arena::get(self.id).content()?;
        Ok(self)
    }

    fn map(self, f: impl FnOnce(&Tensor) -> Result<Tensor>) -> Self {
        let x = arena::get(self.id);
        Self::store(Vector::computed(x.content().and_then(f), &[&x]))
    }

    fn zip(self, other: Self, operation: &Operation) -> Self {
        let (x, y) = (arena::get(self.id), arena::get(other.id));
        let content = match (x.content(), y.content()) {
            (Ok(x), Ok(y)) => combine(x, y, operation),
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        Self::store(Vector::computed(content, &[&x, &y]))
    }
}

/// Shows the numbers, or the error if the values are failed.
impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_vec() {
            Ok(numbers) => write!(f, "Values({numbers:?})"),
            Err(error) => write!(f, "{error}"),
        }
    }
}

/// Returns the tensor as a vector of floating-point numbers.
pub(super) fn float_vector(tensor: Tensor) -> Result<Tensor> {
    if tensor.rank() != 1 {
        return Err(Error::new(
            "values must be a vector with one number for each pair",
            format!("a tensor of shape {:?}", tensor.dims()),
            "flatten the tensor, or take its mean as a number",
        ));
    }
    if tensor.dtype().is_float() { Ok(tensor) } else { Ok(tensor.to_dtype(DType::F64)?) }
}

/// Returns the numbers of a vector in f64.
pub(super) fn numbers(vector: &Tensor) -> Result<Vec<f64>> {
    Ok(vector.to_dtype(DType::F64)?.to_vec1()?)
}

/// Computes the mean of a vector, summed in f64 from first to last.
pub(crate) fn mean(vector: &Tensor) -> Result<f64> {
    Ok(numbers(vector)?.iter().sum::<f64>() / vector.elem_count() as f64)
}

/// A binary operation on two vectors of one length.
struct Operation {
    /// The operation's name in an error: "values of two lengths cannot be added".
    participle: &'static str,
    apply: fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>,
}

fn combine(x: &Tensor, y: &Tensor, operation: &Operation) -> Result<Tensor> {
    let (n, m) = (x.elem_count(), y.elem_count());
    if n != m {
        return Err(Error::new(
            format!("values of two lengths cannot be {}", operation.participle),
            format!("{n} and {m}"),
            "take both from the same pairs: one number for each pair",
        ));
    }
    if x.dtype() == y.dtype() {
        return Ok((operation.apply)(x, y)?);
    }
    // The values of a lesson are in f64, those of a model in f32.
    Ok((operation.apply)(&x.to_dtype(DType::F64)?, &y.to_dtype(DType::F64)?)?)
}

/// Returns a tensor of the shape and dtype of `like` filled with one number.
fn full_like(number: f64, like: &Tensor) -> Result<Tensor> {
    Ok(Tensor::full(number, like.shape(), like.device())?.to_dtype(like.dtype())?)
}

macro_rules! operators {
    ($($Operator:ident $method:ident $participle:literal),*) => {$(
        impl $Operator<Values> for Values {
            type Output = Values;
            fn $method(self, other: Values) -> Values {
                self.zip(other, &Operation { participle: $participle, apply: Tensor::$method })
            }
        }

        impl $Operator<f64> for Values {
            type Output = Values;
            fn $method(self, number: f64) -> Values {
                self.map(|x| Ok(x.$method(&full_like(number, x)?)?))
            }
        }

        impl $Operator<Values> for f64 {
            type Output = Values;
            fn $method(self, values: Values) -> Values {
                values.map(|x| Ok(full_like(self, x)?.$method(x)?))
            }
        }
    )*};
}

operators!(Add add "added", Sub sub "subtracted", Mul mul "multiplied", Div div "divided");

impl Neg for Values {
    type Output = Values;
    fn neg(self) -> Values {
        self.map(|x| Ok(x.neg()?))
    }
}
