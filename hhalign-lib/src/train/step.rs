//! One optimiser step: its passes, and the objective between the forward and the backward pass.

use std::sync::{Mutex, PoisonError};

use super::TrainConfig;
use super::objective::{Metrics, Objective, Pass};
use crate::base::error::Result;
use crate::compute::executor::{Forward, StepWork, Upstream};
use crate::data::packed::Packed;

/// One step: its pairs, its objective and its settings.
pub(super) struct Step<'a> {
    objective: &'a dyn Objective,
    config: &'a TrainConfig,
    head: &'a [f32],
    batch: &'a [usize],
    number: usize,
    log: bool,
    passes: Vec<Vec<usize>>,
    reports: Vec<Mutex<Report>>,
}

/// The metrics and the head's gradient of a pass.
#[derive(Default)]
pub(super) struct Report {
    pub(super) metrics: Metrics,
    /// The gradient of the head, (C).
    pub(super) dhead: Vec<f32>,
}

impl<'a> Step<'a> {
    /// Makes the step of number `number` on the pairs of `batch`.
    pub(super) fn new(
        objective: &'a dyn Objective,
        config: &'a TrainConfig,
        head: &'a [f32],
        batch: &'a [usize],
        number: usize,
        log: bool,
    ) -> Self {
        let passes = objective.data().balanced(batch, config.micro_batch_size, objective.sides());
        let reports = passes.iter().map(|_| Mutex::default()).collect();
        Self { objective, config, head, batch, number, log, passes, reports }
    }

    fn pass(&self, pass: usize) -> Pass<'_> {
        Pass { pairs: &self.passes[pass], batch: self.batch, step: self.number }
    }

    /// Sums the reports of all passes, in order.
    pub(super) fn report(self) -> Report {
        let mut sum = Report::default();
        for report in self.reports {
            let report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
            sum.metrics.merge(report.metrics);
            sum.dhead.resize(report.dhead.len(), 0.0);
            sum.dhead.iter_mut().zip(&report.dhead).for_each(|(sum, x)| *sum += x);
        }
        sum
    }
}

impl StepWork for Step<'_> {
    fn index(&self) -> usize {
        self.number
    }

    fn n_passes(&self) -> usize {
        self.passes.len()
    }

    fn pack(&self, pass: usize) -> Result<Packed> {
        self.objective.pack(&self.pass(pass), &self.config.compute)
    }

    fn wants_stats(&self) -> bool {
        self.log && self.objective.wants_stats()
    }

    fn constant_grad(&self, pass: usize, packed: &Packed) -> Option<Vec<f32>> {
        self.objective.constant_grad(&self.pass(pass), packed)
    }

    fn upstream(&self, pass: usize, forward: &Forward) -> Result<Upstream> {
        let mut metrics = Metrics::default();
        let log = self.log.then_some(&mut metrics);
        let gradient = self.objective.gradient(&self.pass(pass), forward, self.head, log)?;
        let report = Report { metrics, dhead: gradient.dhead };
        *self.reports[pass].lock().unwrap_or_else(PoisonError::into_inner) = report;
        Ok(gradient.upstream)
    }
}
