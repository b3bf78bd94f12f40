//! The gradient of every parameter, as plain numbers in the order of [`GptConfig::parameters`].

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use crate::error::{Error, Result};
use crate::model::GptConfig;
use crate::parallel;

/// One vector for each parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    names: Vec<(String, Vec<usize>)>,
    values: Vec<Vec<f32>>,
}

impl Gradients {
    /// All zero.
    pub fn zeros(config: &GptConfig) -> Self {
        let names = config.parameters();
        let values = names.iter().map(|(_, shape)| vec![0.0; shape.iter().product()]).collect();
        Self { names, values }
    }

    /// From tensors by name, as automatic differentiation gives them.
    ///
    /// # Errors
    /// A parameter without a gradient: some operation cut it off.
    pub fn from_tensors(config: &GptConfig, tensors: &BTreeMap<String, Tensor>) -> Result<Self> {
        let names = config.parameters();
        let values = names.iter().map(|(name, shape)| {
            let tensor = tensors.get(name).filter(|t| t.dims() == shape).ok_or_else(|| {
                Error::new(
                    format!("{name} received no gradient of its shape"),
                    tensors.get(name).map_or("nothing".to_string(), |t| format!("{:?}", t.dims())),
                    "an operation in the forward pass has no backward",
                )
            })?;
            Ok(tensor.flatten_all()?.to_vec1::<f32>()?)
        });
        Ok(Self { values: values.collect::<Result<_>>()?, names })
    }

    /// As tensors by name.
    ///
    /// # Errors
    /// A failure of the tensor library.
    pub fn to_tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let one = |((name, shape), values): (&(String, Vec<usize>), &Vec<f32>)| {
            Ok((name.clone(), Tensor::from_slice(values, shape.as_slice(), &Device::Cpu)?))
        };
        self.names.iter().zip(&self.values).map(one).collect()
    }

    /// Says whether they are those of a model of these sizes.
    ///
    /// # Errors
    /// They belong to another model.
    pub fn check(&self, config: &GptConfig) -> Result<()> {
        if self.names == config.parameters() {
            return Ok(());
        }
        let got =
            format!("{} numbers, model of {}", self.values.iter().map(Vec::len).sum::<usize>(), config.n_parameters());
        Err(Error::new("these gradients belong to another model", got, "use Gradients::zeros of the model's config"))
    }

    /// The numbers, parameter by parameter.
    pub fn values(&self) -> &[Vec<f32>] {
        &self.values
    }

    /// The numbers, to be added to.
    pub fn values_mut(&mut self) -> &mut [Vec<f32>] {
        &mut self.values
    }

    /// Back to zero.
    pub fn clear(&mut self) {
        self.values.iter_mut().for_each(|values| values.fill(0.0));
    }

    /// Adds the gradients of another pass over the same parameters.
    pub fn add(&mut self, other: &Self) {
        assert_eq!(self.names, other.names, "gradients of one model");
        for (sum, other) in self.values.iter_mut().zip(&other.values) {
            sum.iter_mut().zip(other).for_each(|(sum, x)| *sum += x);
        }
    }

    /// The norm over all parameters together.
    ///
    /// # Errors
    /// A panic of a worker thread.
    pub fn norm(&self) -> Result<f64> {
        let squares = parallel::map(&self.values, |values| {
            let mut lanes = [0f64; 8];
            let (chunks, rest) = values.as_chunks::<8>();
            for chunk in chunks {
                lanes.iter_mut().zip(chunk).for_each(|(lane, &x)| *lane += f64::from(x) * f64::from(x));
            }
            Ok(lanes.iter().sum::<f64>() + rest.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>())
        })?;
        Ok(squares.iter().sum::<f64>().sqrt())
    }
}

/// What to multiply gradients of a global norm with, so that it becomes at most `max_norm`.
///
/// # Source
/// PyTorch's `clip_grad_norm_`: min(1, max_norm / (norm + 1e-6)).
pub fn clip_scale(norm: f64, max_norm: f64) -> f64 {
    (max_norm / (norm + 1e-6)).min(1.0)
}
