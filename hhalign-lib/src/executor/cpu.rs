//! This processor's fast path as an executor: passes side by side, one on each core.

use candle_core::Tensor;

use super::composed::Frozen;
use super::{DecodePlan, Decoder, Decoding, Executor, Forward, Read, StepGradients, StepWork, TokenLogps, composed};
use crate::error::Result;
use crate::fused::{self, Compute, Keep, Packed, Precision, Purpose, TokenStats, Weights, Workspace, with_weights};
use crate::gradients::{Gradients, clip_scale};
use crate::model::{Gpt, GptConfig};
use crate::optim::AdamW;
use crate::parallel::{self, Pool};

/// Sequences that one thread decodes together at most.
const MAX_BATCH: usize = 16;

/// Runs the passes of [`crate::fused`].
pub(super) struct Cpu<'m> {
    model: &'m Gpt,
    compute: Compute,
    scratch: Scratch,
    gradients: StepGradients,
    frozen: Frozen,
}

/// Memory between one step and the next: fresh memory would have to be cleared by the system first.
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

impl<'m> Cpu<'m> {
    pub(super) fn new(model: &'m Gpt, compute: &Compute) -> Self {
        Self {
            model,
            compute: compute.clone(),
            scratch: Scratch::default(),
            gradients: StepGradients::default(),
            frozen: Frozen::default(),
        }
    }

    fn pass(&self, weights: &Weights<'_>, work: &dyn StepWork, pass: usize) -> Result<Gradients> {
        let packed = work.pack(pass)?;
        let mut stats = work.wants_stats().then(TokenStats::default);
        let mut gradients = self.scratch.zeros(weights.config());
        self.scratch.workspaces.with(|workspace| {
            let (keep, constant) = (self.compute.keep(), work.constant_grad(pass, &packed));
            let logps = match &constant {
                Some(dlogps) => {
                    workspace.forward_constant_grad(weights, &packed, keep, stats.as_mut(), dlogps, &mut gradients)?
                }
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

impl Executor for Cpu<'_> {
    fn score(&mut self, packs: &[Packed], read: &Read<'_>) -> Result<Vec<Vec<f32>>> {
        // Scorings are short: their memory is kept for the next one, whoever asks for it.
        static WORKSPACES: Pool<Workspace> = Pool::new();
        with_weights(self.model, self.compute.precision, Purpose::Score, |weights| {
            parallel::map(packs, |packed| {
                WORKSPACES.with(|workspace| {
                    let logps = workspace.forward(weights, packed, Keep::Nothing, None)?;
                    read(&forward(workspace, weights, packed, logps, None))
                })
            })
        })
    }

    /// The fast path never holds whole rows of logits, so the composed model gives them.
    fn logits(&mut self, packs: &[Packed]) -> Result<Vec<Tensor>> {
        composed::logits(self.frozen.of(self.model)?, packs)
    }

    /// In f32 whatever the precision: reading the weights takes longer than computing with them.
    fn decode(&mut self, _plan: &DecodePlan, work: &mut dyn FnMut(&dyn Decoding) -> Result<()>) -> Result<()> {
        with_weights(self.model, Precision::F32, Purpose::Decode, |weights| work(&Lent(weights)))
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
        self.gradients.keep(sum, work.number())
    }

    fn apply(&mut self, optimizer: &mut AdamW, norm: f64, max_norm: f64, rate: f64) -> Result<()> {
        let gradients = self.gradients.take();
        self.frozen.clear();
        optimizer.step(self.model, &gradients, clip_scale(norm, max_norm), rate)?;
        self.scratch.gradients.give(*gradients);
        Ok(())
    }
}

/// Sequences of `n` that one thread decodes together.
pub(super) fn group_size(n: usize) -> usize {
    n.div_ceil(parallel::threads()).clamp(1, MAX_BATCH)
}

/// Weights lent for decoding.
struct Lent<'a, 'w>(&'a Weights<'w>);

impl Decoding for Lent<'_, '_> {
    fn at_once(&self, n: usize) -> usize {
        group_size(n)
    }

    fn decoder(&self) -> Result<Box<dyn Decoder + '_>> {
        Ok(Box::new(CpuDecoder { decoder: fused::Decoder::new(self.0)?, logits: vec![] }))
    }
}

struct CpuDecoder<'a> {
    decoder: fused::Decoder<'a>,
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
