//! What runs passes over a model's weights: the composed model, this processor's fast path, or a GPU.
//!
//! One of the three is chosen once, by [`for_model`] or [`for_training`], from [`Compute`]; nobody else
//! chooses a device. All three give the same log-probabilities, gradients and replies up to rounding: the tests hold the fast
//! paths to the composed model.

pub(crate) mod composed;
mod cpu;
mod gpu;
#[cfg(test)]
mod tests;

use candle_core::{Device, Tensor, Var};

use self::composed::Composed;
pub(crate) use self::composed::DropoutPlan;
use self::cpu::Cpu;
use self::gpu::OnGpu;
use crate::error::{Error, Result};
use crate::fused::{Compute, Packed, TokenLayout, TokenStats};
use crate::gradients::Gradients;
use crate::model::Gpt;
use crate::optim::AdamW;

/// Log-probabilities per token, as plain numbers or as a tensor with its gradient, and which sequence each belongs to.
#[derive(Debug, Clone)]
pub(crate) struct TokenLogps<T> {
    /// log π of every reply token, (N).
    pub(crate) values: T,
    /// Which sequence each of them belongs to.
    pub(crate) layout: TokenLayout,
}

impl TokenLogps<Vec<f32>> {
    /// log π of every sequence, (S).
    pub(crate) fn by_sequence(&self) -> Vec<f32> {
        self.layout.sums(&self.values)
    }

    /// The same numbers as the leaf of a graph: from here to the loss it is the lesson's own path.
    pub(crate) fn leaf(&self) -> Result<(Var, TokenLogps<Tensor>)> {
        let leaf = Var::from_slice(&self.values, self.values.len(), &Device::Cpu)?;
        let values = leaf.as_tensor().clone();
        Ok((leaf, TokenLogps { values, layout: self.layout.clone() }))
    }
}

impl TokenLogps<Tensor> {
    /// log π of every sequence, (S), with its gradient.
    pub(crate) fn by_sequence(&self) -> Result<Tensor> {
        composed::sum_by_sequence(&self.values, &self.layout)
    }
}

/// What a forward pass gives.
pub(crate) struct Forward {
    /// log π of every target.
    pub(crate) logps: TokenLogps<Vec<f32>>,
    /// The last hidden states at the ends of whole replies, (E, C).
    pub(crate) ends: Vec<f32>,
    /// What the model would have said by itself, where it was asked for.
    pub(crate) stats: Option<TokenStats>,
}

/// The gradient of a loss with respect to what a forward pass gave.
#[derive(Debug, Default)]
pub(crate) struct Upstream {
    /// Of every log π, (N).
    pub(crate) dlogps: Vec<f32>,
    /// Of the ends, (E, C); empty means zeros.
    pub(crate) dends: Vec<f32>,
}

/// Extracts what is kept of a forward pass.
pub(crate) type Read<'a> = dyn Fn(&Forward) -> Result<Vec<f32>> + Sync + 'a;

/// The passes of one optimiser step, and the loss between forward and backward.
pub(crate) trait StepWork: Sync {
    /// The step's number: it decides the draws of dropout.
    fn number(&self) -> usize;
    /// Passes of the step, each with some of its pairs.
    fn n_passes(&self) -> usize;
    /// The tokens of a pass.
    fn pack(&self, pass: usize) -> Result<Packed>;
    /// Whether [`Forward::stats`] are wanted.
    fn wants_stats(&self) -> bool;
    /// The gradient of each log π, (N), where it does not depend on their values: the head's backward pass then runs with
    /// the forward pass, which saves computing the logits again.
    fn constant_grad(&self, pass: usize, packed: &Packed) -> Option<Vec<f32>>;
    /// The upstream gradient of a pass. It may be asked for again after an overflow in f16.
    fn upstream(&self, pass: usize, forward: &Forward) -> Result<Upstream>;
}

/// Sequences that are decoded together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DecodePlan {
    /// Sequences in all.
    pub(crate) sequences: usize,
    /// Tokens of the longest, prompt and reply.
    pub(crate) length: usize,
    /// Models that decode side by side and share the memory.
    pub(crate) models: usize,
}

/// Runs passes over the weights of one model.
pub(crate) trait Executor {
    /// Forward passes without gradients; what `read` keeps of each pack.
    fn score(&mut self, packs: &[Packed], read: &Read<'_>) -> Result<Vec<Vec<f32>>>;

    /// Whole rows of logits of every target: (N, V) for each pack.
    fn logits(&mut self, packs: &[Packed]) -> Result<Vec<Tensor>>;

    /// Lends the weights to `work` in the form that decoding needs.
    fn decode(&mut self, plan: &DecodePlan, work: &mut dyn FnMut(&dyn Decoding) -> Result<()>) -> Result<()>;

    /// The gradients of a step, which stay here; returns their norm.
    fn gradients(&mut self, work: &dyn StepWork) -> Result<f64>;

    /// The optimiser's step on these gradients, clipped to `max_norm`.
    fn apply(&mut self, optimizer: &mut AdamW, norm: f64, max_norm: f64, rate: f64) -> Result<()>;

    /// Whether the model on this processor is older than the weights here.
    fn is_stale(&self) -> bool {
        false
    }

    /// Brings the model on this processor up to date.
    fn sync_weights(&mut self) -> Result<()> {
        Ok(())
    }

    /// Brings the optimiser's moments on this processor up to date.
    fn sync_moments(&mut self, _optimizer: &mut AdamW) -> Result<()> {
        Ok(())
    }

    /// Memory of the GPU that is taken, by whomever, in MB.
    fn gpu_memory_mb(&self) -> Result<Option<f64>> {
        Ok(None)
    }
}

/// Weights that are ready to decode with.
pub(crate) trait Decoding: Sync {
    /// Sequences of `n` that one decoder takes at once.
    fn at_once(&self, n: usize) -> usize;

    /// A decoder without sequences.
    fn decoder(&self) -> Result<Box<dyn Decoder + '_>>;

    /// Whether groups of sequences run side by side, each with a decoder of its own.
    fn side_by_side(&self) -> bool {
        true
    }
}

/// Sequences that grow token by token; they are numbered from 0.
pub(crate) trait Decoder {
    /// Reads the first of some prompts as new sequences; returns how many were read, at least one.
    fn start(&mut self, prompts: &[&[u32]]) -> Result<usize>;

    /// Appends one token to each of some sequences.
    fn append(&mut self, sequences: &[usize], ids: &[u32]) -> Result<()>;

    /// The logits after the last tokens that were read, (B, V).
    fn logits(&mut self) -> Result<Vec<f32>>;

    /// Whether [`Decoder::draw`] draws without the logits leaving the device.
    fn draws(&self) -> bool {
        false
    }

    /// Draws a token after each last one: uniform numbers in [0, 1) say where in the distribution; the likeliest at
    /// temperature 0.
    fn draw(&mut self, _uniform: &[f32], _temperature: f32) -> Result<Vec<u32>> {
        Err(Error::new("this decoder does not draw", "draw without draws()", "this is a bug: please report it"))
    }
}

/// The executor that `compute` means, for scoring and decoding with `model`.
pub(crate) fn for_model<'m>(compute: &Compute, model: &'m Gpt) -> Result<Box<dyn Executor + 'm>> {
    if compute.composed {
        return Ok(Box::new(Composed::new(model, DropoutPlan { probability: 0.0, seed: 0 })));
    }
    Ok(match compute.gpu()? {
        Some(gpu) => Box::new(OnGpu::new(gpu, model, compute)),
        None => Box::new(Cpu::new(model, compute)),
    })
}

/// The executor that `compute` means, for training `model`. Dropout is drawn by the composed model only.
pub(crate) fn for_training<'m>(
    compute: &Compute,
    model: &'m Gpt,
    optimizer: &AdamW,
    dropout: DropoutPlan,
) -> Result<Box<dyn Executor + 'm>> {
    if compute.composed || dropout.probability > 0.0 {
        return Ok(Box::new(Composed::new(model, dropout)));
    }
    Ok(match compute.gpu()? {
        Some(gpu) => Box::new(OnGpu::for_training(gpu, model, optimizer, compute)?),
        None => Box::new(Cpu::new(model, compute)),
    })
}

/// The executor that evaluates a training with dropout; `None` where the training's own serves.
pub(crate) fn for_evaluation<'m>(
    compute: &Compute,
    model: &'m Gpt,
    dropout: f64,
) -> Result<Option<Box<dyn Executor + 'm>>> {
    if dropout > 0.0 && !compute.composed { for_model(compute, model).map(Some) } else { Ok(None) }
}

impl Compute {
    /// Whether work goes to a GPU.
    ///
    /// # Errors
    /// A GPU was asked for by its number, here or in `HHALIGN_DEVICE`, and cannot be used.
    pub fn is_on_gpu(&self) -> Result<bool> {
        Ok(self.gpu()?.is_some())
    }
}

/// The gradients of a step, between its passes and the optimiser's step.
#[derive(Default)]
struct StepGradients(Option<Box<Gradients>>);

impl StepGradients {
    /// Keeps the sum over the passes of a step; returns its norm.
    fn keep(&mut self, sum: Option<Gradients>, step: usize) -> Result<f64> {
        let sum = sum.expect("a step has a pass");
        let norm = finite(sum.norm()?, step)?;
        self.0 = Some(Box::new(sum));
        Ok(norm)
    }

    fn take(&mut self) -> Box<Gradients> {
        self.0.take().expect("gradients come before their step")
    }
}

fn finite(norm: f64, step: usize) -> Result<f64> {
    if norm.is_finite() {
        return Ok(norm);
    }
    Err(Error::new(
        format!("the gradient is not finite at step {step}"),
        norm.to_string(),
        "lower learning_rate or raise warmup_steps, and start from the last checkpoint",
    ))
}
