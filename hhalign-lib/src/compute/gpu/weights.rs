//! A model's parameters on a card: one f32 vector, and a copy in the storage dtype for products.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::Tensor;

use crate::base::error::{Error, Result};
use crate::compute::gpu::card::{Buffer, Card, Dtypes, Product, download};
use crate::compute::gpu::kernels::Kernel;
use crate::compute::gpu::kernels::optim::{CopyWeights, TILE};
use crate::compute::gpu::{Gpu, Storage};
use crate::compute::gradients::named_tensors;
use crate::model::{Affine, BlockParameters, Gpt, GptConfig, ParameterSpec, Parameters};

/// The offset of a parameter in the vector of all parameters, in elements, and its shape as a
/// matrix. A vector is a matrix of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Param {
    pub(super) offset: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

/// The offsets of all parameters in one vector.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    specs: Parameters<ParameterSpec>,
    pub(super) params: Parameters<Param>,
    /// The number of elements of the vector, including padding.
    pub(super) len: usize,
    /// Rows of the token embedding, including padding, since products prefer round sizes.
    pub(super) vocab: usize,
}

impl Layout {
    pub(super) fn new(config: &GptConfig) -> Self {
        let vocab = config.vocab_size.next_multiple_of(128);
        let specs = config.parameters();
        let mut len = 0usize;
        let params = specs.as_ref().map(|spec| {
            let columns = spec.shape[spec.shape.len() - 1];
            // Only the token embedding has a row for each id.
            let rows = if spec.name == specs.wte.name { vocab } else { spec.elements() / columns };
            let param = Param { offset: len, rows, columns };
            len += (rows * columns).next_multiple_of(TILE);
            param
        });
        Self { specs, params, len, vocab }
    }

    /// Returns for each tile whether its parameter decays.
    pub(super) fn decays(&self) -> Vec<u8> {
        let begins: Vec<usize> =
            self.params.as_ref().into_vec().iter().map(|param| param.offset).collect();
        let ends = begins.iter().skip(1).copied().chain([self.len]);
        let specs = self.specs.as_ref().into_vec().into_iter();
        let parts = specs.zip(begins.iter().zip(ends));
        parts
            .flat_map(|(spec, (begin, end))| vec![u8::from(spec.is_matrix()); (end - begin) / TILE])
            .collect()
    }

    /// Copies all parameters into one vector; the padding is zero.
    pub(super) fn flatten(&self, tensors: &BTreeMap<String, Tensor>) -> Result<Vec<f32>> {
        let mut all = vec![0f32; self.len];
        self.specs.as_ref().zip(self.params.as_ref()).try_map(|(spec, param)| {
            let tensor = tensors.get(&spec.name).ok_or_else(|| {
                let fix = "load the model that the run started with";
                Error::new("a parameter is missing", spec.name.as_str(), fix)
            })?;
            let values = tensor.flatten_all()?.to_vec1::<f32>()?;
            all[param.offset..param.offset + values.len()].copy_from_slice(&values);
            Ok(())
        })?;
        Ok(all)
    }

    /// Splits a vector into named parameters.
    pub(super) fn unflatten(&self, all: &[f32]) -> Result<BTreeMap<String, Tensor>> {
        let parts = self.specs.as_ref().zip(self.params.as_ref());
        named_tensors(
            &self.specs,
            parts.map(|(spec, param)| &all[param.offset..param.offset + spec.elements()]),
        )
    }
}

impl Affine<Param> {
    /// Returns the bias.
    pub(super) fn bias(&self) -> Param {
        self.bias.expect("every layer of a GPT-2 has a bias")
    }
}

/// Parameters on a card.
pub(super) struct Weights {
    pub(super) card: Arc<dyn Card>,
    pub(super) config: GptConfig,
    pub(super) layout: Layout,
    pub(super) dtypes: Dtypes,
    pub(super) values: Buffer,
    pub(super) stored: Option<Buffer>,
}

impl Weights {
    /// Copies a model's parameters to the card.
    pub(super) fn new(gpu: &Gpu, model: &Gpt, dtypes: Dtypes) -> Result<Self> {
        gpu.card.supports(dtypes.storage)?;
        let config = model.config.clone();
        let width = config.n_embd / config.n_head;
        if !config.n_embd.is_multiple_of(8) || width > 128 {
            let got = format!("n_embd {}, {width} for each head", config.n_embd);
            let fix = "choose n_embd as a multiple of 8 with heads of at most 128, or use the CPU";
            return Err(Error::device("the GPU's kernels do not support this model", got, fix));
        }
        let layout = Layout::new(&config);
        let values = Buffer::new(&gpu.card, layout.len * 4)?;
        gpu.card.write(
            values.address(),
            bytemuck::cast_slice(&layout.flatten(&model.named_parameters())?),
        )?;
        let stored = match dtypes.storage {
            Storage::F32 => None,
            _ => Some(Buffer::new(&gpu.card, layout.len * 2)?),
        };
        let weights = Self { card: gpu.card.clone(), config, layout, dtypes, values, stored };
        if let Some(stored) = &weights.stored {
            let n = weights.layout.len as i64;
            weights.launch(&CopyWeights {
                stored: stored.address(),
                weights: weights.values.address(),
                n,
            })?;
        }
        Ok(weights)
    }

    /// Returns the offset and shape of every parameter.
    pub(super) fn params(&self) -> &Parameters<Param> {
        &self.layout.params
    }

    /// Returns the offsets and shapes of the parameters of a block.
    pub(super) fn block(&self, layer: usize) -> &BlockParameters<Param> {
        &self.layout.params.blocks[layer]
    }

    /// Returns the offset and shape of the position embedding.
    pub(super) fn wpe(&self) -> Param {
        self.layout.params.wpe.expect("a GPT-2 has learned positions")
    }

    /// Returns the address of a parameter in f32.
    pub(super) fn f32_address(&self, param: Param) -> u64 {
        self.values.address() + 4 * param.offset as u64
    }

    /// Returns the address of a parameter in the storage dtype.
    pub(super) fn stored_address(&self, param: Param) -> u64 {
        match &self.stored {
            Some(stored) => stored.address() + (self.dtypes.storage.bytes() * param.offset) as u64,
            None => self.f32_address(param),
        }
    }

    /// Launches a kernel, unless its grid is empty.
    pub(super) fn launch(&self, kernel: &impl Kernel) -> Result<()> {
        let launch = kernel.launch();
        if launch.grid.contains(&0) {
            return Ok(());
        }
        self.card.launch(self.dtypes.storage, launch)
    }

    /// Computes a product, unless one of its sizes is 0.
    pub(super) fn product(&self, product: &Product) -> Result<()> {
        if product.size.contains(&0) {
            return Ok(());
        }
        self.card.product(self.dtypes, product)
    }

    /// Copies all parameters to the host.
    pub(super) fn download(&self) -> Result<BTreeMap<String, Tensor>> {
        self.layout.unflatten(&download(&*self.card, self.values.address(), self.layout.len)?)
    }
}
