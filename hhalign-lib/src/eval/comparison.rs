//! The comparison of two models: one row for each metric, with intervals, their difference, and a test.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::measure::{Better, Difference, Instrument, Measure};
use super::summary::recorded_beta;
use crate::data::Dataset;
use crate::error::Result;
use crate::model::Gpt;
use crate::stats::{Estimate, Method, holm, p_text};
use crate::table::{Column, Table};
use crate::tokenize::Tokenizer;
use crate::train::Outcome;

/// Several figures of one model that belong together.
pub trait Metrics {
    /// A title for tables, with whatever a reader must know of how it was measured.
    fn title(&self) -> String;
    /// The figures in the order in which they are shown.
    fn measures(&self) -> Vec<&Measure>;
}

/// A model in a comparison: its name and the hash of its weights, which only the weights themselves give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ModelId {
    /// What it is called: SFT, DPO.
    pub name: String,
    /// Hash of its parameters.
    pub hash: String,
}

/// What a comparison rests on; it is written beside every figure.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Provenance {
    /// The data set's name.
    pub data: String,
    /// Its hash.
    pub data_hash: String,
    /// The tokenizer's hash.
    pub tokenizer_hash: String,
    /// The models that are compared.
    pub models: [ModelId; 2],
    /// The seed of data, training and sampling.
    pub seed: u64,
    /// β of the second model's training, as its run recorded it; `None` where no preference run is known.
    pub beta: Option<f64>,
}

/// One metric of both models.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MetricRow {
    /// Its name.
    pub metric: String,
    /// Whether it is a part of the metric above it.
    pub detail: bool,
    /// Which way it should go.
    pub better: Better,
    /// What it was measured with.
    pub instrument: Instrument,
    /// The first model's figure; `None` where a figure is about both.
    pub first: Option<Estimate>,
    /// The second model's figure.
    pub second: Estimate,
    /// How they differ.
    pub difference: Difference,
    /// The seed of intervals and tests.
    pub seed: u64,
}

/// What a test lets one say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The second model is better.
    Better,
    /// The second model is worse.
    Worse,
    /// They differ, where neither way is better by itself.
    Different,
    /// No difference was shown; that is not a proof that there is none.
    NotShown,
    /// There is no test for it.
    NotTested,
}

impl Verdict {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Different => "different",
            Self::NotShown => "no difference shown",
            Self::NotTested => "not tested",
        }
    }
}

/// Two models side by side, metric by metric.
#[derive(Debug, Clone)]
pub struct Comparison {
    provenance: Provenance,
    rows: Vec<MetricRow>,
}

/// A family of tests errs at most so often.
const LEVEL: f64 = 0.05;

impl Comparison {
    /// A comparison without rows yet: on which data, of which two models. Where the second one comes from a run, say so:
    /// [`Comparison::trained_by`].
    ///
    /// # Errors
    /// Weights that cannot be hashed.
    pub fn new(
        data: &Dataset,
        tokenizer: &Tokenizer,
        first: (&str, &Gpt),
        second: (&str, &Gpt),
        seed: u64,
    ) -> Result<Self> {
        let id =
            |(name, model): (&str, &Gpt)| -> Result<ModelId> { Ok(ModelId { name: name.into(), hash: model.hash()? }) };
        Ok(Self::on(Provenance {
            data: data.name.clone(),
            data_hash: data.hash(),
            tokenizer_hash: tokenizer.hash(),
            models: [id(first)?, id(second)?],
            seed,
            beta: None,
        }))
    }

    /// Without rows yet, on what was hashed before.
    pub(super) fn on(provenance: Provenance) -> Self {
        Self { provenance, rows: vec![] }
    }

    /// The same with β of the run that the second model came out of.
    #[must_use]
    pub fn trained_by(mut self, run: &Outcome) -> Self {
        self.provenance.beta = run.beta();
        self
    }

    /// The same with β as the summary in a results folder recorded it for this second model; without one where the folder
    /// has no summary, or one of other weights.
    ///
    /// # Errors
    /// A summary that cannot be read.
    pub fn trained_in(mut self, results: impl AsRef<Path>) -> Result<Self> {
        self.provenance.beta = recorded_beta(results.as_ref(), &self.provenance.models[1])?;
        Ok(self)
    }

    /// What it rests on.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// The metrics so far.
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

    /// Adds all figures of both models' reports.
    ///
    /// # Errors
    /// As [`Measure::compare`].
    pub fn add_all(&mut self, first: &impl Metrics, second: &impl Metrics) -> Result<()> {
        first.measures().into_iter().zip(second.measures()).try_for_each(|(a, b)| self.add(a, b))
    }

    /// Adds a figure about both models, such as the second one's win rate over the first.
    pub fn add_joint(&mut self, measure: &Measure) {
        let difference = measure.against_chance().unwrap_or_else(|| Difference::untested(Estimate::not_enough_data(0)));
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

    /// The p-values, corrected for the number of tests in this table by Holm's method; `None` where there is no test.
    pub fn corrected(&self) -> Vec<Option<f64>> {
        let p: Vec<f64> = self.rows.iter().filter_map(|r| r.difference.p_value).collect();
        let mut corrected = holm(&p).into_iter();
        self.rows.iter().map(|r| r.difference.p_value.and_then(|_| corrected.next())).collect()
    }

    /// What each row lets one say, row by row, at 5% for the whole table.
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

    /// The table for reading.
    ///
    /// # Errors
    /// A failure of the table library.
    pub fn table(&self) -> Result<Table> {
        let text = |f: &dyn Fn(&MetricRow) -> String| self.rows.iter().map(f).collect::<Vec<_>>();
        let p = &self.provenance;
        let [first, second] = &p.models;
        let corrected = self.corrected();
        let tests = corrected.iter().flatten().count();
        let mut instruments: Vec<String> = self.rows.iter().filter_map(|r| r.instrument.text()).collect();
        instruments.dedup();
        instruments.sort();
        instruments.dedup();
        let note = format!(
            "95% intervals over prompts. Data: {} ({}), seed {}{}. p: paired tests on the same prompts, corrected for {tests} tests by Holm's method (a permutation test draws 9,999 exchanges, so its p is {:.4} at least); \"{}\" is said of {} where it is below 0.05. {}",
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
                Column::text(first.name.clone(), text(&|r| r.first.as_ref().map_or("–".into(), figure))),
                Column::text(second.name.clone(), text(&|r| figure(&r.second))),
                Column::text(
                    "difference [95%]",
                    text(&|r| if r.first.is_some() { figure(&r.difference.estimate) } else { "–".into() }),
                ),
                Column::text("n", text(&|r| r.second.n.to_string())),
                Column::text("p", corrected.iter().map(|p| p.map_or("–".into(), p_text)).collect()),
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
    /// Whether the second model's figure is the higher one.
    pub fn rises(&self) -> bool {
        self.second.value > self.first.as_ref().map_or(0.5, |e| e.value)
    }
}

impl Better {
    /// An arrow that points the good way.
    pub fn arrow(self) -> &'static str {
        match self {
            Self::Higher => "↑",
            Self::Lower => "↓",
            Self::Neither => "",
        }
    }
}

impl Instrument {
    /// For the note under a table; none where a formula is all there is.
    pub fn text(&self) -> Option<String> {
        Some(match self {
            Self::Formula => return None,
            Self::Classifier(name) => format!("Classifier: {name}."),
            Self::Judge(name) => format!("Judge: {name}."),
            Self::Rule(name) => format!("Rule: {name}."),
            Self::LanguageModel(name) => format!("Language model: {name}."),
        })
    }
}

/// The name of a part stands under that of the whole.
fn indented(name: &str, detail: bool) -> String {
    if detail { format!("\u{2003}{name}") } else { name.into() }
}

/// A figure and its interval as a cell of a table.
pub fn figure(e: &Estimate) -> String {
    if !e.is_known() {
        return if e.n == 0 { "not enough data".into() } else { e.why_unknown() };
    }
    // Small figures need more digits than large ones.
    let digits = if e.value.abs() >= 100.0 {
        1
    } else if e.value.abs() >= 10.0 {
        2
    } else {
        3
    };
    if e.method == Method::ByDefinition {
        format!("{:.digits$} by definition", e.value)
    } else {
        format!(
            "{:.digits$} [{:.digits$}, {:.digits$}]",
            plain(e.value, digits),
            plain(e.low, digits),
            plain(e.high, digits)
        )
    }
}

/// Not "-0.000".
fn plain(x: f64, digits: usize) -> f64 {
    if x.abs() < 0.5 * 10f64.powi(-(digits as i32)) { 0.0 } else { x }
}

/// The figures of one model.
///
/// # Errors
/// A failure of the table library.
pub fn metrics_table(metrics: &impl Metrics) -> Result<Table> {
    let rows = metrics.measures();
    let of = |f: &dyn Fn(&Measure) -> String| rows.iter().map(|m| f(m)).collect::<Vec<_>>();
    Table::new(
        metrics.title(),
        vec![
            Column::text("metric", of(&|m| indented(m.name(), m.detail))),
            Column::text("value [95% interval]", of(&|m| figure(m.estimate()))),
            Column::int("n", rows.iter().map(|m| m.estimate().n as i64).collect()),
            Column::text("interval", of(&|m| m.estimate().method.to_string())),
        ],
    )
}

/// The values of two models by name side by side, with their difference on the same cases.
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
/// assert!(table.value("short [95% interval]", 0).is_ok() && table.value("long [95% interval]", 0).is_ok());
/// # Ok::<(), Error>(())
/// ```
pub fn before_after<M: Metrics>(first: (&str, &M), second: (&str, &M)) -> Result<Table> {
    let (a, b) = (first.1.measures(), second.1.measures());
    let compared = a.iter().zip(&b).map(|(a, b)| a.compare(b)).collect::<Result<Vec<_>>>()?;
    let of = |rows: &[&Measure]| rows.iter().map(|m| figure(m.estimate())).collect::<Vec<_>>();
    let table = Table::new(
        second.1.title(),
        vec![
            Column::text("metric", b.iter().map(|m| indented(m.name(), m.detail)).collect()),
            Column::text(format!("{} [95% interval]", first.0), of(&a)),
            Column::text(format!("{} [95% interval]", second.0), of(&b)),
            Column::text("difference [95% interval]", compared.iter().map(|d| figure(&d.estimate)).collect()),
            Column::int("n", b.iter().map(|m| m.estimate().n as i64).collect()),
            Column::text("interval", b.iter().map(|m| m.estimate().method.to_string()).collect()),
        ],
    )?;
    let ratio = b.iter().any(|m| m.is_perplexity());
    Ok(if ratio {
        table.with_note(format!("For a perplexity the difference is the ratio {} / {}: 1 is none.", second.0, first.0))
    } else {
        table
    })
}
