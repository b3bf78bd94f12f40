//! The gradients of one step: its passes side by side, each over some pairs.

use candle_core::{Device, Var};
use rand::Rng as _;

use super::{BOTH, Judged, RewardConfig, bradley_terry, of_ends};
use crate::batch::{Side, TokenizedPairs};
use crate::error::Result;
use crate::fused::{Packed, Purpose, Weights, Workspace, with_weights};
use crate::gradients::Gradients;
use crate::model::Gpt;
use crate::parallel::{self, Pool};
use crate::rng::stream;

/// Memory between one step and the next.
#[derive(Default)]
pub(super) struct Spare {
    workspaces: Pool<Workspace>,
    pub(super) gradients: Pool<Gradients>,
}

/// One step: which pairs, with what weights.
pub(super) struct Step<'a> {
    pub(super) config: &'a RewardConfig,
    pub(super) pairs: &'a TokenizedPairs,
    pub(super) gpt: &'a Gpt,
    pub(super) head: &'a [f32],
    pub(super) batch: &'a [usize],
    /// The step's number: it decides which tokens are left out.
    pub(super) number: usize,
}

/// What a step gives: gradients of model and head, and the rewards of its pairs.
pub(super) struct Sums {
    pub(super) gradients: Gradients,
    pub(super) head: Vec<f32>,
    chosen: Vec<f32>,
    rejected: Vec<f32>,
    /// Σ log π over the chosen replies, where the language-model loss is on.
    logps: f64,
    tokens: usize,
}

impl Sums {
    pub(super) fn metrics(&self) -> Vec<(String, f64)> {
        let Judged { loss, accuracy, margin } = Judged::of(&self.chosen, &self.rejected);
        let mut metrics = vec![("loss", loss), ("accuracy", accuracy), ("margin", margin)];
        if self.tokens > 0 {
            metrics.push(("lm_loss", -self.logps / self.tokens as f64));
        }
        metrics.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }
}

impl Step<'_> {
    /// Added up over the passes in their order.
    pub(super) fn gradients(&self, spare: &Spare) -> Result<Sums> {
        let train = &self.config.train;
        let passes = self.pairs.balanced(self.batch, train.micro_batch_size, BOTH);
        let mut sums: Option<Sums> = None;
        with_weights(self.gpt, train.compute.precision, Purpose::Train, |weights| {
            parallel::for_each_in_order(
                &passes,
                |pass| self.pass(weights, pass, spare),
                |one| match &mut sums {
                    Some(sums) => {
                        sums.gradients.add(&one.gradients);
                        spare.gradients.give(one.gradients);
                        sums.head.iter_mut().zip(&one.head).for_each(|(sum, x)| *sum += x);
                        sums.chosen.extend(one.chosen);
                        sums.rejected.extend(one.rejected);
                        (sums.logps, sums.tokens) = (sums.logps + one.logps, sums.tokens + one.tokens);
                    }
                    None => sums = Some(one),
                },
            )
        })?;
        Ok(sums.expect("a step has a pass"))
    }

    fn pass(&self, weights: &Weights<'_>, pass: &[usize], spare: &Spare) -> Result<Sums> {
        let (compute, lm_weight) = (&self.config.train.compute, self.config.lm_weight);
        let mut packed = Packed::default();
        let predicted = usize::from(lm_weight > 0.0);
        for &i in pass {
            let [prompt, chosen, rejected] = self.ids(i);
            if compute.share_prompts {
                packed.push_whole(&prompt, &[&chosen, &rejected], predicted)?;
            } else {
                packed.push_whole(&prompt, &[&chosen], predicted)?;
                packed.push_whole(&prompt, &[&rejected], 0)?;
            }
        }
        let mut gradients = spare.gradients.take().unwrap_or_else(|| Gradients::zeros(weights.config()));
        gradients.clear();
        spare.workspaces.with(|workspace| {
            // Each pass's share of the mean over the whole step.
            let slope = -lm_weight / self.pairs.n_reply_tokens(self.batch, Side::Chosen) as f64;
            let slopes = vec![slope as f32; packed.n_targets()];
            let logps = workspace.forward_known(weights, &packed, compute.keep(), None, &slopes, &mut gradients)?;
            let rewards = of_ends(workspace.ends(weights, &packed), self.head);
            let leaf = Var::from_slice(&rewards, (pass.len(), 2), &Device::Cpu)?;
            let side = |i: usize| leaf.narrow(1, i, 1);
            let loss = (bradley_terry(&side(0)?, &side(1)?)?.sum_all()? / self.batch.len() as f64)?;
            let dead = "the loss of Bradley and Terry depends on its rewards";
            let drewards = loss.backward()?.get(&leaf).expect(dead).flatten_all()?.to_vec1::<f32>()?;
            let (mut head, mut dends) = (vec![0f32; self.head.len()], vec![]);
            for (slope, h) in drewards.iter().zip(workspace.ends(weights, &packed).chunks_exact(head.len())) {
                head.iter_mut().zip(h).for_each(|(sum, h)| *sum += slope * h);
                dends.extend(self.head.iter().map(|w| slope * w));
            }
            workspace.backward_ends(weights, &packed, &slopes, &dends, &mut gradients)?;
            let (chosen, rejected) = rewards.chunks_exact(2).map(|r| (r[0], r[1])).unzip();
            let logps_sum = logps.iter().copied().map(f64::from).sum();
            Ok(Sums { gradients, head, chosen, rejected, logps: logps_sum, tokens: logps.len() })
        })
    }

    /// Prompt, chosen and rejected reply of a pair without the tokens that are left out; the end of a reply stays.
    fn ids(&self, index: usize) -> [Vec<u32>; 3] {
        let pair = &self.pairs.pairs[index];
        let p = self.config.token_dropout;
        let mut rng = stream(self.config.train.seed, "token dropout", &[self.number as u64, index as u64]);
        [&pair.prompt, &pair.chosen, &pair.rejected].map(|ids| {
            let (end, rest) = ids.split_last().expect("no part of a pair is empty");
            let mut kept: Vec<u32> = if p > 0.0 {
                rest.iter().copied().filter(|_| rng.random::<f64>() >= p).collect()
            } else {
                rest.to_vec()
            };
            kept.push(*end);
            kept
        })
    }
}
