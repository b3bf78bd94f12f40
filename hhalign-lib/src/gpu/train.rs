//! What a training run keeps on a GPU: weights, gradients and moments. The processor's copies are written back when somebody
//! will look at them.

use super::card::{Arg, Buffer, Launch, download};
use super::pass::{Pass, Sums};
use super::weights::{TILE, Weights};
use super::{Gpu, Storage};
use crate::error::{Error, Result};
use crate::fused::{Compute, Guesses, Keep, Packed};
use crate::model::Gpt;
use crate::optim::AdamW;

/// Blocks of the sum over all gradients.
const NORM_BLOCKS: usize = 1024;
/// Where the scale of f16 gradients begins, and after how many good steps it is doubled: PyTorch's GradScaler.
const FIRST_SCALE: f32 = 65_536.0;
const GROW_EVERY: usize = 2000;

/// A run's tensors on a card.
pub(crate) struct Trainer {
    weights: Weights,
    pass: Pass,
    sums: Sums,
    moments: [Buffer; 2],
    decays: Buffer,
    partial: Buffer,
    /// Gradients are multiplied by it, so that f16 holds small ones; 1 elsewhere.
    scale: f32,
    good_steps: usize,
    weights_ahead: bool,
    moments_ahead: bool,
}

impl Trainer {
    /// Copies a model and its optimiser's moments to the card.
    pub(crate) fn new(gpu: &Gpu, model: &Gpt, optimizer: &AdamW, compute: &Compute) -> Result<Self> {
        let weights = Weights::new(gpu, model, gpu.numbers(compute.precision, compute.tf32)?)?;
        let layout = &weights.layout;
        let moment = |which| {
            let buffer = Buffer::new(&gpu.card, layout.len * 4)?;
            gpu.card.write(buffer.at(), bytemuck::cast_slice(&layout.gather(&optimizer.moments(which)?)?))?;
            Ok::<_, Error>(buffer)
        };
        let moments = [moment(0)?, moment(1)?];
        let decays = layout.decays();
        let decays_there = Buffer::new(&gpu.card, decays.len())?;
        gpu.card.write(decays_there.at(), &decays)?;
        let scale = if weights.numbers.storage == Storage::F16 { FIRST_SCALE } else { 1.0 };
        Ok(Self {
            sums: Sums::new(&weights)?,
            partial: Buffer::new(&gpu.card, NORM_BLOCKS * 8)?,
            decays: decays_there,
            moments,
            pass: Pass::default(),
            weights,
            scale,
            good_steps: 0,
            weights_ahead: false,
            moments_ahead: false,
        })
    }

    /// log π of every target of a pack; with slopes known beforehand, the head's way back as well.
    pub(crate) fn forward(
        &mut self,
        packed: &Packed,
        compute: &Compute,
        guesses: Option<&mut Guesses>,
        known: Option<&[f32]>,
    ) -> Result<Vec<f32>> {
        let known = known.map(|slopes| (slopes, self.scale, &self.sums));
        self.pass.forward(&self.weights, packed, compute.keep(), guesses, known)
    }

    /// Adds this pass's gradients to the step's.
    pub(crate) fn backward(&mut self, slopes: &[f32]) -> Result<()> {
        self.backward_ends(slopes, &[])
    }

    /// The same with a gradient of the [ends](Trainer::ends) as well.
    pub(crate) fn backward_ends(&mut self, slopes: &[f32], d_ends: &[f32]) -> Result<()> {
        self.pass.backward(&self.weights, slopes, d_ends, self.scale, &self.sums)
    }

    /// The last hidden states at the ends of whole replies (E, C), from the forward pass just before.
    pub(crate) fn ends(&self) -> Result<Vec<f32>> {
        self.pass.ends(&self.weights)
    }

    /// The same of a pack that is only looked at.
    pub(crate) fn ends_of(&mut self, packed: &Packed) -> Result<Vec<f32>> {
        self.pass.forward(&self.weights, packed, Keep::Nothing, None, None)?;
        self.ends()
    }

    /// Bytes of the card's memory that are taken.
    pub(crate) fn memory_taken(&self) -> Result<usize> {
        self.weights.card.memory().map(|(free, all)| all - free)
    }

    /// The global norm of the step's gradients.
    pub(crate) fn norm(&self) -> Result<f64> {
        let w = &self.weights;
        let args = [Arg::At(self.partial.at()), Arg::At(self.sums.buffer.at()), Arg::Long(w.layout.len as i64)];
        let launch = Launch { kernel: "square_sums", grid: [NORM_BLOCKS, 1], block: 256, shared: 0, args: &args };
        w.card.launch(w.numbers.storage, &launch)?;
        let squares: Vec<f64> = download(&*w.card, self.partial.at(), NORM_BLOCKS)?;
        Ok(squares.iter().sum::<f64>().sqrt() / f64::from(self.scale))
    }

    /// After gradients that f16 could not hold: whether the step is worth another try, with smaller ones.
    pub(crate) fn try_smaller(&mut self) -> Result<bool> {
        self.weights.card.clear(self.sums.buffer.at(), self.weights.layout.len * 4)?;
        if self.scale <= 1.0 {
            return Ok(false);
        }
        self.scale /= 2.0;
        self.good_steps = 0;
        Ok(true)
    }

    /// The optimiser's step, on gradients multiplied by `clip`; they are zero afterwards.
    pub(crate) fn step(&mut self, optimizer: &mut AdamW, clip: f64, learning_rate: f64) -> Result<()> {
        let w = &self.weights;
        let rule = optimizer.advance(clip / f64::from(self.scale), learning_rate);
        let args = [
            Arg::At(w.values.at()),
            Arg::At(self.moments[0].at()),
            Arg::At(self.moments[1].at()),
            Arg::At(self.sums.buffer.at()),
            Arg::At(w.stored.as_ref().map_or(0, Buffer::at)),
            Arg::At(self.decays.at()),
            Arg::Float(rule.scale),
            Arg::Float(rule.betas[0]),
            Arg::Float(rule.betas[1]),
            Arg::Float(rule.keep),
            Arg::Float(rule.rate),
            Arg::Float(rule.root),
            Arg::Float(rule.epsilon),
        ];
        let grid = [w.layout.len / TILE, 1];
        let launch = Launch { kernel: "adamw", grid, block: TILE as u32 / 4, shared: 0, args: &args };
        w.card.launch(w.numbers.storage, &launch)?;
        (self.weights_ahead, self.moments_ahead) = (true, true);
        self.good_steps += 1;
        if w.numbers.storage == Storage::F16 && self.good_steps.is_multiple_of(GROW_EVERY) {
            self.scale *= 2.0;
        }
        Ok(())
    }

    /// Brings the model on the processor up to date.
    pub(crate) fn write_weights(&mut self, model: &Gpt) -> Result<()> {
        if self.weights_ahead {
            model.assign(&self.weights.download()?)?;
            self.weights_ahead = false;
        }
        Ok(())
    }

    /// Brings the moments on the processor up to date.
    pub(crate) fn write_moments(&mut self, optimizer: &mut AdamW) -> Result<()> {
        if self.moments_ahead {
            let w = &self.weights;
            let read = |i: usize| w.layout.scatter(&download(&*w.card, self.moments[i].at(), w.layout.len)?);
            optimizer.replace_moments(&w.config, &read(0)?, &read(1)?)?;
            self.moments_ahead = false;
        }
        Ok(())
    }
}
