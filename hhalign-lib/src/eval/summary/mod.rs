//! The summary of a run: every value with all that it depends on, so that it can be checked and
//! repeated.
//!
//! [`Summary`] writes `results_summary.json` and `model_comparison.csv`; `file` defines the content
//! of the first, `schema` its JSON Schema, `recorded` reads it back, and `csv` makes the second.

mod csv;
pub(crate) mod file;
pub(in crate::eval) mod recorded;
mod schema;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use self::file::{
    Compared, Content, FILE, FrontierPoint, JudgeCheck, MetricValue, Model, Number, Provenance,
    SCHEMA_VERSION, Sample,
};
pub use self::recorded::{RecordedSummary, SummaryValue};
pub use self::schema::schema;
use super::comparison::{Comparison, MetricRow, ModelId};
use super::frontier::Frontier;
use super::metrics::toxicity::ToxicityReport;
use super::preferences::judge::RewardJudge;
use crate::base::error::Result;
use crate::base::files;
use crate::infer::sample::Reply;
use crate::stats::Estimate;
use crate::train::History;

#[doc(hidden)]
#[deprecated(since = "0.2.0", note = "renamed to SummaryValue; a figure is a plot")]
pub type Figure = SummaryValue;

/// Settings of a run for the summary, by name.
#[derive(Debug, Clone, Default)]
pub struct Settings(Map<String, Value>);

impl Settings {
    /// Returns the settings with one more: a number, a text, or any other plain value.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        self.0.insert(name.into(), serde_json::to_value(value).unwrap_or(Value::Null));
        self
    }
}

/// A comparison with its context: settings, curves, distributions, samples.
#[derive(Debug, Clone)]
pub struct Summary {
    comparison: Comparison,
    content: Content,
}

impl Summary {
    /// The name of the file in a results folder.
    pub const FILE: &str = file::FILE;

    /// Creates the summary of a comparison and the settings of its run.
    ///
    /// # Errors
    /// None.
    pub fn new(comparison: &Comparison, settings: &Settings) -> Result<Self> {
        let provenance = comparison.provenance();
        let content = Content {
            schema_version: SCHEMA_VERSION,
            hhalign: env!("CARGO_PKG_VERSION").into(),
            provenance: Provenance {
                data: provenance.data.clone(),
                data_hash: provenance.data_hash.clone(),
                tokenizer_hash: provenance.tokenizer_hash.clone(),
                models: provenance.models.each_ref().map(model),
                seed: provenance.seed,
                beta: provenance.beta,
            },
            settings: settings.0.clone(),
            values: comparison.rows().iter().flat_map(|row| values(comparison, row)).collect(),
            comparisons: compared(comparison),
            histories: BTreeMap::new(),
            toxicity_scores: BTreeMap::new(),
            samples: vec![],
            frontier: vec![],
            judges: vec![],
        };
        Ok(Self { comparison: comparison.clone(), content })
    }

    /// Reads the summary in a results folder back.
    ///
    /// # Errors
    /// No summary in the folder, one that is broken, or one of another schema.
    ///
    /// # Example
    /// ```
    /// let error = hhalign::eval::summary::Summary::read("no such folder").unwrap_err();
    /// assert!(error.fix().contains("./scripts/run"));
    /// ```
    pub fn read(folder: impl AsRef<Path>) -> Result<RecordedSummary> {
        RecordedSummary::read(folder.as_ref())
    }

    /// Returns the summary with one more setting: a number, a text, or any other plain value.
    #[must_use]
    pub fn with_setting(mut self, name: &str, value: impl Serialize) -> Self {
        let settings = Settings(std::mem::take(&mut self.content.settings));
        self.content.settings = settings.with(name, value).0;
        self
    }

    /// Returns the summary with the curves of a model's training.
    ///
    /// # Errors
    /// None.
    pub fn with_history(mut self, model: &str, history: &History) -> Result<Self> {
        self.content.histories.insert(model.into(), history.clone());
        Ok(self)
    }

    /// Returns the summary with the toxicity scores of a model's replies.
    #[must_use]
    pub fn with_toxicity(mut self, model: &str, report: &ToxicityReport) -> Self {
        let scores = report.scores.iter().flatten();
        let rounded = scores.map(|s| (f64::from(s.toxic()) * 1e4).round() / 1e4);
        self.content.toxicity_scores.insert(model.into(), rounded.collect());
        self
    }

    /// Returns the summary with a judge and its accuracy on held-out pairs.
    #[must_use]
    pub fn with_judge(mut self, judge: &RewardJudge) -> Self {
        let accuracy = Number::from(judge.accuracy.estimate());
        self.content.judges.push(JudgeCheck { identity: judge.identity().into(), accuracy });
        self
    }

    /// Returns the summary with a frontier of reward against KL.
    #[must_use]
    pub fn with_frontier(mut self, frontier: &Frontier) -> Self {
        let points = frontier.points.iter().map(|point| FrontierPoint {
            label: format!("β = {}", point.beta),
            beta: point.beta,
            step: point.step,
            model_hash: point.model_hash.clone(),
            kl: Number::from(&point.kl),
            reward: Number::from(&point.reward),
            judge: frontier.judge.clone(),
            seed: frontier.seed,
        });
        self.content.frontier = points.collect();
        self
    }

    /// Returns the summary with some prompts and the replies of two models by name; rows that are
    /// missing are left out.
    #[must_use]
    pub fn with_samples(
        mut self,
        rows: &[usize],
        prompts: &[String],
        first: (&str, &[Reply]),
        second: (&str, &[Reply]),
    ) -> Self {
        let reply = |(name, replies): (&str, &[Reply]), i: usize| {
            Some((name.to_string(), replies.get(i)?.text.clone()))
        };
        let samples = rows.iter().filter_map(|&i| {
            let replies = [reply(first, i)?, reply(second, i)?].into();
            Some(Sample { prompt: prompts.get(i)?.clone(), replies })
        });
        self.content.samples.extend(samples);
        self
    }

    /// The values in the order of the comparison's rows.
    pub fn values(&self) -> Vec<SummaryValue> {
        self.content.values.iter().map(|entry| SummaryValue::new(entry.clone(), None)).collect()
    }

    /// Writes `results_summary.json` and `model_comparison.csv` into a folder.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        // As a `Value` its keys are in alphabetical order.
        let text = serde_json::to_string_pretty(&serde_json::to_value(&self.content)?)?;
        files::write_atomic(&folder.join(FILE), format!("{text}\n").as_bytes())?;
        csv::table(&self.comparison)?.write_csv(folder.join("model_comparison.csv"))
    }
}

fn model(id: &ModelId) -> Model {
    Model { name: id.name.clone(), hash: id.hash.clone() }
}

fn values(comparison: &Comparison, row: &MetricRow) -> Vec<MetricValue> {
    let p = comparison.provenance();
    let [first, second] = &p.models;
    let value = |of: &ModelId, against: Option<&ModelId>, estimate: &Estimate| MetricValue {
        metric: row.metric.clone(),
        better: row.better,
        model: model(of),
        against: against.map(model),
        number: Number::from(estimate),
        seed: row.seed,
        data_hash: p.data_hash.clone(),
        instrument: row.instrument.clone(),
    };
    match &row.first {
        Some(of_first) => vec![value(first, None, of_first), value(second, None, &row.second)],
        None => vec![value(second, Some(first), &row.second)],
    }
}

fn compared(comparison: &Comparison) -> Vec<Compared> {
    let [first, second] = &comparison.provenance().models;
    let tests = comparison.corrected().into_iter().zip(comparison.verdicts());
    let rows = comparison.rows().iter().zip(tests);
    rows.map(|(row, (p_corrected, verdict))| Compared {
        metric: row.metric.clone(),
        detail: row.detail,
        first: first.name.clone(),
        second: second.name.clone(),
        estimate: Number::from(&row.difference.estimate),
        p_value: row.difference.p_value,
        test: row.difference.test.to_string(),
        effect: row.difference.effect,
        effect_name: row.difference.effect_name.to_string(),
        p_corrected,
        verdict,
    })
    .collect()
}
