//! A model's parameters as slices, without a copy, and packed to bf16 if products run in bf16.

use std::sync::Mutex;

use candle_core::{CpuStorage, Storage};

use crate::base::error::{Error, Result};
use crate::base::parallel;
use crate::base::parallel::Pool;
use crate::compute::Precision;
use crate::compute::cpu::bf16::PackedRight;
use crate::compute::cpu::products::Weight;
use crate::model::{Affine, Gpt, GptConfig, Parameters};

/// All parameters of a model, lent for a step.
pub struct Weights<'a> {
    pub(super) config: &'a GptConfig,
    pub(super) parameters: Parameters<Weight<'a>>,
    /// The output head, (C, V): the transposed token embedding if it is tied.
    pub(super) head: Weight<'a>,
    pub(super) bf16: bool,
    pub(super) purpose: Purpose,
}

/// The purpose for which parameters are lent. Each has its own fast layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Forward passes only.
    Score,
    /// Forward and backward passes.
    Train,
    /// Decoding token by token, in f32.
    Decode,
}

/// Lends the parameters of `model` to `work`.
///
/// # Errors
/// The model is not in f32 on the CPU, or the processor does not support `precision`.
pub fn with_weights<R>(
    model: &Gpt,
    precision: Precision,
    purpose: Purpose,
    work: impl FnOnce(&Weights<'_>) -> Result<R>,
) -> Result<R> {
    let bf16 = precision.is_bf16()? && purpose != Purpose::Decode;
    let specs = model.config.parameters();
    let guards = specs.as_ref().zip(model.parameters().as_ref()).try_map(|(spec, tensor)| {
        let (storage, layout) = tensor.storage_and_layout();
        let (start, _) = layout.contiguous_offsets().ok_or_else(|| not_contiguous(&spec.name))?;
        Ok((storage, start))
    })?;
    let slices = specs.as_ref().zip(guards.as_ref()).try_map(|(spec, (storage, start))| {
        let Storage::Cpu(CpuStorage::F32(values)) = &**storage else {
            return Err(not_contiguous(&spec.name));
        };
        Ok(&values[*start..start + spec.elements()])
    })?;
    let mut weights = Weights::new(&model.config, slices, bf16, purpose);
    if bf16 {
        let mut pool = PACKED_POOL.take().unwrap_or_default().into_iter();
        let matrices = weights
            .matrices()
            .into_iter()
            .map(|m| Mutex::new((m, pool.next().unwrap_or_default())));
        parallel::map(&matrices.collect::<Vec<_>>(), |matrix| {
            let (matrix, memory) = &mut *matrix.lock().expect("each is packed by one thread");
            matrix.pack(std::mem::take(memory), purpose == Purpose::Train);
            Ok(())
        })?;
    }
    if purpose == Purpose::Decode {
        let matrices: Vec<_> = weights.matrices().into_iter().map(Mutex::new).collect();
        parallel::map(&matrices, |matrix| {
            matrix.lock().expect("each is copied by one thread").make_strips();
            Ok(())
        })?;
    }
    let result = work(&weights);
    if bf16 {
        let memory = weights.matrices().into_iter().map(Weight::take_packed).collect();
        PACKED_POOL.give(memory);
    }
    result
}

/// Memory of packed weights, kept from step to step, since the system would have to clear fresh
/// memory first.
static PACKED_POOL: Pool<Vec<[PackedRight; 2]>> = Pool::new();

fn not_contiguous(name: &str) -> Error {
    Error::new(
        "the fast path needs contiguous f32 parameters on the CPU",
        format!("{name} is not"),
        "set composed = true, or load the model in f32",
    )
}

impl<'a> Weights<'a> {
    /// Returns the model's sizes.
    pub fn config(&self) -> &'a GptConfig {
        self.config
    }

    fn new(
        config: &'a GptConfig,
        slices: Parameters<&'a [f32]>,
        bf16: bool,
        purpose: Purpose,
    ) -> Self {
        let head =
            Weight::transposed(slices.head.unwrap_or(slices.wte), config.n_embd, config.vocab_size);
        let parameters = config
            .parameters()
            .zip(slices)
            .map(|(spec, values)| Weight::stored(values, spec.shape[spec.shape.len() - 1]));
        Self { config, parameters, head, bf16, purpose }
    }

    /// Returns the matrices that products read. Embeddings are read row by row instead.
    fn matrices(&mut self) -> Vec<&mut Weight<'a>> {
        let mut all = vec![&mut self.head];
        for block in &mut self.parameters.blocks {
            all.extend(
                [&mut block.qkv, &mut block.attproj, &mut block.fc].map(|layer| &mut layer.weight),
            );
            all.extend(block.gate.as_mut().map(|layer| &mut layer.weight));
            all.push(&mut block.fcproj.weight);
        }
        all
    }
}

impl<'a> Affine<Weight<'a>> {
    /// Returns weight and bias as slices.
    pub(super) fn weight_and_bias(&self) -> [&'a [f32]; 2] {
        [self.weight.values(), self.bias()]
    }

    /// Returns the bias as a slice.
    pub(super) fn bias(&self) -> &'a [f32] {
        self.bias.as_ref().expect("every layer of a GPT-2 has a bias").values()
    }
}

/// Computes the first value of the residual stream for a token at a position: the sum of both
/// embeddings.
pub(super) fn embed(parameters: &Parameters<Weight<'_>>, id: u32, position: u32, out: &mut [f32]) {
    let token = parameters.wte.row(id as usize);
    let position =
        parameters.wpe.as_ref().expect("a GPT-2 has learned positions").row(position as usize);
    out.iter_mut().zip(token).zip(position).for_each(|((x, t), p)| *x = t + p);
}
