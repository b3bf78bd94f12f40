//! The comparison of two models: one row for each metric, with its interval, and the files it is written to.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::stats::Estimate;
use crate::error::Result;
use crate::files;
use crate::table::{Column, Table};

/// Which way a metric should go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
    /// Neither by itself.
    Neither,
}

/// One metric of both models.
#[derive(Debug, Clone, Serialize)]
pub struct MetricRow {
    /// Its name.
    pub metric: String,
    /// Which way it should go.
    pub better: Better,
    /// Before: the model after SFT.
    pub sft: Estimate,
    /// After: the model after DPO.
    pub dpo: Estimate,
    /// Probability of such a difference by chance, where a paired test was made.
    pub p_value: Option<f64>,
}

/// What a comparison rests on; it is written beside every figure.
#[derive(Debug, Clone, Serialize)]
pub struct Provenance {
    /// The data set's name.
    pub data: String,
    /// Its hash.
    pub data_hash: String,
    /// The tokenizer's hash.
    pub tokenizer_hash: String,
    /// Hash of the SFT model's parameters.
    pub sft_hash: String,
    /// Hash of the DPO model's parameters.
    pub dpo_hash: String,
    /// The seed of data, training and sampling.
    pub seed: u64,
    /// β of the DPO run.
    pub beta: f64,
    /// The toxicity classifier, or why there is none.
    pub classifier: String,
}

/// SFT beside DPO, metric by metric.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// What it rests on.
    pub provenance: Provenance,
    /// The metrics.
    pub rows: Vec<MetricRow>,
}

impl Comparison {
    /// A comparison without rows yet.
    pub fn new(provenance: Provenance) -> Self {
        Self { provenance, rows: vec![] }
    }

    /// Adds a metric of both models.
    pub fn add(&mut self, metric: &str, better: Better, sft: &Estimate, dpo: &Estimate) {
        self.rows.push(MetricRow { metric: metric.into(), better, sft: sft.clone(), dpo: dpo.clone(), p_value: None });
    }

    /// Adds a metric of both models with the p-value of a paired test.
    pub fn add_tested(&mut self, metric: &str, better: Better, sft: &Estimate, dpo: &Estimate, p_value: f64) {
        self.add(metric, better, sft, dpo);
        self.rows.last_mut().expect("a row was just added").p_value = Some(p_value);
    }

    /// The table for reading.
    ///
    /// # Errors
    /// A failure of the table library.
    pub fn table(&self) -> Result<Table> {
        let text = |f: &dyn Fn(&MetricRow) -> String| self.rows.iter().map(f).collect::<Vec<_>>();
        let p = &self.provenance;
        let note = format!(
            "95% intervals. Data: {} ({}), seed {}, β = {}. Toxicity classifier: {}. A difference whose intervals overlap may still be real, and one that is real may be small; p is an exact McNemar test on the same prompts.",
            p.data, p.data_hash, p.seed, p.beta, p.classifier
        );
        let table = Table::new(
            "SFT and DPO on held-out prompts",
            vec![
                Column::text("metric", text(&|r| r.metric.clone())),
                Column::text(
                    "better",
                    text(&|r| match r.better {
                        Better::Higher => "higher".into(),
                        Better::Lower => "lower".into(),
                        Better::Neither => "".into(),
                    }),
                ),
                Column::text("SFT", text(&|r| figure(&r.sft))),
                Column::text("DPO", text(&|r| figure(&r.dpo))),
                Column::text(
                    "n",
                    text(&|r| {
                        if r.sft.n == r.dpo.n { r.dpo.n.to_string() } else { format!("{} / {}", r.sft.n, r.dpo.n) }
                    }),
                ),
                Column::text(
                    "p",
                    text(&|r| {
                        r.p_value.map_or("–".into(), |p| if p < 1e-4 { "< 0.0001".into() } else { format!("{p:.4}") })
                    }),
                ),
            ],
        )?;
        Ok(table.with_note(note))
    }

    /// Writes `model_comparison.csv`: one row for each metric, with full precision and intervals.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_csv(&self, path: impl AsRef<Path>) -> Result<()> {
        let number = |f: &dyn Fn(&MetricRow) -> f64| self.rows.iter().map(f).collect::<Vec<_>>();
        let text = |f: &dyn Fn(&MetricRow) -> String| self.rows.iter().map(f).collect::<Vec<_>>();
        Table::new(
            "",
            vec![
                Column::text("metric", text(&|r| r.metric.clone())),
                Column::text("better", text(&|r| format!("{:?}", r.better).to_lowercase())),
                Column::float("sft", 4, number(&|r| r.sft.value)),
                Column::float("sft_low", 4, number(&|r| r.sft.low)),
                Column::float("sft_high", 4, number(&|r| r.sft.high)),
                Column::int("sft_n", self.rows.iter().map(|r| r.sft.n as i64).collect()),
                Column::float("dpo", 4, number(&|r| r.dpo.value)),
                Column::float("dpo_low", 4, number(&|r| r.dpo.low)),
                Column::float("dpo_high", 4, number(&|r| r.dpo.high)),
                Column::int("dpo_n", self.rows.iter().map(|r| r.dpo.n as i64).collect()),
                Column::text("interval", text(&|r| r.dpo.method.to_string())),
                Column::float("mcnemar_p", 6, number(&|r| r.p_value.unwrap_or(f64::NAN))),
            ],
        )?
        .write_csv(path)
    }

    /// Writes `results_summary.json`: provenance, metrics, and whatever settings the caller adds.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_summary(&self, path: impl AsRef<Path>, settings: &Settings) -> Result<()> {
        let summary = json!({ "provenance": self.provenance, "settings": settings.0, "metrics": self.rows });
        files::write_atomic(path.as_ref(), format!("{summary:#}\n").as_bytes())
    }
}

/// Settings of a run for the summary, name by name.
#[derive(Debug, Clone)]
pub struct Settings(Value);

impl Default for Settings {
    fn default() -> Self {
        Self(json!({}))
    }
}

impl Settings {
    /// The same settings with one more: a number, a text, or any other plain value.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        self.0[name] = serde_json::to_value(value).unwrap_or(Value::Null);
        self
    }
}

fn figure(e: &Estimate) -> String {
    if e.value.is_nan() {
        "not enough data".into()
    } else if e.method == "by definition" {
        format!("{:.3} by definition", e.value)
    } else {
        format!("{:.3} [{:.3}, {:.3}]", e.value, e.low, e.high)
    }
}

/// Several figures of one model that belong together.
pub trait Metrics {
    /// A title for tables, with whatever a reader must know of how it was measured.
    fn title(&self) -> String;
    /// The figures by name, in the order in which they are shown.
    fn estimates(&self) -> Vec<(&'static str, &Estimate)>;
}

/// The figures of one model.
///
/// # Errors
/// A failure of the table library.
pub fn metrics_table(metrics: &impl Metrics) -> Result<Table> {
    estimates_table(metrics.title(), &["value [95% interval]"], &[metrics.estimates()])
}

/// The same figures of both models side by side.
///
/// # Errors
/// A failure of the table library.
pub fn before_after(sft: &impl Metrics, dpo: &impl Metrics) -> Result<Table> {
    estimates_table(dpo.title(), &["SFT [95% interval]", "DPO [95% interval]"], &[sft.estimates(), dpo.estimates()])
}

fn estimates_table(title: String, names: &[&str], models: &[Vec<(&'static str, &Estimate)>]) -> Result<Table> {
    let last = models.last().expect("a table of at least one model");
    let mut columns = vec![Column::text("metric", last.iter().map(|r| r.0.to_string()).collect())];
    columns.extend(
        names.iter().zip(models).map(|(name, rows)| Column::text(*name, rows.iter().map(|r| figure(r.1)).collect())),
    );
    columns.push(Column::int("n", last.iter().map(|r| r.1.n as i64).collect()));
    columns.push(Column::text("interval", last.iter().map(|r| r.1.method.to_string()).collect()));
    Table::new(title, columns)
}
