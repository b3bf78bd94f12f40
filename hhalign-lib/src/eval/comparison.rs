//! The comparison of two models: a row for each metric, with intervals, the difference, and a test.

use std::path::Path;

use super::measure::{Better, Difference, Instrument, Measure, Metrics};
pub use super::provenance::{ModelId, Provenance};
pub use super::verdict::Verdict;
use crate::base::error::Result;
use crate::data::Dataset;
use crate::data::tokenize::Tokenizer;
use crate::model::Gpt;
use crate::show::table::{Column, Table};
use crate::stats::format::p_value;
use crate::stats::{Estimate, holm};
use crate::train::Outcome;

/// One metric of both models.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MetricRow {
    /// The name.
    pub metric: String,
    /// Whether it is a part of the metric before it.
    pub detail: bool,
    /// The better direction.
    pub better: Better,
    /// The instrument.
    pub instrument: Instrument,
    /// The first model's value; `None` if the row has one value about both.
    pub first: Option<Estimate>,
    /// The second model's value.
    pub second: Estimate,
    /// The difference.
    pub difference: Difference,
    /// The seed of intervals and tests.
    pub seed: u64,
}

/// Two models compared metric by metric.
#[derive(Debug, Clone)]
pub struct Comparison {
    provenance: Provenance,
    rows: Vec<MetricRow>,
}

/// The family-wise error rate.
const LEVEL: f64 = 0.05;

impl Comparison {
    /// Creates a comparison without rows, of two models on given data. If the second model comes
    /// from a run, [`Comparison::trained_by`] records its β.
    ///
    /// # Errors
    /// The weights cannot be hashed.
    pub fn new(
        data: &Dataset,
        tokenizer: &Tokenizer,
        first: (&str, &Gpt),
        second: (&str, &Gpt),
        seed: u64,
    ) -> Result<Self> {
        let id = |(name, model): (&str, &Gpt)| -> Result<ModelId> {
            Ok(ModelId { name: name.into(), hash: model.hash()? })
        };
        Ok(Self::on(Provenance {
            data: data.name.clone(),
            data_hash: data.hash(),
            tokenizer_hash: tokenizer.hash(),
            models: [id(first)?, id(second)?],
            seed,
            beta: None,
        }))
    }

    /// Creates a comparison without rows from hashes that exist.
    pub(super) fn on(provenance: Provenance) -> Self {
        Self { provenance, rows: vec![] }
    }

    /// Returns the comparison with β of the second model's run.
    #[must_use]
    pub fn trained_by(mut self, run: &Outcome) -> Self {
        self.provenance.beta = run.beta();
        self
    }

    /// Returns the comparison with β from the summary in a results folder, if it has one of this
    /// second model's weights.
    ///
    /// # Errors
    /// The summary cannot be read.
    pub fn trained_in(mut self, results: impl AsRef<Path>) -> Result<Self> {
        self.provenance.beta = self.provenance.models[1].recorded_beta(results.as_ref())?;
        Ok(self)
    }

    /// The data, the tokenizer, the models and the seed.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// The rows.
    pub fn rows(&self) -> &[MetricRow] {
        &self.rows
    }

    /// Adds a metric of both models, measured on the same cases.
    ///
    /// # Errors
    /// As [`Measure::compare`].
    pub fn add(&mut self, first: &Measure, second: &Measure) -> Result<()> {
        let difference = first.compare(second)?;
        self.rows.push(MetricRow {
            metric: first.name().into(),
            detail: first.detail,
            better: first.better,
            instrument: first.instrument.clone(),
            first: Some(first.estimate().clone()),
            second: second.estimate().clone(),
            difference,
            seed: first.seed,
        });
        Ok(())
    }

    /// Adds all metrics of both models.
    ///
    /// # Errors
    /// As [`Measure::compare`].
    pub fn add_all(&mut self, first: &impl Metrics, second: &impl Metrics) -> Result<()> {
        first.measures().into_iter().zip(second.measures()).try_for_each(|(a, b)| self.add(a, b))
    }

    /// Adds a value about both models, such as the second one's win rate over the first.
    pub fn add_joint(&mut self, measure: &Measure) {
        let difference = measure
            .against_chance()
            .unwrap_or_else(|| Difference::untested(Estimate::not_enough_data(0)));
        self.rows.push(MetricRow {
            metric: measure.name().into(),
            detail: measure.detail,
            better: measure.better,
            instrument: measure.instrument.clone(),
            first: None,
            second: measure.estimate().clone(),
            difference,
            seed: measure.seed,
        });
    }

    /// The p-values, corrected for the number of tests of this table by Holm's method; `None`
    /// without a test.
    pub fn corrected(&self) -> Vec<Option<f64>> {
        let p: Vec<f64> = self.rows.iter().filter_map(|r| r.difference.p_value).collect();
        let mut corrected = holm(&p).into_iter();
        self.rows.iter().map(|r| r.difference.p_value.and_then(|_| corrected.next())).collect()
    }

    /// The verdict of each row, with a family-wise error rate of 5% for the whole table.
    pub fn verdicts(&self) -> Vec<Verdict> {
        let of = |(row, p): (&MetricRow, Option<f64>)| match (p, row.better) {
            (None, _) => Verdict::NotTested,
            (Some(p), _) if p >= LEVEL => Verdict::NotShown,
            (_, Better::Neither) => Verdict::Different,
            (_, better) => match (row.rises(), better) {
                (true, Better::Higher) | (false, Better::Lower) => Verdict::Better,
                _ => Verdict::Worse,
            },
        };
        self.rows.iter().zip(self.corrected()).map(of).collect()
    }

    /// Returns the comparison as a table for readers.
    ///
    /// # Errors
    /// The table library fails.
    pub fn table(&self) -> Result<Table> {
        let text = |f: &dyn Fn(&MetricRow) -> String| self.rows.iter().map(f).collect::<Vec<_>>();
        let p = &self.provenance;
        let [first, second] = &p.models;
        let corrected = self.corrected();
        let tests = corrected.iter().flatten().count();
        let mut instruments: Vec<String> =
            self.rows.iter().filter_map(|r| r.instrument.text()).collect();
        instruments.dedup();
        instruments.sort();
        instruments.dedup();
        let note = format!(
            "95% intervals over prompts. Data: {} ({}), seed {}{}. p: paired tests on the same \
             prompts, corrected for {tests} tests by Holm's method (a permutation test draws 9,999 \
             exchanges, so its p is at least {:.4}); the verdict is \"{}\" for {} if p is below \
             0.05. {}",
            p.data,
            p.data_hash,
            p.seed,
            p.beta.map_or(String::new(), |beta| format!(", β = {beta}")),
            1e-4 * tests as f64,
            Verdict::Better.words(),
            second.name,
            instruments.join(" ")
        );
        let table = Table::new(
            format!("{} and {} on held-out prompts", first.name, second.name),
            vec![
                Column::text("metric", text(&|r| indented(&r.metric, r.detail))),
                Column::text("good", text(&|r| r.better.arrow().into())),
                Column::text(
                    first.name.clone(),
                    text(&|r| r.first.as_ref().map_or("–".into(), Estimate::cell)),
                ),
                Column::text(second.name.clone(), text(&|r| r.second.cell())),
                Column::text(
                    "difference [95%]",
                    text(&|r| {
                        if r.first.is_some() { r.difference.estimate.cell() } else { "–".into() }
                    }),
                ),
                Column::text("n", text(&|r| r.second.n.to_string())),
                Column::text(
                    "p",
                    corrected.iter().map(|p| p.map_or("–".into(), p_value)).collect(),
                ),
                Column::text(
                    format!("{} is", second.name),
                    self.verdicts()
                        .iter()
                        .map(|v| if *v == Verdict::NotTested { "–" } else { v.words() }.into())
                        .collect(),
                ),
            ],
        )?;
        Ok(table.with_note(note))
    }
}

impl MetricRow {
    /// Whether the second model's value is the higher one.
    pub fn rises(&self) -> bool {
        self.second.value > self.first.as_ref().map_or(0.5, |e| e.value)
    }
}

/// Indents the name of a part under that of the whole.
fn indented(name: &str, detail: bool) -> String {
    if detail { format!("\u{2003}{name}") } else { name.into() }
}

/// Returns the metrics of one model as a table.
///
/// # Errors
/// The table library fails.
pub fn metrics_table(metrics: &impl Metrics) -> Result<Table> {
    let rows = metrics.measures();
    let of = |f: &dyn Fn(&Measure) -> String| rows.iter().map(|m| f(m)).collect::<Vec<_>>();
    Table::new(
        metrics.title(),
        vec![
            Column::text("metric", of(&|m| indented(m.name(), m.detail))),
            Column::text("value [95% interval]", of(&|m| m.estimate().cell())),
            Column::int("n", rows.iter().map(|m| m.estimate().n as i64).collect()),
            Column::text("interval", of(&|m| m.estimate().method.to_string())),
        ],
    )
}

/// Returns the metrics of two models by name side by side, with their differences on the same
/// cases.
///
/// # Errors
/// As [`Measure::compare`].
///
/// # Example
/// ```
/// use hhalign::prelude::*;
/// let replies = |text: &str| vec![Reply::from_text(text); 12];
/// let (short, long) = (quality(&replies("Yes."), 0), quality(&replies("Yes, of course."), 0));
/// let table = before_after(("short", &short), ("long", &long))?;
/// assert!(table.value("short [95% interval]", 0).is_ok());
/// assert!(table.value("long [95% interval]", 0).is_ok());
/// # Ok::<(), Error>(())
/// ```
pub fn before_after<M: Metrics>(first: (&str, &M), second: (&str, &M)) -> Result<Table> {
    let (a, b) = (first.1.measures(), second.1.measures());
    let compared = a.iter().zip(&b).map(|(a, b)| a.compare(b)).collect::<Result<Vec<_>>>()?;
    let of = |rows: &[&Measure]| rows.iter().map(|m| m.estimate().cell()).collect::<Vec<_>>();
    let table = Table::new(
        second.1.title(),
        vec![
            Column::text("metric", b.iter().map(|m| indented(m.name(), m.detail)).collect()),
            Column::text(format!("{} [95% interval]", first.0), of(&a)),
            Column::text(format!("{} [95% interval]", second.0), of(&b)),
            Column::text(
                "difference [95% interval]",
                compared.iter().map(|d| d.estimate.cell()).collect(),
            ),
            Column::int("n", b.iter().map(|m| m.estimate().n as i64).collect()),
            Column::text("interval", b.iter().map(|m| m.estimate().method.to_string()).collect()),
        ],
    )?;
    let ratio = b.iter().any(|m| m.is_perplexity());
    Ok(if ratio {
        table.with_note(format!(
            "The difference of a perplexity is the ratio {} / {}: 1 means none.",
            second.0, first.0
        ))
    } else {
        table
    })
}
