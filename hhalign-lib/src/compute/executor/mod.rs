//! Executors run forward and backward passes of a model. There are three: the composed model (with
//! automatic differentiation), the CPU's fast path, and the GPU's.
//!
//! [`for_model`] and [`for_training`] choose one from [`Compute`], once per run; no other code
//! chooses a device. All three give the same log-probabilities, gradients and replies up to
//! rounding: the tests compare the fast paths with the composed model.
//!
//! Read the traits here first ([`StepWork`], [`Executor`], [`Decoding`], [`Decoder`]), then
//! `composed`, `cpu` and `gpu`, which implement them in the same order. `groups` sets how many
//! sequences a thread decodes together.

pub(crate) mod composed;
mod cpu;
mod gpu;
mod groups;
#[cfg(test)]
mod tests;

use candle_core::{Device, Tensor, Var};

use self::composed::ComposedExecutor;
pub(crate) use self::composed::DropoutPlan;
use self::cpu::CpuExecutor;
use self::gpu::GpuExecutor;
use crate::base::error::{Error, Result};
use crate::compute::Compute;
use crate::compute::cpu::TokenStats;
use crate::compute::gradients::Gradients;
use crate::compute::optim::AdamW;
use crate::data::packed::{Packed, TokenLayout};
use crate::model::Gpt;

/// Log-probabilities per token, as numbers or as a tensor that carries gradients, and the sequence
/// that each token belongs to.
#[derive(Debug, Clone)]
pub(crate) struct TokenLogps<T> {
    /// log π of every reply token, (N).
    pub(crate) values: T,
    /// The sequence of each token.
    pub(crate) layout: TokenLayout,
}

impl TokenLogps<Vec<f32>> {
    /// Sums log π over each sequence, (S).
    pub(crate) fn by_sequence(&self) -> Vec<f32> {
        self.layout.sums(&self.values)
    }

    /// Returns the log-probabilities as the leaf of a new graph, on which the public loss functions
    /// compute the loss.
    pub(crate) fn leaf(&self) -> Result<(Var, TokenLogps<Tensor>)> {
        let leaf = Var::from_slice(&self.values, self.values.len(), &Device::Cpu)?;
        let values = leaf.as_tensor().clone();
        Ok((leaf, TokenLogps { values, layout: self.layout.clone() }))
    }
}

impl TokenLogps<Tensor> {
    /// Sums log π over each sequence, (S), and keeps the gradient.
    pub(crate) fn by_sequence(&self) -> Result<Tensor> {
        composed::sum_by_sequence(&self.values, &self.layout)
    }
}

/// The result of a forward pass.
pub(crate) struct Forward {
    /// log π of every target.
    pub(crate) logps: TokenLogps<Vec<f32>>,
    /// The hidden states of the last layer at the last token of each whole reply, (E, C).
    pub(crate) ends: Vec<f32>,
    /// Statistics of the model's predictions, if requested.
    pub(crate) stats: Option<TokenStats>,
}

/// The gradient of a loss with respect to the result of a forward pass.
#[derive(Debug, Default)]
pub(crate) struct Upstream {
    /// The gradient of every log π, (N).
    pub(crate) dlogps: Vec<f32>,
    /// The gradient of the ends, (E, C); empty means zeros.
    pub(crate) dends: Vec<f32>,
}

/// A function that extracts the values to keep from a forward pass.
pub(crate) type Extract<'a> = dyn Fn(&Forward) -> Result<Vec<f32>> + Sync + 'a;

/// The passes of one optimiser step, and the loss between the forward and backward pass of each.
pub(crate) trait StepWork: Sync {
    /// Returns the index of the step, which seeds dropout.
    fn index(&self) -> usize;
    /// Returns the number of passes of the step. Each pass takes some of the step's pairs.
    fn n_passes(&self) -> usize;
    /// Returns the tokens of a pass.
    fn pack(&self, pass: usize) -> Result<Packed>;
    /// Returns whether the step needs [`Forward::stats`].
    fn wants_stats(&self) -> bool;
    /// Returns the gradient with respect to each log π, (N), if it does not depend on the values of
    /// log π. The head's backward pass then runs with the forward pass, which saves recomputing the
    /// logits.
    fn constant_grad(&self, pass: usize, packed: &Packed) -> Option<Vec<f32>>;
    /// Returns the upstream gradient of a pass. After an overflow in f16, a pass is repeated and
    /// this is called again.
    fn upstream(&self, pass: usize, forward: &Forward) -> Result<Upstream>;
}

/// The size of the caches for sequences that are decoded together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DecodePlan {
    /// The number of sequences.
    pub(crate) sequences: usize,
    /// The length of the longest sequence, prompt and reply, in tokens.
    pub(crate) length: usize,
    /// The number of models that decode together and share the memory.
    pub(crate) models: usize,
}

/// An executor: it runs passes over the weights of one model.
pub(crate) trait Executor {
    /// Runs forward passes without gradients. Returns, for each pack, the values that `extract`
    /// takes from its forward pass.
    fn score(&mut self, packs: &[Packed], extract: &Extract<'_>) -> Result<Vec<Vec<f32>>>;

    /// Returns the logits over the whole vocabulary for every target: (N, V) for each pack.
    fn logits(&mut self, packs: &[Packed]) -> Result<Vec<Tensor>>;

    /// Lends the weights to `work` in the layout for decoding.
    fn decode(
        &mut self,
        plan: &DecodePlan,
        work: &mut dyn FnMut(&dyn Decoding) -> Result<()>,
    ) -> Result<()>;

    /// Computes the gradients of a step and keeps them. Returns their norm.
    fn gradients(&mut self, work: &dyn StepWork) -> Result<f64>;

    /// Takes an optimiser step with the gradients that [`Executor::gradients`] stored, clipped to
    /// `max_norm`.
    fn apply(&mut self, optimizer: &mut AdamW, norm: f64, max_norm: f64, rate: f64) -> Result<()>;

    /// Returns whether the host's model is older than the executor's weights.
    fn is_stale(&self) -> bool {
        false
    }

    /// Copies the weights to the host's model if it is stale.
    fn sync_weights(&mut self) -> Result<()> {
        Ok(())
    }

    /// Copies the moments to the host's optimiser if it is stale.
    fn sync_moments(&mut self, _optimizer: &mut AdamW) -> Result<()> {
        Ok(())
    }

    /// Returns the GPU memory in use by all processes, in MB.
    fn gpu_memory_mb(&self) -> Result<Option<f64>> {
        Ok(None)
    }
}

/// Weights in the layout for decoding.
pub(crate) trait Decoding: Sync {
    /// Returns the number of sequences, out of `n`, that one decoder takes together.
    fn group_size(&self, n: usize) -> usize;

    /// Makes a decoder without sequences.
    fn decoder(&self) -> Result<Box<dyn Decoder + '_>>;

    /// Returns whether groups of sequences run in parallel, each with its own decoder.
    fn is_parallel(&self) -> bool {
        true
    }
}

/// A decoder of sequences, token by token. Sequences are numbered from 0.
pub(crate) trait Decoder {
    /// Reads prompts from the start of the list, as many as one pass takes, each as a new sequence.
    /// Returns the number of prompts read, at least one.
    fn start(&mut self, prompts: &[&[u32]]) -> Result<usize>;

    /// Appends one token to each of the given sequences: `ids[i]` to `sequences[i]`.
    fn append(&mut self, sequences: &[usize], ids: &[u32]) -> Result<()>;

    /// Returns the logits after the last tokens that were read, (B, V).
    fn logits(&mut self) -> Result<Vec<f32>>;

    /// Returns whether [`Decoder::draw`] is supported, which draws on the device without copying
    /// the logits.
    fn can_draw(&self) -> bool {
        false
    }

    /// Draws a token for each sequence that was just read. `uniform` has the quantile of each token
    /// in [0, 1). At temperature 0 it takes the likeliest token.
    fn draw(&mut self, _uniform: &[f32], _temperature: f32) -> Result<Vec<u32>> {
        Err(Error::bug("this decoder does not draw", "draw without can_draw()"))
    }
}

/// Returns the executor that `compute` selects for scoring and decoding with `model`.
pub(crate) fn for_model<'m>(compute: &Compute, model: &'m Gpt) -> Result<Box<dyn Executor + 'm>> {
    if compute.composed {
        return Ok(Box::new(ComposedExecutor::new(
            model,
            DropoutPlan { probability: 0.0, seed: 0 },
        )));
    }
    Ok(match compute.gpu()? {
        Some(gpu) => Box::new(GpuExecutor::new(gpu, model, compute)),
        None => Box::new(CpuExecutor::new(model, compute)),
    })
}

/// Returns the executor that `compute` selects for training `model`. Only the composed model
/// supports dropout.
pub(crate) fn for_training<'m>(
    compute: &Compute,
    model: &'m Gpt,
    optimizer: &AdamW,
    dropout: DropoutPlan,
) -> Result<Box<dyn Executor + 'm>> {
    if compute.composed || dropout.probability > 0.0 {
        return Ok(Box::new(ComposedExecutor::new(model, dropout)));
    }
    Ok(match compute.gpu()? {
        Some(gpu) => Box::new(GpuExecutor::for_training(gpu, model, optimizer, compute)?),
        None => Box::new(CpuExecutor::new(model, compute)),
    })
}

/// Returns a separate executor for evaluation during training with dropout; `None` if the
/// training's executor also evaluates.
pub(crate) fn for_evaluation<'m>(
    compute: &Compute,
    model: &'m Gpt,
    dropout: f64,
) -> Result<Option<Box<dyn Executor + 'm>>> {
    if dropout > 0.0 && !compute.composed { for_model(compute, model).map(Some) } else { Ok(None) }
}

impl Compute {
    /// Returns whether passes run on a GPU.
    ///
    /// # Errors
    /// A GPU was selected by its number, here or in `HHALIGN_DEVICE`, and cannot be used.
    pub fn is_on_gpu(&self) -> Result<bool> {
        Ok(self.gpu()?.is_some())
    }
}

/// The gradients of a step, between its passes and the optimiser's step.
#[derive(Default)]
struct StepGradients(Option<Box<Gradients>>);

impl StepGradients {
    /// Stores the sum over the passes of a step. Returns its norm.
    fn store(&mut self, sum: Option<Gradients>, step: usize) -> Result<f64> {
        let sum = sum.expect("a step has a pass");
        let norm = check_finite(sum.norm()?, step)?;
        self.0 = Some(Box::new(sum));
        Ok(norm)
    }

    fn take(&mut self) -> Box<Gradients> {
        self.0.take().expect("gradients come before their step")
    }
}

fn check_finite(norm: f64, step: usize) -> Result<f64> {
    if norm.is_finite() {
        return Ok(norm);
    }
    Err(Error::numeric(
        format!("the gradient is not finite at step {step}"),
        norm.to_string(),
        "lower learning_rate or raise warmup_steps, and start from the last checkpoint",
    ))
}
