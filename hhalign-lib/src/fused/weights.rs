//! A model's parameters as slices, without a copy; packed as bf16 where products run in it.

use std::sync::Mutex;

use candle_core::{CpuStorage, Storage};

use super::Precision;
use super::bf16::PackedRight;
use super::products::Weight;
use crate::error::{Error, Result};
use crate::model::{Gpt, GptConfig};
use crate::parallel::{self, Pool};

pub(super) struct Linear<'a> {
    pub(super) weight: Weight<'a>,
    pub(super) bias: &'a [f32],
}

pub(super) struct BlockWeights<'a> {
    pub(super) ln_1: [&'a [f32]; 2],
    pub(super) c_attn: Linear<'a>,
    pub(super) attn_c_proj: Linear<'a>,
    pub(super) ln_2: [&'a [f32]; 2],
    pub(super) c_fc: Linear<'a>,
    pub(super) mlp_c_proj: Linear<'a>,
}

/// All parameters of a model while a step reads them.
pub struct Weights<'a> {
    pub(super) config: &'a GptConfig,
    pub(super) wte: &'a [f32],
    pub(super) wpe: &'a [f32],
    pub(super) head: Weight<'a>,
    pub(super) blocks: Vec<BlockWeights<'a>>,
    pub(super) ln_f: [&'a [f32]; 2],
    pub(super) bf16: bool,
    pub(super) purpose: Purpose,
}

/// What the parameters are lent for: each use has a layout of its own in which it is fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Forward passes only.
    Score,
    /// Forward and backward passes.
    Train,
    /// Token by token, in f32.
    Decode,
}

/// Lends the parameters of `model` to `work`.
///
/// # Errors
/// The model is not in f32 on the CPU, or the processor cannot do what `precision` asks for.
pub fn with_weights<R>(
    model: &Gpt,
    precision: Precision,
    purpose: Purpose,
    work: impl FnOnce(&Weights<'_>) -> Result<R>,
) -> Result<R> {
    let bf16 = precision.is_bf16()? && purpose != Purpose::Decode;
    let names: Vec<String> = model.config.parameters().into_iter().map(|p| p.0).collect();
    let guards = names
        .iter()
        .map(|name| {
            let (storage, layout) = model.parameters()[name].storage_and_layout();
            let (start, _) = layout.contiguous_offsets().ok_or_else(|| not_fused(name))?;
            Ok((storage, start))
        })
        .collect::<Result<Vec<_>>>()?;
    let mut slices = vec![];
    for ((storage, start), (name, shape)) in guards.iter().zip(model.config.parameters()) {
        let Storage::Cpu(CpuStorage::F32(values)) = &**storage else {
            return Err(not_fused(&name));
        };
        slices.push(&values[*start..start + shape.iter().product::<usize>()]);
    }
    let mut weights = Weights::new(&model.config, &slices, bf16, purpose);
    if bf16 {
        let mut spare = SPARE.take().unwrap_or_default().into_iter();
        let matrices = weights.matrices().into_iter().map(|m| Mutex::new((m, spare.next().unwrap_or_default())));
        parallel::map(&matrices.collect::<Vec<_>>(), |matrix| {
            let (matrix, memory) = &mut *matrix.lock().expect("each is packed by one thread");
            matrix.pack(std::mem::take(memory), purpose == Purpose::Train);
            Ok(())
        })?;
    }
    if purpose == Purpose::Decode {
        let matrices: Vec<_> = weights.matrices().into_iter().map(Mutex::new).collect();
        parallel::map(&matrices, |matrix| {
            matrix.lock().expect("each is copied by one thread").strip();
            Ok(())
        })?;
    }
    let result = work(&weights);
    if bf16 {
        let memory = weights.matrices().into_iter().map(Weight::unpack).collect();
        SPARE.give(memory);
    }
    result
}

/// Memory of packed weights between one step and the next: fresh memory would have to be cleared by the system first.
static SPARE: Pool<Vec<[PackedRight; 2]>> = Pool::new();

fn not_fused(name: &str) -> Error {
    Error::new(
        "fused operations need contiguous f32 parameters on the CPU",
        format!("{name} is not"),
        "set composed = true, or load the model in f32",
    )
}

impl<'a> Weights<'a> {
    /// The model's sizes.
    pub fn config(&self) -> &'a GptConfig {
        self.config
    }

    /// From the slices in the order of [`GptConfig::parameters`].
    fn new(config: &'a GptConfig, slices: &[&'a [f32]], bf16: bool, purpose: Purpose) -> Self {
        let c = config.n_embd;
        let blocks = slices[2..2 + 12 * config.n_layer].as_chunks::<12>().0;
        let linear = |weight: &'a [f32], bias: &'a [f32]| {
            let n_out = bias.len();
            Linear { weight: Weight::linear(weight, weight.len() / n_out, n_out), bias }
        };
        let block = |s: &[&'a [f32]; 12]| BlockWeights {
            c_attn: linear(s[0], s[1]),
            attn_c_proj: linear(s[2], s[3]),
            c_fc: linear(s[4], s[5]),
            mlp_c_proj: linear(s[6], s[7]),
            ln_1: [s[8], s[9]],
            ln_2: [s[10], s[11]],
        };
        Self {
            config,
            wte: slices[0],
            wpe: slices[1],
            head: Weight::tied(slices[0], c, config.vocab_size),
            blocks: blocks.iter().map(block).collect(),
            ln_f: [slices[slices.len() - 2], slices[slices.len() - 1]],
            bf16,
            purpose,
        }
    }

    fn matrices(&mut self) -> Vec<&mut Weight<'a>> {
        let mut all = vec![&mut self.head];
        for b in &mut self.blocks {
            all.extend([&mut b.c_attn.weight, &mut b.attn_c_proj.weight, &mut b.c_fc.weight, &mut b.mlp_c_proj.weight]);
        }
        all
    }
}
