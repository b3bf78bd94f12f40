//! What a run writes down: every figure with all that it rests on, so that it can be checked and repeated.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::comparison::{Comparison, MetricRow, ModelId};
use super::frontier::{Frontier, Point};
use super::judge::RewardJudge;
use super::measure::{Better, Difference, Instrument};
use super::toxicity::ToxicityReport;
use crate::error::{Error, Result};
use crate::files;
use crate::sample::Reply;
use crate::stats::Estimate;
use crate::table::{Column, Table};
use crate::train::History;

/// The schema that `results_summary.json` follows: docs/results_summary.schema.json.
pub const SCHEMA_VERSION: u32 = 1;

/// The file's name.
const FILE: &str = "results_summary.json";

/// A figure as it is written, with n, interval, seed, data, model and instrument.
///
/// It is made of a row of a [`Comparison`] and nothing else, and a comparison takes hashes from the data and the weights
/// themselves. A figure that lacks any of it cannot be written:
///
/// ```compile_fail
/// use hhalign::{eval::summary::Figure, stats::Estimate};
/// let typed_in = Figure { metric: "win rate".into(), value: 0.68 };
/// ```
/// ```compile_fail
/// use hhalign::stats::{Estimate, Method};
/// let typed_in = Estimate { value: 0.68, low: 0.68, high: 0.68, n: 50, method: Method::Wilson };
/// ```
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    metric: String,
    better: Better,
    /// The model; for a figure about two of them the one whose success it counts.
    model: ModelId,
    /// The other model of a figure about two.
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<ModelId>,
    #[serde(flatten)]
    estimate: Estimate,
    seed: u64,
    data_hash: String,
    instrument: Instrument,
}

/// How two models differ in one metric, as it is written.
#[derive(Debug, Clone, Serialize)]
struct Compared {
    metric: String,
    /// Whether it is a part of the metric before it.
    detail: bool,
    first: String,
    second: String,
    #[serde(flatten)]
    difference: Difference,
    /// p corrected for all tests of the summary, by Holm's method.
    p_corrected: Option<f64>,
    verdict: super::comparison::Verdict,
}

/// Settings of a run for the summary, name by name.
#[derive(Debug, Clone, Default)]
pub struct Settings(Map<String, Value>);

impl Settings {
    /// The same settings with one more: a number, a text, or any other plain value.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        self.0.insert(name.into(), serde_json::to_value(value).unwrap_or(Value::Null));
        self
    }
}

/// A comparison with what a reader needs beside it: settings, curves, distributions, samples.
#[derive(Debug, Clone)]
pub struct Summary {
    comparison: Comparison,
    root: Map<String, Value>,
}

impl Summary {
    /// Of a comparison and the settings it came from.
    ///
    /// # Errors
    /// A value that cannot be written.
    pub fn new(comparison: &Comparison, settings: &Settings) -> Result<Self> {
        let figures: Vec<Figure> = comparison.rows().iter().flat_map(|row| figures(comparison, row)).collect();
        let [first, second] = &comparison.provenance().models;
        let corrected = comparison.corrected().into_iter().zip(comparison.verdicts());
        let compared = comparison.rows().iter().zip(corrected).map(|(row, (p_corrected, verdict))| Compared {
            metric: row.metric.clone(),
            detail: row.detail,
            first: first.name.clone(),
            second: second.name.clone(),
            difference: row.difference.clone(),
            p_corrected,
            verdict,
        });
        let root = json!({
            "schema_version": SCHEMA_VERSION,
            "hhalign": env!("CARGO_PKG_VERSION"),
            "provenance": comparison.provenance(),
            "settings": settings.0,
            "figures": figures,
            "comparisons": compared.collect::<Vec<_>>(),
            "histories": {},
            "toxicity_scores": {},
            "samples": [],
            "judges": [],
        });
        let Value::Object(root) = root else { unreachable!("an object was written") };
        Ok(Self { comparison: comparison.clone(), root })
    }

    /// With one more setting: a number, a text, or any other plain value.
    #[must_use]
    pub fn with_setting(mut self, name: &str, value: impl Serialize) -> Self {
        self.root["settings"][name] = serde_json::to_value(value).unwrap_or(Value::Null);
        self
    }

    /// With the curves of a training.
    ///
    /// # Errors
    /// A value that cannot be written.
    pub fn with_history(mut self, model: &str, history: &History) -> Result<Self> {
        self.root["histories"][model] = serde_json::to_value(history)?;
        Ok(self)
    }

    /// With the scores of a model's replies, for their distribution.
    #[must_use]
    pub fn with_toxicity(mut self, model: &str, report: &ToxicityReport) -> Self {
        let scores = report.scores.iter().flatten().map(|s| (f64::from(s.toxic()) * 1e4).round() / 1e4);
        self.root["toxicity_scores"][model] = scores.collect();
        self
    }

    /// With a judge and its own accuracy on held-out pairs.
    #[must_use]
    pub fn with_judge(mut self, judge: &RewardJudge) -> Self {
        let judged = json!({ "identity": judge.identity(), "accuracy": judge.accuracy.estimate() });
        if let Value::Array(all) = &mut self.root["judges"] {
            all.push(judged);
        }
        self
    }

    /// With a frontier of reward against KL.
    #[must_use]
    pub fn with_frontier(mut self, frontier: &Frontier) -> Self {
        let point = |p: &Point| {
            json!({ "label": format!("β = {}", p.beta), "beta": p.beta, "step": p.step,
            "model_hash": p.model_hash, "kl": p.kl, "reward": p.reward, "judge": frontier.judge, "seed": frontier.seed })
        };
        self.root.insert("frontier".into(), frontier.points.iter().map(point).collect());
        self
    }

    /// With some prompts and the replies of two models by name; rows that are missing are left out.
    #[must_use]
    pub fn with_samples(
        mut self,
        rows: &[usize],
        prompts: &[String],
        first: (&str, &[Reply]),
        second: (&str, &[Reply]),
    ) -> Self {
        let samples = rows.iter().filter_map(|&i| {
            let (a, b) = (first.1.get(i)?, second.1.get(i)?);
            Some(json!({ "prompt": prompts.get(i)?, "replies": { first.0: a.text, second.0: b.text } }))
        });
        let samples: Vec<Value> = samples.collect();
        if let Value::Array(all) = &mut self.root["samples"] {
            all.extend(samples);
        }
        self
    }

    /// Writes `results_summary.json` and `model_comparison.csv` into a folder.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder: PathBuf = folder.as_ref().into();
        let text = serde_json::to_string_pretty(&self.root)?;
        files::write_atomic(&folder.join(FILE), format!("{text}\n").as_bytes())?;
        self.csv()?.write_csv(folder.join("model_comparison.csv"))
    }

    /// One row for each metric, both models side by side, with full precision.
    fn csv(&self) -> Result<Table> {
        let rows = self.comparison.rows();
        let number =
            |f: &dyn Fn(&MetricRow) -> Option<f64>| rows.iter().map(|r| f(r).unwrap_or(f64::NAN)).collect::<Vec<_>>();
        let text = |f: &dyn Fn(&MetricRow) -> String| rows.iter().map(f).collect::<Vec<_>>();
        let [first, second] = self.comparison.provenance().models.clone().map(|m| m.name.to_lowercase());
        let of = |e: &Estimate, part: usize| [e.value, e.low, e.high][part];
        let column = |name: &str, f: &dyn Fn(&MetricRow) -> Option<f64>| Column::float(name, 4, number(f));
        let mut columns = vec![
            Column::text("metric", text(&|r| r.metric.clone())),
            Column::text("better", text(&|r| format!("{:?}", r.better).to_lowercase())),
        ];
        for (part, end) in ["", "_low", "_high"].iter().enumerate() {
            columns.push(column(&format!("{first}{end}"), &|r| Some(of(r.first.as_ref()?, part))));
        }
        for (part, end) in ["", "_low", "_high"].iter().enumerate() {
            columns.push(column(&format!("{second}{end}"), &|r| Some(of(&r.second, part))));
        }
        columns.push(Column::int("n", rows.iter().map(|r| r.second.n as i64).collect()));
        columns.push(Column::text("interval", text(&|r| r.second.method.to_string())));
        for (part, end) in ["", "_low", "_high"].iter().enumerate() {
            columns.push(column(&format!("difference{end}"), &|r| Some(of(&r.difference.estimate, part))));
        }
        columns.push(column("p", &|r| r.difference.p_value));
        let mut corrected = self.comparison.corrected().into_iter().map(|p| p.unwrap_or(f64::NAN));
        columns.push(Column::float("p_corrected", 6, corrected.by_ref().collect()));
        columns.push(Column::text("verdict", self.comparison.verdicts().iter().map(|v| v.words().into()).collect()));
        Table::new("", columns)
    }
}

/// β that the summary in a folder records for a second model of this hash.
pub(super) fn recorded_beta(folder: &Path, second: &ModelId) -> Result<Option<f64>> {
    let path = folder.join(FILE);
    if !path.exists() {
        return Ok(None);
    }
    let broken = |got: String| {
        let what = format!("{} is not the summary of a run", path.display());
        Error::new(what, got, "let ./scripts/run write the folder again")
    };
    let text = std::fs::read_to_string(&path).map_err(|e| broken(e.to_string()))?;
    let summary: Value = serde_json::from_str(&text).map_err(|e| broken(e.to_string()))?;
    let provenance = &summary["provenance"];
    let same = provenance["models"][1]["hash"] == second.hash.as_str();
    Ok(provenance["beta"].as_f64().filter(|_| same))
}

fn figures(comparison: &Comparison, row: &MetricRow) -> Vec<Figure> {
    let p = comparison.provenance();
    let [first, second] = &p.models;
    let figure = |model: &ModelId, against: Option<&ModelId>, estimate: &Estimate| Figure {
        metric: row.metric.clone(),
        better: row.better,
        model: model.clone(),
        against: against.cloned(),
        estimate: estimate.clone(),
        seed: row.seed,
        data_hash: p.data_hash.clone(),
        instrument: row.instrument.clone(),
    };
    match &row.first {
        Some(of_first) => vec![figure(first, None, of_first), figure(second, None, &row.second)],
        None => vec![figure(second, Some(first), &row.second)],
    }
}
