//! A GPU as an executor. Passes run one after the other; weights and moments stay on the card.

use std::sync::{Mutex, PoisonError};

use candle_core::{Device, Tensor};

use crate::base::error::{Error, Result};
use crate::base::parallel;
use crate::compute::Compute;
use crate::compute::cpu::{Keep, TokenStats};
use crate::compute::executor::{
    DecodePlan, Decoder, Decoding, Executor, Extract, Forward, StepWork, TokenLogps, check_finite,
};
use crate::compute::gpu::{Gpu, GpuDecoder, GpuPass, Trainer};
use crate::compute::gradients::clip_scale;
use crate::compute::optim::AdamW;
use crate::data::packed::Packed;
use crate::model::Gpt;

/// The maximum number of sequences that are decoded together.
const MAX_BATCH: usize = 256;

/// The executor that runs the passes of [`crate::compute::gpu`].
pub(super) struct GpuExecutor<'m> {
    gpu: Gpu,
    model: &'m Gpt,
    compute: Compute,
    state: State,
}

/// The state on the card.
enum State {
    /// Nothing yet.
    Empty,
    /// Weights for scoring.
    Scoring(Box<GpuPass>),
    /// Weights, gradients and moments of a training.
    Training(Box<Trainer>),
}

impl<'m> GpuExecutor<'m> {
    pub(super) fn new(gpu: Gpu, model: &'m Gpt, compute: &Compute) -> Self {
        Self { gpu, model, compute: compute.clone(), state: State::Empty }
    }

    pub(super) fn for_training(
        gpu: Gpu,
        model: &'m Gpt,
        optimizer: &AdamW,
        compute: &Compute,
    ) -> Result<Self> {
        let state = State::Training(Box::new(Trainer::new(&gpu, model, optimizer, compute)?));
        Ok(Self { gpu, model, compute: compute.clone(), state })
    }

    fn trainer(&mut self) -> Result<&mut Trainer> {
        match &mut self.state {
            State::Training(trainer) => Ok(trainer),
            _ => Err(Error::bug(
                "this executor was not made for training",
                "a training step with weights for scoring",
            )),
        }
    }

    /// Computes the log-probabilities and ends of a pack, without gradients.
    fn forward(&mut self, packed: &Packed) -> Result<Forward> {
        if matches!(self.state, State::Empty) {
            self.state =
                State::Scoring(Box::new(GpuPass::new(&self.gpu, self.model, &self.compute)?));
        }
        let (values, ends) = match &mut self.state {
            State::Scoring(pass) => (pass.forward(packed, Keep::Nothing, None)?, pass.ends()?),
            State::Training(trainer) => (trainer.score(packed)?, trainer.ends()?),
            State::Empty => unreachable!("weights were just copied"),
        };
        Ok(Forward {
            logps: TokenLogps { values, layout: packed.layout().clone() },
            ends,
            stats: None,
        })
    }
}

impl Executor for GpuExecutor<'_> {
    fn score(&mut self, packs: &[Packed], extract: &Extract<'_>) -> Result<Vec<Vec<f32>>> {
        parallel::one_by_one(packs, |packed| extract(&self.forward(packed)?))
    }

    fn logits(&mut self, packs: &[Packed]) -> Result<Vec<Tensor>> {
        let v = self.model.config.vocab_size;
        parallel::one_by_one(packs, |packed| {
            self.forward(packed)?;
            let logits = match &mut self.state {
                State::Scoring(pass) => pass.logits()?,
                State::Training(trainer) => trainer.logits()?,
                State::Empty => unreachable!("a pass has just run"),
            };
            Ok(Tensor::from_vec(logits, (packed.n_targets(), v), &Device::Cpu)?)
        })
    }

    fn decode(
        &mut self,
        plan: &DecodePlan,
        work: &mut dyn FnMut(&dyn Decoding) -> Result<()>,
    ) -> Result<()> {
        let (gpu, compute) = (&self.gpu, &self.compute);
        let bytes = plan.models
            * GpuDecoder::bytes_per_sequence(self.model, plan.length, compute.precision);
        let capacity = ((gpu.memory_mb()?.0 << 20) / (3 * bytes.max(1))).clamp(1, MAX_BATCH);
        let decoder = GpuDecoder::new(
            gpu,
            self.model,
            compute.precision,
            capacity.min(plan.sequences),
            plan.length,
        )?;
        work(&GpuDecoding { decoder: Mutex::new(Some(decoder)), capacity })
    }

    fn gradients(&mut self, work: &dyn StepWork) -> Result<f64> {
        let compute = self.compute.clone();
        let trainer = self.trainer()?;
        loop {
            for pass in 0..work.n_passes() {
                let packed = work.pack(pass)?;
                let mut stats = work.wants_stats().then(TokenStats::default);
                let constant = work.constant_grad(pass, &packed);
                let values =
                    trainer.forward(&packed, &compute, stats.as_mut(), constant.as_deref())?;
                let logps = TokenLogps { values, layout: packed.layout().clone() };
                let upstream =
                    work.upstream(pass, &Forward { logps, ends: trainer.ends()?, stats })?;
                trainer.backward_ends(
                    constant.as_deref().unwrap_or(&upstream.dlogps),
                    &upstream.dends,
                )?;
            }
            let norm = trainer.norm()?;
            if norm.is_finite() || !trainer.try_lower_scale()? {
                return check_finite(norm, work.index());
            }
        }
    }

    fn apply(&mut self, optimizer: &mut AdamW, norm: f64, max_norm: f64, rate: f64) -> Result<()> {
        self.trainer()?.step(optimizer, clip_scale(norm, max_norm), rate)
    }

    fn is_stale(&self) -> bool {
        matches!(&self.state, State::Training(trainer) if trainer.host_is_stale())
    }

    fn sync_weights(&mut self) -> Result<()> {
        let model = self.model;
        match &mut self.state {
            State::Training(trainer) => trainer.sync_weights(model),
            _ => Ok(()),
        }
    }

    fn sync_moments(&mut self, optimizer: &mut AdamW) -> Result<()> {
        match &mut self.state {
            State::Training(trainer) => trainer.sync_moments(optimizer),
            _ => Ok(()),
        }
    }

    fn gpu_memory_mb(&self) -> Result<Option<f64>> {
        Ok(Some((self.gpu.memory_taken()? >> 20) as f64))
    }
}

/// Weights and caches on the card. The one decoder serves one group of sequences after the other.
struct GpuDecoding {
    decoder: Mutex<Option<GpuDecoder>>,
    /// The number of sequences that fit into the cache.
    capacity: usize,
}

impl Decoding for GpuDecoding {
    fn group_size(&self, n: usize) -> usize {
        self.capacity.min(n).max(1)
    }

    fn decoder(&self) -> Result<Box<dyn Decoder + '_>> {
        let mut decoder =
            self.decoder.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or_else(
                || Error::bug("the card has only one decoder at a time", "a second decoder"),
            )?;
        decoder.clear();
        Ok(Box::new(BorrowedDecoder { decoder: Some(decoder), owner: self }))
    }

    fn is_parallel(&self) -> bool {
        false
    }
}

/// The borrowed decoder, which returns to its owner when dropped.
struct BorrowedDecoder<'a> {
    decoder: Option<GpuDecoder>,
    owner: &'a GpuDecoding,
}

impl BorrowedDecoder<'_> {
    fn decoder(&mut self) -> &mut GpuDecoder {
        self.decoder.as_mut().expect("it is returned only when dropped")
    }
}

impl Drop for BorrowedDecoder<'_> {
    fn drop(&mut self) {
        *self.owner.decoder.lock().unwrap_or_else(PoisonError::into_inner) = self.decoder.take();
    }
}

impl Decoder for BorrowedDecoder<'_> {
    /// Reads as many prompts as fit into one pass.
    fn start(&mut self, prompts: &[&[u32]]) -> Result<usize> {
        let decoder = self.decoder();
        let mut n = 0;
        for prompt in prompts {
            if decoder.is_full(prompt.len()) {
                break;
            }
            decoder.push(prompt)?;
            n += 1;
        }
        decoder.read()?;
        Ok(n)
    }

    fn append(&mut self, sequences: &[usize], ids: &[u32]) -> Result<()> {
        self.decoder().append(sequences, ids)
    }

    fn logits(&mut self) -> Result<Vec<f32>> {
        self.decoder().logits()
    }

    fn can_draw(&self) -> bool {
        true
    }

    fn draw(&mut self, uniform: &[f32], temperature: f32) -> Result<Vec<u32>> {
        self.decoder().draw(uniform, temperature)
    }
}
