//! A GPT-2 / nanoGPT transformer: pre-norm, tanh GELU, learned positions, tied head.
//!
//! Read [`Gpt`] in this file first; its forward pass is composed of the operations in [`ops`].
//! `config` has the sizes and presets. `parameters` has the names, shapes and order of all
//! parameters. [`checkpoint`] saves and loads models. This module is the readable version of the
//! model; [`crate::compute`] has fast versions of the same passes.

pub mod checkpoint;
mod config;
pub mod ops;
mod parameters;

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Device, Tensor, Var};
use rand_distr::{Distribution, Normal};

pub use self::config::{GptConfig, Preset};
pub use self::parameters::{Affine, BlockParameters, ParameterSpec, Parameters};
use crate::base::error::{Error, Result};
use crate::base::rng::{sha256_hex, stream};
use crate::model::ops::Dropout;

/// A GPT. It is not `Clone`, since tensors share their storage; [`Gpt::freeze`] and [`Gpt::fork`]
/// make copies.
pub struct Gpt {
    /// The model's sizes.
    pub config: GptConfig,
    parameters: Parameters<Tensor>,
    /// The same storage as `parameters`, writable by an optimiser; `None` for a frozen model.
    vars: Option<Parameters<Var>>,
}

impl Gpt {
    /// Makes a fresh model. Biases are zero. Weights are normal with standard deviation 0.02, or
    /// 0.02 / √(2 n_layer) in the layers that write to the residual stream.
    ///
    /// # Errors
    /// As [`GptConfig::check`].
    ///
    /// # Source
    /// Radford et al. 2019 (GPT-2), section 2.3.
    ///
    /// # Example
    /// ```
    /// use hhalign::model::{Gpt, Preset};
    /// let model = Gpt::new(Preset::Toy.config(1024), 1)?;
    /// assert_eq!(model.n_parameters(), model.config.n_parameters());
    /// # Ok::<(), hhalign::base::error::Error>(())
    /// ```
    pub fn new(config: GptConfig, seed: u64) -> Result<Self> {
        config.check()?;
        let projection_std = 0.02 / (2.0 * config.n_layer as f32).sqrt();
        let parameters = config.parameters().try_map(|ParameterSpec { name, shape }| {
            let n: usize = shape.iter().product();
            let values: Vec<f32> = if name.ends_with("bias") {
                vec![0.; n]
            } else if name.contains("ln_") {
                vec![1.; n]
            } else {
                let std = if name.ends_with("c_proj.weight") { projection_std } else { 0.02 };
                let normal = Normal::new(0f32, std).expect("a positive deviation");
                let mut rng = stream(seed, &name, &[]);
                (0..n).map(|_| normal.sample(&mut rng)).collect()
            };
            Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
        })?;
        Self::from_tensors(config, parameters, true)
    }

    /// Makes a model, trainable or frozen, from parameters with Hugging Face's names.
    ///
    /// # Errors
    /// A parameter is missing, unknown or of another shape.
    pub fn from_parameters(
        config: GptConfig,
        given: BTreeMap<String, Tensor>,
        trainable: bool,
    ) -> Result<Self> {
        config.check()?;
        let specs = config.parameters();
        let fix = "check that weights and config.json belong together";
        let parameters = specs.as_ref().try_map(|ParameterSpec { name, shape }| {
            let tensor = given.get(name).ok_or_else(|| {
                Error::data(
                    format!("the parameter {name} is missing"),
                    format!("{} parameters", given.len()),
                    fix,
                )
            })?;
            if tensor.dims() != shape {
                let got = format!("{:?} instead of {shape:?}", tensor.dims());
                return Err(Error::data(format!("{name} has another shape"), got, fix));
            }
            Ok(tensor.clone())
        })?;
        let known: BTreeSet<String> = specs.into_vec().into_iter().map(|spec| spec.name).collect();
        if let Some(name) = given.keys().find(|name| !known.contains(*name)) {
            return Err(Error::data(
                "a parameter that this model does not have",
                name.as_str(),
                fix,
            ));
        }
        Self::from_tensors(config, parameters, trainable)
    }

    /// Makes a model with copies of these tensors: f64 tensors stay f64, all others become f32.
    fn from_tensors(config: GptConfig, given: Parameters<Tensor>, trainable: bool) -> Result<Self> {
        let copies = given.try_map(|tensor| {
            let dtype = if tensor.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
            Ok(tensor.to_dtype(dtype)?.copy()?.detach())
        })?;
        if !trainable {
            return Ok(Self { config, parameters: copies, vars: None });
        }
        let vars = copies.try_map(|tensor| Ok(Var::from_tensor(&tensor)?))?;
        let parameters = vars.as_ref().map(|var| var.as_tensor().clone());
        Ok(Self { config, parameters, vars: Some(vars) })
    }

    /// Returns a copy that cannot be trained, such as the reference of DPO.
    pub fn freeze(&self) -> Result<Self> {
        Self::from_tensors(self.config.clone(), self.parameters.clone(), false)
    }

    /// Returns a trainable copy with its own storage.
    pub fn fork(&self) -> Result<Self> {
        Self::from_tensors(self.config.clone(), self.parameters.clone(), true)
    }

    /// Returns a copy for shorter texts, without the position embeddings after the first
    /// `block_size`. The logits of texts that fit do not change.
    ///
    /// # Errors
    /// `block_size` is zero, or larger than that of the weights: no embedding exists for later
    /// positions.
    ///
    /// # Example
    /// ```
    /// use hhalign::model::{Gpt, Preset};
    /// let model = Gpt::new(Preset::Toy.config(300), 1)?;
    /// assert_eq!(model.with_block_size(64)?.config.block_size, 64);
    /// assert!(model.with_block_size(1024).is_err());
    /// # Ok::<(), hhalign::base::error::Error>(())
    /// ```
    pub fn with_block_size(&self, block_size: usize) -> Result<Self> {
        if block_size == 0 || block_size > self.config.block_size {
            return Err(Error::new(
                "weights can be cut to a shorter block only",
                format!("{block_size}, the weights have {} positions", self.config.block_size),
                format!("choose 1 to {}", self.config.block_size),
            ));
        }
        let config = GptConfig { block_size, ..self.config.clone() };
        let mut parameters = self.parameters.clone();
        parameters.wpe = parameters.wpe.map(|wpe| wpe.narrow(0, 0, block_size)).transpose()?;
        Self::from_tensors(config, parameters, !self.is_frozen())
    }

    /// Returns whether the model is frozen.
    pub fn is_frozen(&self) -> bool {
        self.vars.is_none()
    }

    /// Returns every parameter.
    pub fn parameters(&self) -> &Parameters<Tensor> {
        &self.parameters
    }

    /// Returns every parameter by its Hugging Face name, in the order of the names, for files.
    pub fn named_parameters(&self) -> BTreeMap<String, Tensor> {
        self.by_name(self.parameters.as_ref().map(Tensor::clone))
    }

    /// Returns the variables that an optimiser may change; `None` for a frozen model.
    pub fn vars(&self) -> Option<&Parameters<Var>> {
        self.vars.as_ref()
    }

    /// Returns the variables that an optimiser may change, by name; empty for a frozen model.
    pub fn named_vars(&self) -> BTreeMap<String, Var> {
        self.vars
            .as_ref()
            .map(|vars| self.by_name(vars.as_ref().map(Var::clone)))
            .unwrap_or_default()
    }

    fn by_name<T>(&self, values: Parameters<T>) -> BTreeMap<String, T> {
        let pairs = self.config.parameters().zip(values).into_vec();
        pairs.into_iter().map(|(spec, value)| (spec.name, value)).collect()
    }

    /// Returns the number of elements in all parameters.
    pub fn n_parameters(&self) -> usize {
        self.config.n_parameters()
    }

    /// Overwrites the parameters with those of another model of the same sizes.
    ///
    /// # Errors
    /// This model is frozen, or the sizes differ.
    pub fn assign(&self, parameters: &BTreeMap<String, Tensor>) -> Result<()> {
        if self.is_frozen() {
            return Err(Error::new(
                "a frozen model cannot change",
                "Gpt::assign on a frozen copy",
                "use Gpt::fork for a copy that can",
            ));
        }
        for (name, var) in &self.named_vars() {
            let value = parameters.get(name).ok_or_else(|| {
                Error::new("a parameter is missing", name.as_str(), "give all parameters")
            })?;
            var.set(&value.detach())?;
        }
        Ok(())
    }

    /// Returns the first 16 digits of the SHA-256 of the sizes and of the names and values of all
    /// parameters.
    pub fn hash(&self) -> Result<String> {
        let mut bytes = serde_json::to_vec(&self.config)?;
        for (name, tensor) in &self.named_parameters() {
            bytes.extend_from_slice(name.as_bytes());
            for value in tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()? {
                bytes.extend_from_slice(&value.to_le_bytes());
            }
        }
        Ok(sha256_hex([bytes.as_slice()], 16))
    }

    /// Computes the last hidden states, the input of the head.
    ///
    /// # Shapes
    /// input_ids (B, T) -> (B, T, C)
    ///
    /// # Errors
    /// T exceeds `block_size`, or an id is outside the vocabulary.
    pub fn hidden(&self, input_ids: &Tensor, dropout: &mut Dropout) -> Result<Tensor> {
        self.forward(input_ids, None, dropout)
    }

    /// Computes the last hidden states of new tokens. The keys and values of earlier tokens come
    /// from `cache`, and those of the new tokens are appended to it.
    ///
    /// # Shapes
    /// input_ids (B, T) -> (B, T, C)
    ///
    /// # Errors
    /// The tokens, including cached ones, exceed `block_size`.
    pub fn hidden_cached(&self, input_ids: &Tensor, cache: &mut KvCache) -> Result<Tensor> {
        self.forward(input_ids, Some(cache), &mut Dropout::off())
    }

    /// Computes the logits of hidden states: the product with the token embedding, which is tied to
    /// the head.
    ///
    /// # Shapes
    /// hidden (..., C) -> (..., V)
    pub fn head(&self, hidden: &Tensor) -> Result<Tensor> {
        let mut dims = hidden.dims().to_vec();
        let logits = hidden
            .reshape(((), self.config.n_embd))?
            .matmul(&self.parameters.head.as_ref().unwrap_or(&self.parameters.wte).t()?)?;
        *dims.last_mut().expect("hidden has a last dimension") = self.config.vocab_size;
        Ok(logits.reshape(dims)?)
    }

    /// Computes the logits of every position without dropout.
    ///
    /// # Shapes
    /// input_ids (B, T) -> (B, T, V)
    ///
    /// # Errors
    /// T exceeds `block_size`, or an id is outside the vocabulary.
    pub fn logits(&self, input_ids: &Tensor) -> Result<Tensor> {
        self.head(&self.hidden(input_ids, &mut Dropout::off())?)
    }

    fn forward(
        &self,
        input_ids: &Tensor,
        mut cache: Option<&mut KvCache>,
        dropout: &mut Dropout,
    ) -> Result<Tensor> {
        let (b, t) = input_ids.dims2()?;
        let c = self.config.n_embd;
        let start = cache.as_ref().map_or(0, |cache| cache.len());
        if start + t > self.config.block_size {
            return Err(Error::new(
                "the sequence is longer than the model's block",
                format!("{} tokens, block_size {}", start + t, self.config.block_size),
                "cut the text, or use a preset with a longer block",
            ));
        }
        let Parameters { wte, wpe, blocks, lnf, .. } = &self.parameters;
        let mut x = wte.index_select(&input_ids.flatten_all()?, 0)?.reshape((b, t, c))?;
        if let Some(wpe) = wpe {
            x = x.broadcast_add(&wpe.narrow(0, start, t)?)?;
        }
        x = dropout.apply(&x)?;
        for (layer, block) in blocks.iter().enumerate() {
            let cached = cache.as_deref_mut().map(|cache| &mut cache.layers[layer]);
            let y = self.attention(block, &self.norm(&block.ln1, &x)?, cached, dropout)?;
            x = (x + dropout.apply(&y)?)?;
            let y = linear(&block.fc, &self.norm(&block.ln2, &x)?)?;
            let y = linear(&block.fcproj, &ops::gelu(&y)?)?;
            x = (x + dropout.apply(&y)?)?;
        }
        self.norm(lnf, &x)
    }

    fn norm(&self, norm: &Affine<Tensor>, x: &Tensor) -> Result<Tensor> {
        ops::layer_norm(x, &norm.weight, bias_of(norm), self.config.layer_norm_epsilon)
    }

    fn attention(
        &self,
        block: &BlockParameters<Tensor>,
        x: &Tensor,
        cached: Option<&mut Option<(Tensor, Tensor)>>,
        dropout: &mut Dropout,
    ) -> Result<Tensor> {
        let (b, t, c) = x.dims3()?;
        let h = self.config.n_head;
        let qkv = linear(&block.qkv, x)?.reshape((b, t, 3, h, c / h))?;
        let part = |i: usize| qkv.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
        let (q, mut k, mut v) = (part(0)?, part(1)?, part(2)?);
        if let Some(slot) = cached {
            if let Some((old_k, old_v)) = slot {
                k = Tensor::cat(&[&*old_k, &k], 2)?;
                v = Tensor::cat(&[&*old_v, &v], 2)?;
            }
            *slot = Some((k.clone(), v.clone()));
        }
        let y = ops::causal_attention(&q, &k, &v, dropout)?;
        linear(&block.attproj, &y.transpose(1, 2)?.reshape((b, t, c))?)
    }
}

fn linear(layer: &Affine<Tensor>, x: &Tensor) -> Result<Tensor> {
    ops::linear(x, &layer.weight, bias_of(layer))
}

fn bias_of(layer: &Affine<Tensor>) -> &Tensor {
    layer.bias.as_ref().expect("every layer of a GPT-2 has a bias")
}

/// The keys and values of earlier tokens, layer by layer.
#[derive(Debug, Clone)]
pub struct KvCache {
    layers: Vec<Option<(Tensor, Tensor)>>,
}

impl KvCache {
    /// Makes an empty cache for a model.
    pub fn new(model: &Gpt) -> Self {
        Self { layers: vec![None; model.config.n_layer] }
    }

    /// Returns the number of tokens in the cache.
    pub fn len(&self) -> usize {
        self.layers.first().and_then(Option::as_ref).map_or(0, |(k, _)| k.dims()[2])
    }

    /// Returns whether the cache holds no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps only the sequences at `rows`, in that order, and drops those that have ended.
    pub fn keep_rows(&mut self, rows: &Tensor) -> Result<()> {
        for (k, v) in self.layers.iter_mut().flatten() {
            (*k, *v) = (k.index_select(rows, 0)?, v.index_select(rows, 0)?);
        }
        Ok(())
    }
}
