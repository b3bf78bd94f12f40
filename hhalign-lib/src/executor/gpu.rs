//! A GPU as an executor: pass after pass, with weights and moments that stay on the card.

use std::sync::{Mutex, PoisonError};

use candle_core::{Device, Tensor};

use super::{DecodePlan, Decoder, Decoding, Executor, Forward, Read, StepWork, TokenLogps, finite};
use crate::error::{Error, Result};
use crate::fused::{Compute, Keep, Packed, TokenStats};
use crate::gpu::{Gpu, GpuDecoder, GpuPass, Trainer};
use crate::gradients::clip_scale;
use crate::model::Gpt;
use crate::optim::AdamW;
use crate::parallel;

/// Sequences that are decoded together at most.
const MAX_BATCH: usize = 256;

/// Runs the passes of [`crate::gpu`].
pub(super) struct OnGpu<'m> {
    gpu: Gpu,
    model: &'m Gpt,
    compute: Compute,
    state: State,
}

/// What is on the card.
enum State {
    /// Nothing yet.
    Empty,
    /// Weights to score with.
    Scoring(Box<GpuPass>),
    /// Weights, gradients and moments of a training.
    Training(Box<Trainer>),
}

impl<'m> OnGpu<'m> {
    pub(super) fn new(gpu: Gpu, model: &'m Gpt, compute: &Compute) -> Self {
        Self { gpu, model, compute: compute.clone(), state: State::Empty }
    }

    pub(super) fn for_training(gpu: Gpu, model: &'m Gpt, optimizer: &AdamW, compute: &Compute) -> Result<Self> {
        let state = State::Training(Box::new(Trainer::new(&gpu, model, optimizer, compute)?));
        Ok(Self { gpu, model, compute: compute.clone(), state })
    }

    fn trainer(&mut self) -> Result<&mut Trainer> {
        match &mut self.state {
            State::Training(trainer) => Ok(trainer),
            _ => Err(Error::new(
                "this executor was not made for training",
                "a step on weights that are scored",
                "this is a bug: please report it",
            )),
        }
    }

    /// Log-probabilities and ends of a pack, without gradients.
    fn forward(&mut self, packed: &Packed) -> Result<Forward> {
        if matches!(self.state, State::Empty) {
            self.state = State::Scoring(Box::new(GpuPass::new(&self.gpu, self.model, &self.compute)?));
        }
        let (values, ends) = match &mut self.state {
            State::Scoring(pass) => (pass.forward(packed, Keep::Nothing, None)?, pass.ends()?),
            State::Training(trainer) => (trainer.score(packed)?, trainer.ends()?),
            State::Empty => unreachable!("weights were just copied"),
        };
        Ok(Forward { logps: TokenLogps { values, layout: packed.layout().clone() }, ends, stats: None })
    }
}

impl Executor for OnGpu<'_> {
    fn score(&mut self, packs: &[Packed], read: &Read<'_>) -> Result<Vec<Vec<f32>>> {
        parallel::one_by_one(packs, |packed| read(&self.forward(packed)?))
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

    fn decode(&mut self, plan: &DecodePlan, work: &mut dyn FnMut(&dyn Decoding) -> Result<()>) -> Result<()> {
        let (gpu, compute) = (&self.gpu, &self.compute);
        let each = plan.models * GpuDecoder::bytes_per_sequence(self.model, plan.length, compute.precision);
        let room = ((gpu.memory_mb()?.0 << 20) / (3 * each.max(1))).clamp(1, MAX_BATCH);
        let decoder = GpuDecoder::new(gpu, self.model, compute.precision, room.min(plan.sequences), plan.length)?;
        work(&Loaded { decoder: Mutex::new(Some(decoder)), room })
    }

    fn gradients(&mut self, work: &dyn StepWork) -> Result<f64> {
        let compute = self.compute.clone();
        let trainer = self.trainer()?;
        loop {
            for pass in 0..work.n_passes() {
                let packed = work.pack(pass)?;
                let mut stats = work.wants_stats().then(TokenStats::default);
                let constant = work.constant_grad(pass, &packed);
                let values = trainer.forward(&packed, &compute, stats.as_mut(), constant.as_deref())?;
                let logps = TokenLogps { values, layout: packed.layout().clone() };
                let upstream = work.upstream(pass, &Forward { logps, ends: trainer.ends()?, stats })?;
                trainer.backward_ends(constant.as_deref().unwrap_or(&upstream.dlogps), &upstream.dends)?;
            }
            let norm = trainer.norm()?;
            if norm.is_finite() || !trainer.try_smaller()? {
                return finite(norm, work.number());
            }
        }
    }

    fn apply(&mut self, optimizer: &mut AdamW, norm: f64, max_norm: f64, rate: f64) -> Result<()> {
        self.trainer()?.step(optimizer, clip_scale(norm, max_norm), rate)
    }

    fn is_stale(&self) -> bool {
        matches!(&self.state, State::Training(trainer) if trainer.is_ahead())
    }

    fn sync_weights(&mut self) -> Result<()> {
        let model = self.model;
        match &mut self.state {
            State::Training(trainer) => trainer.write_weights(model),
            _ => Ok(()),
        }
    }

    fn sync_moments(&mut self, optimizer: &mut AdamW) -> Result<()> {
        match &mut self.state {
            State::Training(trainer) => trainer.write_moments(optimizer),
            _ => Ok(()),
        }
    }

    fn gpu_memory_mb(&self) -> Result<Option<f64>> {
        Ok(Some((self.gpu.memory_taken()? >> 20) as f64))
    }
}

/// Weights and caches on the card: one decoder, which serves one group of sequences after the other.
struct Loaded {
    decoder: Mutex<Option<GpuDecoder>>,
    /// Sequences that there is room for.
    room: usize,
}

impl Decoding for Loaded {
    fn at_once(&self, n: usize) -> usize {
        self.room.min(n).max(1)
    }

    fn decoder(&self) -> Result<Box<dyn Decoder + '_>> {
        let mut decoder = self.decoder.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or_else(|| {
            Error::new("one decoder at a time is on the card", "a second one", "this is a bug: please report it")
        })?;
        decoder.clear();
        Ok(Box::new(Borrowed { decoder: Some(decoder), home: self }))
    }

    fn side_by_side(&self) -> bool {
        false
    }
}

/// The decoder on loan; it goes back when dropped.
struct Borrowed<'a> {
    decoder: Option<GpuDecoder>,
    home: &'a Loaded,
}

impl Borrowed<'_> {
    fn decoder(&mut self) -> &mut GpuDecoder {
        self.decoder.as_mut().expect("it is given back at the end only")
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        *self.home.decoder.lock().unwrap_or_else(PoisonError::into_inner) = self.decoder.take();
    }
}

impl Decoder for Borrowed<'_> {
    /// Prompts are read in whole packs.
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

    fn draws(&self) -> bool {
        true
    }

    fn draw(&mut self, uniform: &[f32], temperature: f32) -> Result<Vec<u32>> {
        self.decoder().draw(uniform, temperature)
    }
}
