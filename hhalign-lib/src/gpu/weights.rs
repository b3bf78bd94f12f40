//! A model's parameters on a card: one vector of f32, and a copy stored as products read it.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::card::{Arg, Buffer, Card, Launch, Numbers, download};
use super::{Gpu, Storage};
use crate::error::{Error, Result};
use crate::model::{Gpt, GptConfig};

/// Parameters are padded to whole tiles, as in `kernels/optim.cu`.
pub(super) const TILE: usize = 1024;

/// Where each parameter lies in a vector of all, in numbers.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) names: Vec<(String, Vec<usize>)>,
    offsets: Vec<usize>,
    /// Numbers in all, padding included.
    pub(super) len: usize,
    /// Rows of the embedding with padding: products like round sizes.
    pub(super) vocab: usize,
}

impl Layout {
    pub(super) fn of(config: &GptConfig) -> Self {
        let vocab = config.vocab_size.next_multiple_of(128);
        let names = config.parameters();
        let (mut offsets, mut len) = (vec![], 0usize);
        for (i, (_, shape)) in names.iter().enumerate() {
            offsets.push(len);
            let n = if i == 0 { vocab * config.n_embd } else { shape.iter().product() };
            len += n.next_multiple_of(TILE);
        }
        Self { names, offsets, len, vocab }
    }

    /// For every tile whether its parameter decays.
    pub(super) fn decays(&self) -> Vec<u8> {
        let ends = self.offsets.iter().skip(1).copied().chain([self.len]);
        let parts = self.names.iter().zip(self.offsets.iter().zip(ends));
        parts.flat_map(|((_, shape), (begin, end))| vec![u8::from(shape.len() >= 2); (end - begin) / TILE]).collect()
    }

    /// All parameters as one vector, padding zero.
    pub(super) fn gather(&self, tensors: &BTreeMap<String, Tensor>) -> Result<Vec<f32>> {
        let mut all = vec![0f32; self.len];
        for ((name, _), offset) in self.names.iter().zip(&self.offsets) {
            let tensor = tensors.get(name).ok_or_else(|| {
                Error::new("a parameter is missing", name.as_str(), "load the model that the run was begun with")
            })?;
            let values = tensor.flatten_all()?.to_vec1::<f32>()?;
            all[*offset..offset + values.len()].copy_from_slice(&values);
        }
        Ok(all)
    }

    /// The parameters out of one vector.
    pub(super) fn scatter(&self, all: &[f32]) -> Result<BTreeMap<String, Tensor>> {
        let one = |((name, shape), offset): (&(String, Vec<usize>), &usize)| {
            let n = shape.iter().product::<usize>();
            Ok((name.clone(), Tensor::from_slice(&all[*offset..offset + n], shape.as_slice(), &Device::Cpu)?))
        };
        self.names.iter().zip(&self.offsets).map(one).collect()
    }

    pub(super) fn offset(&self, parameter: usize) -> usize {
        self.offsets[parameter]
    }
}

/// The twelve parameters of a block, in the order of [`GptConfig::parameters`].
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    QkvWeight,
    QkvBias,
    ProjWeight,
    ProjBias,
    FcWeight,
    FcBias,
    OutWeight,
    OutBias,
    Norm1Weight,
    Norm1Bias,
    Norm2Weight,
    Norm2Bias,
}

/// Names a parameter.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which {
    Token,
    Place,
    Block(usize, Part),
    LastNormWeight,
    LastNormBias,
}

/// Parameters on a card.
pub(super) struct Weights {
    pub(super) card: Arc<dyn Card>,
    pub(super) config: GptConfig,
    pub(super) layout: Layout,
    pub(super) numbers: Numbers,
    pub(super) values: Buffer,
    pub(super) stored: Option<Buffer>,
}

impl Weights {
    /// Copies a model's parameters to the card.
    pub(super) fn new(gpu: &Gpu, model: &Gpt, numbers: Numbers) -> Result<Self> {
        gpu.card.supports(numbers.storage)?;
        let config = model.config.clone();
        let width = config.n_embd / config.n_head;
        if !config.n_embd.is_multiple_of(8) || width > 128 {
            let got = format!("n_embd {}, {width} for each head", config.n_embd);
            let fix = "choose n_embd as a multiple of 8 with heads of at most 128, or use the CPU";
            return Err(Error::new("the GPU's kernels do not fit this model", got, fix));
        }
        let layout = Layout::of(&config);
        let values = Buffer::new(&gpu.card, layout.len * 4)?;
        gpu.card.write(values.at(), bytemuck::cast_slice(&layout.gather(model.parameters())?))?;
        let stored = match numbers.storage {
            Storage::F32 => None,
            _ => Some(Buffer::new(&gpu.card, layout.len * 2)?),
        };
        let weights = Self { card: gpu.card.clone(), config, layout, numbers, values, stored };
        if let Some(stored) = &weights.stored {
            let args = [Arg::At(stored.at()), Arg::At(weights.values.at()), Arg::Long(weights.layout.len as i64)];
            let launch = Launch { kernel: "copy_weights", grid: [1024, 1], block: 256, shared: 0, args: &args };
            weights.card.launch(numbers.storage, &launch)?;
        }
        Ok(weights)
    }

    fn number(&self, which: Which) -> usize {
        match which {
            Which::Token => 0,
            Which::Place => 1,
            Which::Block(layer, part) => 2 + 12 * layer + part as usize,
            Which::LastNormWeight => self.layout.names.len() - 2,
            Which::LastNormBias => self.layout.names.len() - 1,
        }
    }

    /// Where a parameter begins in a vector of all, in numbers.
    pub(super) fn offset(&self, which: Which) -> usize {
        self.layout.offset(self.number(which))
    }

    /// The parameter in f32.
    pub(super) fn value(&self, which: Which) -> u64 {
        self.values.at() + 4 * self.offset(which) as u64
    }

    /// The parameter as products read it.
    pub(super) fn stored(&self, which: Which) -> u64 {
        match &self.stored {
            Some(stored) => stored.at() + (self.numbers.storage.bytes() * self.offset(which)) as u64,
            None => self.value(which),
        }
    }

    /// Back to the processor.
    pub(super) fn download(&self) -> Result<BTreeMap<String, Tensor>> {
        self.layout.scatter(&download(&*self.card, self.values.at(), self.layout.len)?)
    }
}
