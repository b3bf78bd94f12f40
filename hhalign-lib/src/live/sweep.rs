//! A sweep over β: a short run for each, from the same weights on the same data.

use super::dpo_sources;
use super::{Pausable, Run, runs_folder, start};
use crate::base::error::{Error, Result};
use crate::data::batch::TokenizedPairs;
use crate::model::Gpt;
use crate::show::plot::{Figure, Panel};
use crate::show::table::{Column, Table};
use crate::stats::format::{Decimals, Format};
use crate::stats::wilson;
use crate::train::{Dpo, Recipe};

/// One run for each β, all training in parallel.
#[derive(Clone)]
pub struct Sweep {
    /// The runs, in the order of their β.
    pub runs: Vec<Run>,
    betas: Vec<f64>,
}

/// The number of prompts sampled for the KL of a sweep, unless the recipe gives one.
const KL_PROMPTS: usize = 32;

impl Dpo {
    /// Trains a policy for each β and returns immediately.
    ///
    /// Every run begins with the same weights, trains on the same pairs in the same order and has
    /// the same reference. Runs that exist already are used.
    ///
    /// # Errors
    /// No β, a β that is out of range or given twice, or an error of [`Dpo::start`].
    pub fn sweep(
        &self,
        betas: &[f64],
        policy: &Gpt,
        reference: &Gpt,
        pairs: &TokenizedPairs,
        held_out: &TokenizedPairs,
    ) -> Result<Sweep> {
        let twice = betas.iter().enumerate().find(|(i, beta)| betas[..*i].contains(beta));
        if betas.is_empty() || twice.is_some() {
            let fix = "give each once, such as [0.05, 0.1, 0.2, 0.5]";
            return Err(Error::new(
                "a sweep needs different values of beta",
                format!("{betas:?}"),
                fix,
            ));
        }
        let recipe = |beta: f64| {
            let kl_prompts = if self.kl_prompts == 0 { KL_PROMPTS } else { self.kl_prompts };
            let cache = self.cache.clone().or_else(|| Some(runs_folder().join("shared")));
            Self { beta, kl_prompts, cache, ..self.clone() }
        };
        betas.iter().try_for_each(|&beta| self.loss.check(beta))?;
        let sources = dpo_sources(reference, pairs, held_out)?;
        let runs =
            betas.iter().map(|&beta| start(Recipe::Dpo(recipe(beta)), sources.clone(), policy));
        Ok(Sweep { runs: runs.collect::<Result<_>>()?, betas: betas.to_vec() })
    }
}

/// Returns the phase of a run, with the reason if it failed.
fn state(run: &Run) -> String {
    run.error().map_or_else(|| run.phase().to_string(), |error| format!("failed: {}", error.what()))
}

impl Pausable for Sweep {
    fn pause(&self) {
        self.runs.iter().for_each(Run::pause);
    }

    fn resume(&self) {
        self.runs.iter().for_each(Pausable::resume);
    }

    fn stop(&self) {
        self.runs.iter().for_each(Run::stop);
    }
}

impl Sweep {
    /// Waits for `seconds` or until all runs have ended, and prints a line for each run.
    pub fn wait(&self, seconds: f64) {
        let begin = std::time::Instant::now();
        for run in &self.runs {
            while run.phase().is_active() && begin.elapsed().as_secs_f64() < seconds {
                let left = seconds - begin.elapsed().as_secs_f64();
                run.shared
                    .wait_for_change(std::time::Duration::from_secs_f64(left.clamp(0.0, 0.5)));
            }
        }
        self.runs
            .iter()
            .zip(&self.betas)
            .for_each(|(run, beta)| println!("beta {beta:<5} {}", run.progress_line()));
    }

    /// Returns held-out accuracy, margin and KL of every run, step by step.
    pub fn plot(&self) -> Figure {
        let panel = |title: &str, y: &str, metric: &str, per_beta: bool| {
            let runs = self.runs.iter().zip(&self.betas);
            runs.fold(Panel::new(title, "step", y), |panel, (run, beta)| {
                let scale = if per_beta { 1.0 / beta } else { 1.0 };
                let points =
                    run.history().series(metric).into_iter().map(|(x, v)| (x, v * scale)).collect();
                panel.line(&format!("β = {beta}"), points)
            })
        };
        let accuracy = panel(
            "Reward accuracy",
            "share of pairs ranked right",
            "eval_rewards/accuracies",
            false,
        );
        Figure::new("Trained at each β")
            .panel(accuracy.level(0.5, "chance"))
            .panel(panel("Margin D", "nats, chosen minus rejected", "eval_rewards/margins", true))
            .panel(panel("Distance from the reference", "KL of a reply, nats", "eval_kl", false))
            .note(
                "Every curve is a policy trained at its β. The KL is over replies that the policy \
                 samples, exact over the vocabulary at each token.",
            )
    }

    /// Returns the last evaluation of every run.
    ///
    /// # Errors
    /// A failure of the table library.
    pub fn table(&self) -> Result<Table> {
        let last = |metric: &str| -> Vec<f64> {
            self.runs.iter().map(|run| run.history().last(metric).unwrap_or(f64::NAN)).collect()
        };
        let margins = last("eval_rewards/margins")
            .iter()
            .zip(&self.betas)
            .map(|(m, beta)| m / beta)
            .collect();
        let two_decimals = Format::TABLE.decimals(Decimals::Fixed(2));
        let half = last("eval_kl_half_width");
        let kl = last("eval_kl").into_iter().zip(half).map(|(kl, half)| match kl.is_finite() {
            true => two_decimals.interval([kl, kl - half, kl + half]),
            false => "–".into(),
        });
        let n = self.runs.first().map_or(0, |run| run.shared.sources.held_out.len());
        let accuracy =
            last("eval_rewards/accuracies").into_iter().map(|share| match share.is_finite() {
                true => wilson(share * n as f64, n).cell(),
                false => "–".into(),
            });
        let columns = vec![
            Column::float("β", 3, self.betas.clone()),
            Column::text("state", self.runs.iter().map(state).collect()),
            Column::int("step", self.runs.iter().map(|run| run.step() as i64).collect()),
            Column::text("accuracy [95% interval]", accuracy.collect()),
            Column::float("D, nats", 2, margins),
            Column::text("KL, nats [95% interval]", kl.collect()),
        ];
        let prompts = match self.runs.first().map(|run| run.shared.recipe()) {
            Some(Recipe::Dpo(dpo)) => dpo.kl_prompts.min(n),
            _ => 0,
        };
        let note = format!(
            "Accuracy and D on {n} held-out pairs; \
             KL on sampled replies of at most {} tokens to {prompts} of their prompts.",
            crate::infer::kl::MAX_REPLY
        );
        Ok(Table::new("Sweep over β", columns)?.with_note(note))
    }

    /// Returns the run trained at a β of the sweep.
    ///
    /// # Errors
    /// A β that the sweep does not have.
    pub fn at(&self, beta: f64) -> Result<Run> {
        let index = self.betas.iter().position(|b| *b == beta).ok_or_else(|| {
            Error::new(
                "the sweep has no such beta",
                beta.to_string(),
                format!("choose one of {:?}", self.betas),
            )
        })?;
        Ok(self.runs[index].clone())
    }
}
