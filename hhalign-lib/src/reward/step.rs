//! The gradients of one step: its passes side by side, each over some pairs.

use candle_core::{Device, Var};
use rand::Rng as _;

use super::{BOTH, Judged, RewardConfig, bradley_terry, of_ends};
use crate::batch::{Side, TokenizedPairs};
use crate::error::Result;
use crate::fused::{Packed, Purpose, Weights, with_weights};
use crate::gpu::Trainer;
use crate::gradients::Gradients;
use crate::model::Gpt;
use crate::parallel;
use crate::rng::stream;
use crate::train::{Spare, Work};

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

/// What a step gives besides the model's gradients: those of the head, and the rewards of its pairs.
#[derive(Default)]
pub(super) struct Report {
    pub(super) head: Vec<f32>,
    chosen: Vec<f32>,
    rejected: Vec<f32>,
    /// Σ log π over the chosen replies, where the language-model loss is on.
    logps: f64,
    tokens: usize,
}

impl Report {
    pub(super) fn metrics(&self) -> Vec<(String, f64)> {
        let Judged { loss, accuracy, margin } = Judged::of(&self.chosen, &self.rejected);
        let mut metrics = vec![("loss", loss), ("accuracy", accuracy), ("margin", margin)];
        if self.tokens > 0 {
            metrics.push(("lm_loss", -self.logps / self.tokens as f64));
        }
        metrics.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }

    fn add(&mut self, other: Self) {
        self.head.resize(other.head.len(), 0.0);
        self.head.iter_mut().zip(&other.head).for_each(|(sum, x)| *sum += x);
        self.chosen.extend(other.chosen);
        self.rejected.extend(other.rejected);
        (self.logps, self.tokens) = (self.logps + other.logps, self.tokens + other.tokens);
    }
}

impl Work for Step<'_> {
    type Report = Report;

    fn number(&self) -> usize {
        self.number
    }

    /// Added up over the passes in their order.
    fn gradients(&self, spare: &Spare) -> Result<(Gradients, Report)> {
        let (mut sum, mut reports) = (None, Report::default());
        with_weights(self.gpt, self.config.train.compute.precision, Purpose::Train, |weights| {
            parallel::for_each_in_order(
                &self.passes(),
                |pass| self.pass(weights, pass, spare),
                |(gradients, report)| {
                    reports.add(report);
                    spare.add(&mut sum, gradients);
                },
            )
        })?;
        Ok((sum.expect("a step has a pass"), reports))
    }

    /// Pass after pass.
    fn gradients_on(&self, trainer: &mut Trainer) -> Result<Report> {
        let mut reports = Report::default();
        for pass in self.passes() {
            let packed = self.packed(&pass)?;
            let slopes = self.slopes(&packed);
            let logps = trainer.forward(&packed, &self.config.train.compute, None, Some(&slopes))?;
            let (d_ends, report) = self.judged(&logps, &trainer.ends()?)?;
            trainer.backward_ends(&slopes, &d_ends)?;
            reports.add(report);
        }
        Ok(reports)
    }
}

impl Step<'_> {
    fn passes(&self) -> Vec<Vec<usize>> {
        self.pairs.balanced(self.batch, self.config.train.micro_batch_size, BOTH)
    }

    fn packed(&self, pass: &[usize]) -> Result<Packed> {
        let mut packed = Packed::default();
        let predicted = usize::from(self.config.lm_weight > 0.0);
        for &i in pass {
            let [prompt, chosen, rejected] = self.ids(i);
            if self.config.train.compute.share_prompts {
                packed.push_whole(&prompt, &[&chosen, &rejected], predicted)?;
            } else {
                packed.push_whole(&prompt, &[&chosen], predicted)?;
                packed.push_whole(&prompt, &[&rejected], 0)?;
            }
        }
        Ok(packed)
    }

    /// Of the language-model loss in each log π: this pass's share of the mean over the whole step.
    fn slopes(&self, packed: &Packed) -> Vec<f32> {
        let slope = -self.config.lm_weight / self.pairs.n_reply_tokens(self.batch, Side::Chosen) as f64;
        vec![slope as f32; packed.n_targets()]
    }

    /// What flows back into the ends of the replies (E, C), and the report of the pass.
    fn judged(&self, logps: &[f32], ends: &[f32]) -> Result<(Vec<f32>, Report)> {
        let rewards = of_ends(ends, self.head);
        let leaf = Var::from_slice(&rewards, (rewards.len() / 2, 2), &Device::Cpu)?;
        let side = |i: usize| leaf.narrow(1, i, 1);
        let loss = (bradley_terry(&side(0)?, &side(1)?)?.sum_all()? / self.batch.len() as f64)?;
        let dead = "the loss of Bradley and Terry depends on its rewards";
        let d_rewards = loss.backward()?.get(&leaf).expect(dead).flatten_all()?.to_vec1::<f32>()?;
        let (mut head, mut d_ends) = (vec![0f32; self.head.len()], vec![]);
        for (slope, h) in d_rewards.iter().zip(ends.chunks_exact(head.len())) {
            head.iter_mut().zip(h).for_each(|(sum, h)| *sum += slope * h);
            d_ends.extend(self.head.iter().map(|w| slope * w));
        }
        let (chosen, rejected) = rewards.chunks_exact(2).map(|r| (r[0], r[1])).unzip();
        let logps_sum = logps.iter().copied().map(f64::from).sum();
        Ok((d_ends, Report { head, chosen, rejected, logps: logps_sum, tokens: logps.len() }))
    }

    fn pass(&self, weights: &Weights<'_>, pass: &[usize], spare: &Spare) -> Result<(Gradients, Report)> {
        let packed = self.packed(pass)?;
        let mut gradients = spare.zeros(weights.config());
        spare.workspaces.with(|workspace| {
            let (slopes, keep) = (self.slopes(&packed), self.config.train.compute.keep());
            let logps = workspace.forward_known(weights, &packed, keep, None, &slopes, &mut gradients)?;
            let (d_ends, report) = self.judged(&logps, workspace.ends(weights, &packed))?;
            workspace.backward_ends(weights, &packed, &slopes, &d_ends, &mut gradients)?;
            Ok((gradients, report))
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
