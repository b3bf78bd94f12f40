//! The gradients of all parameters as f32 vectors.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use crate::base::error::{Error, Result};
use crate::base::parallel;
use crate::model::{GptConfig, ParameterSpec, Parameters};

/// The gradients of all parameters, one vector for each.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    specs: Parameters<ParameterSpec>,
    values: Parameters<Vec<f32>>,
}

impl Gradients {
    /// Makes gradients of zero.
    pub fn zeros(config: &GptConfig) -> Self {
        let specs = config.parameters();
        let values = specs.as_ref().map(|spec| vec![0.0; spec.elements()]);
        Self { specs, values }
    }

    /// Makes gradients from named tensors, as automatic differentiation returns them.
    ///
    /// # Errors
    /// A parameter has no gradient, because some operation dropped it.
    pub fn from_tensors(config: &GptConfig, tensors: &BTreeMap<String, Tensor>) -> Result<Self> {
        let specs = config.parameters();
        let values = specs.as_ref().try_map(|ParameterSpec { name, shape }| {
            let tensor = tensors.get(name).filter(|t| t.dims() == shape).ok_or_else(|| {
                Error::new(
                    format!("{name} received no gradient of its shape"),
                    tensors.get(name).map_or("nothing".to_string(), |t| format!("{:?}", t.dims())),
                    "an operation in the forward pass has no backward pass",
                )
            })?;
            Ok(tensor.flatten_all()?.to_vec1::<f32>()?)
        })?;
        Ok(Self { specs, values })
    }

    /// Returns the gradients as named tensors.
    pub fn to_tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        named_tensors(&self.specs, self.values.as_ref().map(Vec::as_slice))
    }

    /// Checks that the gradients belong to a model of these sizes.
    ///
    /// # Errors
    /// The gradients belong to another model.
    pub fn check(&self, config: &GptConfig) -> Result<()> {
        if self.specs == config.parameters() {
            return Ok(());
        }
        let elements: usize =
            self.values.as_ref().into_vec().iter().map(|values| values.len()).sum();
        let got = format!("{elements} elements, model of {}", config.n_parameters());
        Err(Error::new(
            "these gradients belong to another model",
            got,
            "use Gradients::zeros of the model's config",
        ))
    }

    /// Returns the gradient of every parameter.
    pub fn values(&self) -> &Parameters<Vec<f32>> {
        &self.values
    }

    /// Returns the gradient of every parameter, writable.
    pub fn values_mut(&mut self) -> &mut Parameters<Vec<f32>> {
        &mut self.values
    }

    /// Sets all gradients to zero.
    pub fn clear(&mut self) {
        self.values.as_mut().map(|values| values.fill(0.0));
    }

    /// Adds the gradients of another pass over the same parameters.
    pub fn add(&mut self, other: &Self) {
        assert_eq!(self.specs, other.specs, "gradients of one model");
        self.values.as_mut().zip(other.values.as_ref()).map(|(sum, other)| {
            sum.iter_mut().zip(other).for_each(|(sum, x)| *sum += x);
        });
    }

    /// Computes the norm over all parameters together.
    ///
    /// # Errors
    /// A worker thread panicked.
    pub fn norm(&self) -> Result<f64> {
        let squares = parallel::map(&self.values.as_ref().into_vec(), |values| {
            let mut lanes = [0f64; 8];
            let (chunks, rest) = values.as_chunks::<8>();
            for chunk in chunks {
                lanes
                    .iter_mut()
                    .zip(chunk)
                    .for_each(|(lane, &x)| *lane += f64::from(x) * f64::from(x));
            }
            Ok(lanes.iter().sum::<f64>()
                + rest.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>())
        })?;
        Ok(squares.iter().sum::<f64>().sqrt())
    }
}

/// Returns vectors as named tensors.
pub(crate) fn named_tensors(
    specs: &Parameters<ParameterSpec>,
    values: Parameters<&[f32]>,
) -> Result<BTreeMap<String, Tensor>> {
    let one = |(spec, values): (&ParameterSpec, &[f32])| {
        Ok((spec.name.clone(), Tensor::from_slice(values, spec.shape.as_slice(), &Device::Cpu)?))
    };
    specs.as_ref().zip(values).into_vec().into_iter().map(one).collect()
}

/// Returns the factor that clips gradients of this global norm to at most `max_norm`.
///
/// # Source
/// PyTorch's `clip_grad_norm_`: min(1, max_norm / (norm + 1e-6)).
pub fn clip_scale(norm: f64, max_norm: f64) -> f64 {
    (max_norm / (norm + 1e-6)).min(1.0)
}
