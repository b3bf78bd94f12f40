//! The composed model with automatic differentiation as an executor: the readable version, and the
//! oracle of the fast paths.

use std::collections::BTreeMap;

use candle_core::{D, DType, Device, Tensor};

use crate::base::error::{Error, Result};
use crate::base::parallel;
use crate::base::rng::stream;
use crate::compute::cpu::TokenStats;
use crate::compute::executor::{
    DecodePlan, Decoder, Decoding, Executor, Extract, Forward, StepGradients, StepWork, TokenLogps,
    Upstream,
};
use crate::compute::gradients::{Gradients, clip_scale};
use crate::compute::optim::AdamW;
use crate::data::batch::Batch;
use crate::data::packed::{Packed, TokenLayout};
use crate::model::ops;
use crate::model::ops::Dropout;
use crate::model::{Gpt, KvCache};

/// Computes log π(token | everything before it) of every reply token in the batch.
///
/// Only the N positions that predict a reply token go through the head, so prompts and padding cost
/// no logits.
///
/// # Shapes
/// batch of B sequences with N reply tokens in all -> (N)
///
/// # Errors
/// The batch does not fit the model.
pub fn token_logps(model: &Gpt, batch: &Batch, dropout: &mut Dropout) -> Result<Tensor> {
    logps_of_targets(&reply_logits(model, batch, dropout)?, &batch.targets)
}

/// Computes log softmax of the logits of each reply token at that token.
///
/// # Shapes
/// logits (N, V) -> (N)
pub fn logps_of_targets(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    Ok(ops::log_softmax(logits)?.gather(&targets.unsqueeze(1)?, 1)?.squeeze(1)?)
}

/// Computes the logits that predict each reply token.
///
/// # Shapes
/// batch of B sequences with N reply tokens in all -> (N, V)
///
/// # Errors
/// The batch does not fit the model.
pub fn reply_logits(model: &Gpt, batch: &Batch, dropout: &mut Dropout) -> Result<Tensor> {
    let hidden = model.hidden(&batch.input_ids, dropout)?.reshape(((), model.config.n_embd))?;
    model.head(&hidden.index_select(&batch.predicted_from, 0)?)
}

/// Sums per-token values over each sequence.
///
/// # Shapes
/// (N) -> (S)
pub fn sum_by_sequence(values: &Tensor, layout: &TokenLayout) -> Result<Tensor> {
    let sequence =
        Tensor::from_vec(layout.sequence_of_tokens(), layout.n_tokens(), values.device())?;
    let zeros = Tensor::zeros(layout.n_sequences(), values.dtype(), values.device())?;
    Ok(zeros.index_add(&sequence, values, 0)?)
}

/// Computes log π(reply | prompt) of every sequence: the sum over its reply tokens.
///
/// # Shapes
/// batch of B sequences -> (B)
///
/// # Errors
/// The batch does not fit the model.
pub fn sequence_logps(model: &Gpt, batch: &Batch, dropout: &mut Dropout) -> Result<Tensor> {
    sum_by_sequence(&token_logps(model, batch, dropout)?, &batch.layout)
}

/// Computes statistics of the model's predictions at each reply token.
///
/// # Shapes
/// logits (N, V), targets (N)
pub fn token_stats(logits: &Tensor, targets: &Tensor) -> Result<TokenStats> {
    let logits = logits.detach();
    let right = logits
        .argmax(D::Minus1)?
        .eq(targets)?
        .to_vec1::<u8>()?
        .into_iter()
        .map(|r| r == 1)
        .collect();
    let logp = ops::log_softmax(&logits)?;
    let entropy = (logp.exp()? * &logp)?.sum(D::Minus1)?.neg()?.to_dtype(DType::F32)?.to_vec1()?;
    Ok(TokenStats { right, entropy })
}

/// Dropout in training: its probability and the seed of its stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DropoutPlan {
    pub(crate) probability: f64,
    pub(crate) seed: u64,
}

/// The executor that runs the composed model.
pub(super) struct ComposedExecutor<'m> {
    model: &'m Gpt,
    dropout: DropoutPlan,
    gradients: StepGradients,
    frozen: FrozenCopy,
}

/// A copy of a model without a graph, kept until the weights change.
#[derive(Default)]
pub(super) struct FrozenCopy(Option<Gpt>);

impl FrozenCopy {
    /// Returns the copy, which it makes on the first call.
    pub(super) fn get(&mut self, model: &Gpt) -> Result<&Gpt> {
        if self.0.is_none() {
            self.0 = Some(model.freeze()?);
        }
        Ok(self.0.as_ref().expect("the copy was just made"))
    }

    /// Drops the copy after the weights have changed.
    pub(super) fn clear(&mut self) {
        self.0 = None;
    }
}

impl<'m> ComposedExecutor<'m> {
    pub(super) fn new(model: &'m Gpt, dropout: DropoutPlan) -> Self {
        Self { model, dropout, gradients: StepGradients::default(), frozen: FrozenCopy::default() }
    }

    fn gradients_of(&self, work: &dyn StepWork, pass: usize) -> Result<Gradients> {
        let rng = stream(self.dropout.seed, "dropout", &[work.index() as u64, pass as u64]);
        let packed = work.pack(pass)?;
        let outputs =
            Outputs::new(self.model, &packed, &mut Dropout::new(self.dropout.probability, rng))?;
        let mut upstream = work.upstream(pass, &outputs.forward(&packed, work.wants_stats())?)?;
        if let Some(dlogps) = work.constant_grad(pass, &packed) {
            upstream.dlogps = dlogps;
        }
        let mut gradients = outputs.backward(&upstream)?;
        // Detached, since a gradient with its history would keep the whole pass in memory.
        let named = self.model.named_vars().into_iter();
        let named = named.filter_map(|(name, var)| Some((name, gradients.remove(&var)?.detach())));
        Gradients::from_tensors(&self.model.config, &named.collect::<BTreeMap<_, _>>())
    }
}

impl Executor for ComposedExecutor<'_> {
    fn score(&mut self, packs: &[Packed], extract: &Extract<'_>) -> Result<Vec<Vec<f32>>> {
        // A frozen copy builds no graph, so nothing is kept for a backward pass.
        let frozen = self.frozen.get(self.model)?;
        parallel::map(packs, |packed| {
            extract(&Outputs::new(frozen, packed, &mut Dropout::off())?.forward(packed, false)?)
        })
    }

    fn logits(&mut self, packs: &[Packed]) -> Result<Vec<Tensor>> {
        logits(self.frozen.get(self.model)?, packs)
    }

    fn decode(
        &mut self,
        _plan: &DecodePlan,
        work: &mut dyn FnMut(&dyn Decoding) -> Result<()>,
    ) -> Result<()> {
        work(&ComposedDecoding(self.frozen.get(self.model)?))
    }

    fn gradients(&mut self, work: &dyn StepWork) -> Result<f64> {
        let passes: Vec<usize> = (0..work.n_passes()).collect();
        let mut sum: Option<Gradients> = None;
        parallel::for_each_in_order(
            &passes,
            |pass| self.gradients_of(work, *pass),
            |gradients| match &mut sum {
                Some(sum) => sum.add(&gradients),
                None => sum = Some(gradients),
            },
        )?;
        self.gradients.store(sum, work.index())
    }

    fn apply(&mut self, optimizer: &mut AdamW, norm: f64, max_norm: f64, rate: f64) -> Result<()> {
        let gradients = self.gradients.take();
        self.frozen.clear();
        optimizer.step(self.model, &gradients, clip_scale(norm, max_norm), rate)
    }
}

/// Computes whole rows of logits of every target of each pack, in parallel, with a frozen model.
pub(super) fn logits(frozen: &Gpt, packs: &[Packed]) -> Result<Vec<Tensor>> {
    parallel::map(packs, |packed| {
        Outputs::new(frozen, packed, &mut Dropout::off()).map(|outputs| outputs.logits)
    })
}

/// The composed model's outputs for a pack, with their graph.
struct Outputs {
    /// (N, V)
    logits: Tensor,
    /// (N)
    targets: Tensor,
    /// log π of every target, (N).
    logps: Tensor,
    /// The last hidden states at the ends of whole replies, (E, C).
    ends: Option<Tensor>,
}

impl Outputs {
    fn new(model: &Gpt, packed: &Packed, dropout: &mut Dropout) -> Result<Self> {
        packed.check(model.config.vocab_size, model.config.block_size)?;
        let sequences: Vec<(&[u32], &[u32])> =
            packed.sequences().map(|s| (s.prompt, s.reply)).collect();
        // Padding may be any id: no loss reads it, and causality hides it from the other tokens.
        let batch = Batch::new(&sequences, 0)?;
        let device = batch.input_ids.device();
        let t = batch.input_ids.dim(1)?;
        let hidden = model.hidden(&batch.input_ids, dropout)?.reshape(((), model.config.n_embd))?;
        let predicted: Vec<bool> = packed.sequences().map(|s| s.is_predicted).collect();
        let (from, targets) = if predicted.iter().all(|p| *p) {
            (batch.predicted_from, batch.targets)
        } else {
            let owner = batch.layout.sequence_of_tokens();
            let chosen = |values: Vec<u32>| -> Vec<u32> {
                values
                    .into_iter()
                    .zip(&owner)
                    .filter(|(_, s)| predicted[**s as usize])
                    .map(|(x, _)| x)
                    .collect()
            };
            let (from, targets) =
                (chosen(batch.predicted_from.to_vec1()?), chosen(batch.targets.to_vec1()?));
            let n = from.len();
            (Tensor::from_vec(from, n, device)?, Tensor::from_vec(targets, n, device)?)
        };
        let (logits, logps) = if targets.elem_count() == 0 {
            let none = |shape: &[usize]| Tensor::zeros(shape, hidden.dtype(), device);
            (none(&[0, model.config.vocab_size])?, none(&[0])?)
        } else {
            let logits = model.head(&hidden.index_select(&from, 0)?)?;
            let logps = logps_of_targets(&logits, &targets)?;
            (logits, logps)
        };
        let ends = if packed.n_ends() == 0 {
            None
        } else {
            let last = |(i, (prompt, reply)): (usize, &(&[u32], &[u32]))| {
                (i * t + prompt.len() + reply.len() - 1) as u32
            };
            let rows: Vec<u32> = sequences.iter().enumerate().map(last).collect();
            Some(hidden.index_select(&Tensor::new(rows, device)?, 0)?)
        };
        Ok(Self { logits, targets, logps, ends })
    }

    fn forward(&self, packed: &Packed, stats: bool) -> Result<Forward> {
        let plain = |tensor: &Tensor| -> Result<Vec<f32>> {
            Ok(tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?)
        };
        Ok(Forward {
            logps: TokenLogps { values: plain(&self.logps)?, layout: packed.layout().clone() },
            ends: self.ends.as_ref().map(plain).transpose()?.unwrap_or_default(),
            stats: if stats { Some(token_stats(&self.logits, &self.targets)?) } else { None },
        })
    }

    /// Computes the gradients of Σ dlogps · log π + Σ dends · ends.
    fn backward(&self, upstream: &Upstream) -> Result<candle_core::backprop::GradStore> {
        let weighted = |values: &Tensor, gradient: &[f32]| -> Result<Tensor> {
            let gradient = Tensor::from_slice(gradient, values.shape(), values.device())?
                .to_dtype(values.dtype())?;
            Ok((values * gradient)?.sum_all()?)
        };
        let of_logps = (!upstream.dlogps.is_empty())
            .then(|| weighted(&self.logps, &upstream.dlogps))
            .transpose()?;
        let of_ends = match &self.ends {
            Some(ends) if !upstream.dends.is_empty() => Some(weighted(ends, &upstream.dends)?),
            _ => None,
        };
        let sum = match (of_logps, of_ends) {
            (Some(logps), Some(ends)) => (logps + ends)?,
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => {
                return Err(Error::bug("a pass without a gradient", "no target and no end"));
            }
        };
        Ok(sum.backward()?)
    }
}

/// Weights for decoding.
struct ComposedDecoding<'a>(&'a Gpt);

impl Decoding for ComposedDecoding<'_> {
    fn group_size(&self, n: usize) -> usize {
        super::groups::group_size(n)
    }

    fn decoder(&self) -> Result<Box<dyn Decoder + '_>> {
        Ok(Box::new(ComposedDecoder { model: self.0, sequences: vec![], logits: vec![] }))
    }
}

/// A decoder with a separate cache for each sequence.
struct ComposedDecoder<'a> {
    model: &'a Gpt,
    sequences: Vec<KvCache>,
    logits: Vec<f32>,
}

impl ComposedDecoder<'_> {
    /// Appends tokens to a sequence and returns the logits after the last one, (V).
    fn read(&mut self, sequence: usize, ids: &[u32]) -> Result<Vec<f32>> {
        let input = Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?;
        let hidden = self.model.hidden_cached(&input, &mut self.sequences[sequence])?;
        let last = hidden.narrow(1, ids.len() - 1, 1)?;
        Ok(self.model.head(&last)?.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?)
    }
}

impl Decoder for ComposedDecoder<'_> {
    fn start(&mut self, prompts: &[&[u32]]) -> Result<usize> {
        self.sequences.push(KvCache::new(self.model));
        self.logits = self.read(self.sequences.len() - 1, prompts[0])?;
        Ok(1)
    }

    fn append(&mut self, sequences: &[usize], ids: &[u32]) -> Result<()> {
        let rows = sequences.iter().zip(ids).map(|(&sequence, &id)| self.read(sequence, &[id]));
        self.logits = rows.collect::<Result<Vec<_>>>()?.concat();
        Ok(())
    }

    fn logits(&mut self) -> Result<Vec<f32>> {
        Ok(self.logits.clone())
    }
}
