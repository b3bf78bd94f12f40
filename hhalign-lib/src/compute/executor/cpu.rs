//! The CPU's fast path as an executor. The passes of a step run in parallel, one on each core.

use candle_core::Tensor;

use super::groups::group_size;
use crate::base::error::Result;
use crate::base::parallel;
use crate::base::parallel::Pool;
use crate::compute::cpu::{Keep, Purpose, TokenStats, Weights, Workspace, with_weights};
use crate::compute::executor::composed::FrozenCopy;
use crate::compute::executor::{
    DecodePlan, Decoder, Decoding, Executor, Extract, Forward, StepGradients, StepWork, TokenLogps,
    composed,
};
use crate::compute::gradients::{Gradients, clip_scale};
use crate::compute::optim::AdamW;
use crate::compute::{Compute, Precision, cpu};
use crate::data::packed::Packed;
use crate::model::{Gpt, GptConfig};

/// The executor that runs the passes of [`crate::compute::cpu`].
pub(super) struct CpuExecutor<'m> {
    model: &'m Gpt,
    compute: Compute,
    scratch: Scratch,
    gradients: StepGradients,
    frozen: FrozenCopy,
}

/// Memory that is kept from step to step, since the system would have to clear fresh memory first.
#[derive(Default)]
struct Scratch {
    workspaces: Pool<Workspace>,
    gradients: Pool<Gradients>,
}

impl Scratch {
    fn zeros(&self, config: &GptConfig) -> Gradients {
        let mut gradients = self.gradients.take().unwrap_or_else(|| Gradients::zeros(config));
        gradients.clear();
        gradients
    }
}

impl<'m> CpuExecutor<'m> {
    pub(super) fn new(model: &'m Gpt, compute: &Compute) -> Self {
        Self {
            model,
            compute: compute.clone(),
            scratch: Scratch::default(),
            gradients: StepGradients::default(),
            frozen: FrozenCopy::default(),
        }
    }

    fn pass(&self, weights: &Weights<'_>, work: &dyn StepWork, pass: usize) -> Result<Gradients> {
        let packed = work.pack(pass)?;
        let mut stats = work.wants_stats().then(TokenStats::default);
        let mut gradients = self.scratch.zeros(weights.config());
        self.scratch.workspaces.with(|workspace| {
            let (keep, constant) = (self.compute.keep(), work.constant_grad(pass, &packed));
            let logps = match &constant {
                Some(dlogps) => workspace.forward_constant_grad(
                    weights,
                    &packed,
                    keep,
                    stats.as_mut(),
                    dlogps,
                    &mut gradients,
                )?,
                None => workspace.forward(weights, &packed, keep, stats.as_mut())?,
            };
            let forward = forward(workspace, weights, &packed, logps, stats);
            let upstream = work.upstream(pass, &forward)?;
            let dlogps = constant.as_deref().unwrap_or(&upstream.dlogps);
            workspace.backward_ends(weights, &packed, dlogps, &upstream.dends, &mut gradients)?;
            Ok(gradients)
        })
    }
}

fn forward(
    workspace: &Workspace,
    weights: &Weights<'_>,
    packed: &Packed,
    values: Vec<f32>,
    stats: Option<TokenStats>,
) -> Forward {
    let logps = TokenLogps { values, layout: packed.layout().clone() };
    Forward { logps, ends: workspace.ends(weights, packed).to_vec(), stats }
}

impl Executor for CpuExecutor<'_> {
    fn score(&mut self, packs: &[Packed], extract: &Extract<'_>) -> Result<Vec<Vec<f32>>> {
        // Scoring is short, so its memory is kept for the next call, whoever the caller is.
        static WORKSPACES: Pool<Workspace> = Pool::new();
        with_weights(self.model, self.compute.precision, Purpose::Score, |weights| {
            parallel::map(packs, |packed| {
                WORKSPACES.with(|workspace| {
                    let logps = workspace.forward(weights, packed, Keep::Nothing, None)?;
                    extract(&forward(workspace, weights, packed, logps, None))
                })
            })
        })
    }

    /// Uses the composed model, since the fast path never holds whole rows of logits.
    fn logits(&mut self, packs: &[Packed]) -> Result<Vec<Tensor>> {
        composed::logits(self.frozen.get(self.model)?, packs)
    }

    /// Decodes in f32 at any precision, since reading the weights takes longer than computing with
    /// them.
    fn decode(
        &mut self,
        _plan: &DecodePlan,
        work: &mut dyn FnMut(&dyn Decoding) -> Result<()>,
    ) -> Result<()> {
        with_weights(self.model, Precision::F32, Purpose::Decode, |weights| {
            work(&CpuDecoding(weights))
        })
    }

    fn gradients(&mut self, work: &dyn StepWork) -> Result<f64> {
        let passes: Vec<usize> = (0..work.n_passes()).collect();
        let mut sum: Option<Gradients> = None;
        with_weights(self.model, self.compute.precision, Purpose::Train, |weights| {
            parallel::for_each_in_order(
                &passes,
                |pass| self.pass(weights, work, *pass),
                |gradients| match &mut sum {
                    Some(sum) => {
                        sum.add(&gradients);
                        self.scratch.gradients.give(gradients);
                    }
                    None => sum = Some(gradients),
                },
            )
        })?;
        self.gradients.store(sum, work.index())
    }

    fn apply(&mut self, optimizer: &mut AdamW, norm: f64, max_norm: f64, rate: f64) -> Result<()> {
        let gradients = self.gradients.take();
        self.frozen.clear();
        optimizer.step(self.model, &gradients, clip_scale(norm, max_norm), rate)?;
        self.scratch.gradients.give(*gradients);
        Ok(())
    }
}

/// Weights lent for decoding.
struct CpuDecoding<'a, 'w>(&'a Weights<'w>);

impl Decoding for CpuDecoding<'_, '_> {
    fn group_size(&self, n: usize) -> usize {
        group_size(n)
    }

    fn decoder(&self) -> Result<Box<dyn Decoder + '_>> {
        Ok(Box::new(CpuDecoder { decoder: cpu::Decoder::new(self.0)?, logits: vec![] }))
    }
}

struct CpuDecoder<'a> {
    decoder: cpu::Decoder<'a>,
    logits: Vec<f32>,
}

impl Decoder for CpuDecoder<'_> {
    fn start(&mut self, prompts: &[&[u32]]) -> Result<usize> {
        self.logits = self.decoder.start(prompts[0])?.1;
        Ok(1)
    }

    fn append(&mut self, sequences: &[usize], ids: &[u32]) -> Result<()> {
        self.logits = self.decoder.append(sequences, ids)?;
        Ok(())
    }

    fn logits(&mut self) -> Result<Vec<f32>> {
        Ok(std::mem::take(&mut self.logits))
    }
}
