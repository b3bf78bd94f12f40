//! The state of a training run on a GPU: weights, gradients and moments. The host's copies are
//! updated before they are read.

use crate::base::error::{Error, Result};
use crate::compute::Compute;
use crate::compute::cpu::{Keep, TokenStats};
use crate::compute::gpu::card::{Buffer, download};
use crate::compute::gpu::kernels::optim::{Adamw, SQUARE_SUMS, SquareSums, TILE};
use crate::compute::gpu::pass::{GpuGradients, Pass, Upstream};
use crate::compute::gpu::weights::Weights;
use crate::compute::gpu::{Gpu, Storage};
use crate::compute::optim::AdamW;
use crate::data::packed::Packed;
use crate::model::Gpt;

/// The initial scale of f16 gradients, as in PyTorch's GradScaler.
const INITIAL_SCALE: f32 = 65_536.0;
/// The number of good steps after which the scale doubles, as in PyTorch's GradScaler.
const GROWTH_INTERVAL: usize = 2000;

/// The tensors of a run on a card.
pub(crate) struct Trainer {
    weights: Weights,
    pass: Pass,
    gradients: GpuGradients,
    moments: [Buffer; 2],
    decays: Buffer,
    partial: Buffer,
    /// The factor of gradients, so that small ones do not underflow in f16; 1 in other dtypes.
    scale: f32,
    good_steps: usize,
    /// Whether the host's weights are older than the card's.
    weights_are_stale: bool,
    /// Whether the host's moments are older than the card's.
    moments_are_stale: bool,
}

impl Trainer {
    /// Copies a model and its optimiser's moments to the card.
    pub(crate) fn new(
        gpu: &Gpu,
        model: &Gpt,
        optimizer: &AdamW,
        compute: &Compute,
    ) -> Result<Self> {
        let weights = Weights::new(gpu, model, gpu.dtypes(compute.precision, compute.tf32)?)?;
        let layout = &weights.layout;
        let moment = |tensors| {
            let buffer = Buffer::new(&gpu.card, layout.len * 4)?;
            gpu.card.write(buffer.address(), bytemuck::cast_slice(&layout.flatten(&tensors)?))?;
            Ok::<_, Error>(buffer)
        };
        let moments = [moment(optimizer.first_moments()?)?, moment(optimizer.second_moments()?)?];
        let decays = layout.decays();
        let decays_on_card = Buffer::new(&gpu.card, decays.len())?;
        gpu.card.write(decays_on_card.address(), &decays)?;
        let scale = if weights.dtypes.storage == Storage::F16 { INITIAL_SCALE } else { 1.0 };
        Ok(Self {
            gradients: GpuGradients::zeros(&weights)?,
            partial: Buffer::new(&gpu.card, SQUARE_SUMS * 8)?,
            decays: decays_on_card,
            moments,
            pass: Pass::default(),
            weights,
            scale,
            good_steps: 0,
            weights_are_stale: false,
            moments_are_stale: false,
        })
    }

    /// Computes log π of every target of a pack, (N). `constant_grad` is the upstream gradient (N)
    /// if it does not depend on log π; the head's backward pass then runs as well.
    pub(crate) fn forward(
        &mut self,
        packed: &Packed,
        compute: &Compute,
        stats: Option<&mut TokenStats>,
        constant_grad: Option<&[f32]>,
    ) -> Result<Vec<f32>> {
        let (scale, gradients) = (self.scale, &self.gradients);
        let upstream =
            constant_grad.map(|dlogps| Upstream { dlogps, dends: &[], scale, gradients });
        self.pass.forward(&self.weights, packed, compute.keep(), stats, upstream)
    }

    /// Adds the gradients of the pass to those of the step, from upstream gradients dlogps (N) and
    /// dends (E, C). An empty `dends` means zeros.
    pub(crate) fn backward_ends(&mut self, dlogps: &[f32], dends: &[f32]) -> Result<()> {
        let upstream = Upstream { dlogps, dends, scale: self.scale, gradients: &self.gradients };
        self.pass.backward(&self.weights, upstream)
    }

    /// Returns the last hidden states at the ends of whole replies (E, C), from the preceding
    /// forward pass.
    pub(crate) fn ends(&self) -> Result<Vec<f32>> {
        self.pass.ends(&self.weights)
    }

    /// Computes log π of every target of a pack, (N), without a backward pass.
    pub(crate) fn score(&mut self, packed: &Packed) -> Result<Vec<f32>> {
        self.pass.forward(&self.weights, packed, Keep::Nothing, None, None)
    }

    /// Returns whole rows of logits of the targets of the pack just scored, (N, V).
    pub(crate) fn logits(&mut self) -> Result<Vec<f32>> {
        self.pass.target_logits(&self.weights)
    }

    /// Returns whether the host's weights or moments are older than the card's.
    pub(crate) fn host_is_stale(&self) -> bool {
        self.weights_are_stale || self.moments_are_stale
    }

    /// Computes the global norm of the step's gradients.
    pub(crate) fn norm(&self) -> Result<f64> {
        let w = &self.weights;
        let (partial, gradients) = (self.partial.address(), self.gradients.buffer.address());
        w.launch(&SquareSums { partial, gradients, n: w.layout.len as i64 })?;
        let squares: Vec<f64> = download(&*w.card, self.partial.address(), SQUARE_SUMS)?;
        Ok(squares.iter().sum::<f64>().sqrt() / f64::from(self.scale))
    }

    /// Clears gradients that overflowed in f16 and halves the scale. Returns false if the scale
    /// cannot be lowered.
    pub(crate) fn try_lower_scale(&mut self) -> Result<bool> {
        self.weights.card.clear(self.gradients.buffer.address(), self.weights.layout.len * 4)?;
        if self.scale <= 1.0 {
            return Ok(false);
        }
        self.scale /= 2.0;
        self.good_steps = 0;
        Ok(true)
    }

    /// Takes the optimiser's step on gradients multiplied by `clip`, and clears the gradients.
    pub(crate) fn step(
        &mut self,
        optimizer: &mut AdamW,
        clip: f64,
        learning_rate: f64,
    ) -> Result<()> {
        let w = &self.weights;
        let step = optimizer.advance(clip / f64::from(self.scale), learning_rate);
        w.launch(&Adamw {
            weights: w.values.address(),
            first: self.moments[0].address(),
            second: self.moments[1].address(),
            gradients: self.gradients.buffer.address(),
            stored: w.stored.as_ref().map_or(0, Buffer::address),
            decays: self.decays.address(),
            scale: step.scale,
            beta1: step.betas[0],
            beta2: step.betas[1],
            decay_factor: step.decay_factor,
            step_size: step.step_size,
            inv_sqrt_correction2: step.inv_sqrt_correction2,
            epsilon: step.epsilon,
            n_tiles: w.layout.len / TILE,
        })?;
        (self.weights_are_stale, self.moments_are_stale) = (true, true);
        self.good_steps += 1;
        if w.dtypes.storage == Storage::F16 && self.good_steps.is_multiple_of(GROWTH_INTERVAL) {
            self.scale *= 2.0;
        }
        Ok(())
    }

    /// Updates the host's model if it is stale.
    pub(crate) fn sync_weights(&mut self, model: &Gpt) -> Result<()> {
        if self.weights_are_stale {
            model.assign(&self.weights.download()?)?;
            self.weights_are_stale = false;
        }
        Ok(())
    }

    /// Updates the host's moments if they are stale.
    pub(crate) fn sync_moments(&mut self, optimizer: &mut AdamW) -> Result<()> {
        if self.moments_are_stale {
            let w = &self.weights;
            let read = |i: usize| {
                w.layout.unflatten(&download(&*w.card, self.moments[i].address(), w.layout.len)?)
            };
            optimizer.replace_moments(&w.config, &read(0)?, &read(1)?)?;
            self.moments_are_stale = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::optim::AdamWConfig;
    use crate::model::GptConfig;

    /// A scale that is a power of two changes only exponents, so this shows that every upstream
    /// gradient is multiplied by it.
    #[test]
    fn the_scale_multiplies_every_gradient_to_the_bit() {
        if std::process::Command::new(std::env::var("CXX").unwrap_or("c++".into()))
            .arg("--version")
            .output()
            .is_err()
        {
            println!("skipped: an emulated GPU needs a C++ compiler");
            return;
        }
        let config = GptConfig {
            vocab_size: 40,
            block_size: 16,
            n_layer: 1,
            n_head: 2,
            n_embd: 16,
            dropout: 0.0,
            layer_norm_epsilon: 1e-5,
        };
        let model = Gpt::new(config, 3).unwrap();
        let (gpu, optimizer) =
            (Gpu::emulated(64), AdamW::new(AdamWConfig::default(), &model.config));
        let mut packed = Packed::default();
        packed.push_whole(&[1, 2, 3], &[&[4, 5], &[6, 7, 8]], 1).unwrap();
        let dends: Vec<f32> = (0..2 * 16).map(|i| i as f32 / 32.0 - 0.4).collect();
        let gradients = |scale: f32, dlogps: &[f32], dends: &[f32], is_constant: bool| {
            let compute = Compute::default();
            let mut trainer = Trainer::new(&gpu, &model, &optimizer, &compute).unwrap();
            trainer.scale = scale;
            trainer.forward(&packed, &compute, None, is_constant.then_some(dlogps)).unwrap();
            trainer.backward_ends(dlogps, dends).unwrap();
            let (w, buffer) = (&trainer.weights, &trainer.gradients.buffer);
            download::<f32>(&*w.card, buffer.address(), w.layout.len).unwrap()
        };
        for (dlogps, dends) in
            [([0.3, -0.2], &vec![][..]), ([0.0; 2], &dends), ([0.3, -0.2], &dends)]
        {
            for is_constant in [false, true] {
                let plain = gradients(1.0, &dlogps, dends, is_constant);
                assert!(plain.iter().any(|g| *g != 0.0));
                let scaled: Vec<f32> = plain.iter().map(|g| g * 64.0).collect();
                assert_eq!(
                    gradients(64.0, &dlogps, dends, is_constant),
                    scaled,
                    "{dlogps:?}, constant {is_constant}"
                );
            }
        }
    }
}
