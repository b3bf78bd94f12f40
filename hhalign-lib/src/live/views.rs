//! The views of a run: status, curves, samples, and several runs in one figure.

use super::{Phase, Run};
use crate::base::error::{Error, Result};
use crate::data::tokenize::Tokenizer;
use crate::eval::figures;
use crate::infer::sample::Sampler;
use crate::show::plot::{Figure, Panel};
use crate::show::table::{Column, Table};
use crate::show::view::View;
use crate::train::{History, Recipe, clock};

impl Run {
    /// Returns the status as a table of one row.
    ///
    /// # Errors
    /// A failure of the table library.
    pub fn status(&self) -> Result<Table> {
        let (phase, history, step) = (self.phase(), self.history(), self.step());
        let of = self.shared.recipe().train().max_steps;
        let mut columns = vec![
            Column::text("run", vec![self.name()]),
            Column::text("state", vec![phase.to_string()]),
            Column::text("step", vec![format!("{step} of {of}")]),
        ];
        if let Some(beta) = self.beta() {
            columns.push(Column::text("β", vec![beta.to_string()]));
        }
        for name in self.shared.recipe().headline() {
            columns.push(Column::float(*name, 3, vec![history.last(name).unwrap_or(f64::NAN)]));
        }
        columns
            .push(Column::text("time left", vec![self.seconds_left().map_or("–".into(), clock)]));
        let delete_hint = || {
            format!(
                "Run::delete(\"{}\")? removes it, so that a start begins at step 0.",
                self.name()
            )
        };
        let note =
            self.error().map_or_else(|| self.note(), |error| format!("{error}\n{}", delete_hint()));
        let table = Table::new("Run", columns)?;
        Ok(if note.is_empty() { table } else { table.with_note(note) })
    }

    /// Returns every logged metric, step by step.
    ///
    /// # Errors
    /// A failure of the table library.
    pub fn table(&self) -> Result<Table> {
        self.history().table()
    }

    /// Returns the curves so far, with a mark at each change of a setting.
    pub fn plot(&self) -> Figure {
        let history = self.history();
        match self.shared.recipe() {
            Recipe::Sft(_) => figures::sft_curves(&history),
            Recipe::Dpo(_) => figures::dpo_curves(&history),
            Recipe::Reward(_) => figures::reward_curves(&history),
        }
    }

    /// Returns status and curves, which a cell shows for a run.
    ///
    /// # Errors
    /// A failure of the table library or of the drawing.
    pub fn card(&self) -> Result<View> {
        let status = self.status()?;
        let curves =
            if self.history().records.is_empty() { String::new() } else { self.plot().html()? };
        Ok(View::new(status.html() + &curves, status.to_string()))
    }

    /// Samples replies of the current weights to the first `n` held-out prompts, next to the
    /// reference's replies (DPO) or the preferred ones (SFT).
    ///
    /// # Errors
    /// A failure of the tokenizer or of the model.
    pub fn samples(&self, tokenizer: &Tokenizer, n: usize) -> Result<View> {
        let (sources, step) = (&self.shared.sources, self.step());
        if let Recipe::Reward(_) = self.shared.recipe() {
            let fix = "score replies with run.reward_model()?";
            return Err(Error::new("a reward model gives rewards, not replies", self.name(), fix));
        }
        if n == 0 || sources.held_out.is_empty() {
            return Err(Error::new(
                "no prompt to reply to",
                format!("n = {n}"),
                "ask for at least one",
            ));
        }
        tokenizer.check_fits(self.shared.model.config.vocab_size)?;
        let pairs = &sources.held_out.pairs[..n.min(sources.held_out.len())];
        let prompts: Vec<Vec<u32>> = pairs.iter().map(|p| p.prompt.clone()).collect();
        let train = self.shared.recipe().train();
        let (seed, compute) = (train.seed, train.compute.clone());
        let sampler = Sampler { temperature: 0.7, seed, compute, ..Sampler::default() };
        let eos = Some(sources.held_out.eos_id());
        let now = sampler.ids(&self.model()?, prompts.clone(), eos)?;
        let (name, before) = match &sources.reference {
            Some((reference, _)) => ("before (reference)", sampler.ids(reference, prompts, eos)?),
            None => ("preferred reply", pairs.iter().map(|p| p.chosen.clone()).collect()),
        };
        let mut all = View::new("", "");
        for ((pair, now), before) in pairs.iter().zip(&now).zip(&before) {
            let (before, now) = (tokenizer.decode(before)?, tokenizer.decode(now)?);
            let replies = [(name, before.as_str()), ("now", now.as_str())];
            let one = View::side_by_side(
                &format!("step {step}"),
                &tokenizer.decode(&pair.prompt)?,
                &replies,
            );
            all = View::new(all.html + &one.html, all.text + &one.text);
        }
        Ok(all)
    }

    /// Returns the estimated seconds left; `None` unless the run is training.
    pub(super) fn seconds_left(&self) -> Option<f64> {
        if self.phase() != Phase::Training {
            return None;
        }
        let progress = self.shared.progress()?;
        progress.state.seconds_left()
    }
}

/// Draws several runs in one figure: loss, and for DPO accuracy and reward margin on held-out
/// pairs.
///
/// # Example
/// ```no_run
/// # use hhalign::live::{overlay, Run};
/// # fn example(run: Run, fork: Run) -> hhalign::show::plot::Figure {
/// overlay(&[run, fork])
/// # }
/// ```
pub fn overlay(runs: &[Run]) -> Figure {
    let histories: Vec<(String, History)> =
        runs.iter().map(|run| (run.label(runs), run.history())).collect();
    // Marks of all runs are shown; equal marks at the same step are shown once.
    let mut marks: Vec<(f64, String)> =
        histories.iter().flat_map(|(_, history)| figures::marks(history)).collect();
    marks.sort_by(|x, y| x.0.total_cmp(&y.0).then(x.1.cmp(&y.1)));
    marks.dedup();
    let panel = |title: &str, y: &str, metric: &str| {
        let panel = Panel::new(title, "step", y);
        let panel = histories
            .iter()
            .fold(panel, |panel, (name, history)| panel.line(name, history.series(metric)));
        panel.marks(marks.clone())
    };
    let figure =
        Figure::new("Runs side by side").panel(panel("Held-out loss", "loss", "eval_loss"));
    if runs.iter().all(|run| matches!(run.shared.recipe(), Recipe::Sft(_))) {
        return figure.panel(panel("Training loss", "nats per reply token", "loss"));
    }
    if runs.iter().all(|run| matches!(run.shared.recipe(), Recipe::Reward(_))) {
        return figure
            .panel(
                panel("Held-out accuracy", "share of pairs ranked right", "eval_accuracy")
                    .level(0.5, "chance"),
            )
            .panel(panel("Held-out margin", "r(chosen) - r(rejected)", "eval_margin"));
    }
    figure
        .panel(
            panel("Held-out accuracy", "share of pairs ranked right", "eval_rewards/accuracies")
                .level(0.5, "chance"),
        )
        .panel(panel("Held-out margin", "β · D, nats", "eval_rewards/margins"))
        .note(
            "Losses under different β are not on one scale; accuracy is. \
             A fork shares its parent's curve up to the fork.",
        )
}

impl Run {
    /// Returns a short label among other runs: β if it is unique, else the run's name.
    fn label(&self, among: &[Self]) -> String {
        let beta = |run: &Self| match run.shared.recipe() {
            Recipe::Dpo(dpo) if run.beta() == Some(dpo.beta) => Some(format!("β = {}", dpo.beta)),
            Recipe::Dpo(dpo) => {
                Some(format!("β = {} → {}", dpo.beta, run.beta().unwrap_or(dpo.beta)))
            }
            Recipe::Sft(_) | Recipe::Reward(_) => None,
        };
        match beta(self) {
            Some(own)
                if among.iter().filter(|other| beta(other).as_ref() == Some(&own)).count() == 1 =>
            {
                own
            }
            _ => self.name(),
        }
    }
}
