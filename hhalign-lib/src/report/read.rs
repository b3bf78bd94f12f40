//! A results folder, read back row by row.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use crate::base::error::{Error, Result};
use crate::eval::comparison::Verdict;
use crate::eval::measure::{Better, Instrument, is_perplexity};
use crate::eval::summary::Summary;
use crate::eval::summary::file::{
    Compared, FrontierPoint, JudgeCheck, MetricValue, Model, Number, Provenance, Sample,
};
use crate::stats::EffectScale;
use crate::train::History;

/// The meaning of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Second - first.
    Difference,
    /// Second / first: 1 means no difference.
    Ratio,
    /// A rate of wins - one half.
    FromChance,
}

/// One metric of both models.
#[derive(Debug)]
pub(super) struct Row {
    pub metric: String,
    /// Whether it is a part of the metric before it.
    pub detail: bool,
    pub better: Better,
    pub instrument: Instrument,
    pub data_hash: String,
    /// The first model's value; `None` if the row has one value about both.
    pub first: Option<Number>,
    pub second: Number,
    pub difference: Number,
    pub kind: Kind,
    pub p_value: Option<f64>,
    pub p_corrected: Option<f64>,
    pub test: String,
    pub effect: Option<f64>,
    /// `None` for a scale that this version does not know.
    pub effect_scale: Option<EffectScale>,
    pub verdict: Verdict,
}

impl Row {
    /// The values of the row: one of each model, or one about both.
    pub fn values(&self) -> impl Iterator<Item = &Number> {
        self.first.iter().chain([&self.second])
    }

    /// Whether its values are shares, which the report shows in percent.
    pub fn is_share(&self) -> bool {
        self.first.is_none() || self.values().any(Number::is_share)
    }

    /// Whether a value is missing.
    pub fn lacks_data(&self) -> bool {
        self.values().any(|n| n.known().is_none())
    }
}

/// The content of a summary, with values and comparisons joined into rows.
#[derive(Debug)]
pub(super) struct Results {
    /// The name of the folder.
    pub folder: String,
    pub version: String,
    pub provenance: Provenance,
    pub settings: Map<String, Value>,
    pub rows: Vec<Row>,
    pub histories: BTreeMap<String, History>,
    pub toxicity_scores: BTreeMap<String, Vec<f64>>,
    pub samples: Vec<Sample>,
    pub frontier: Vec<FrontierPoint>,
    pub judges: Vec<JudgeCheck>,
}

impl Results {
    /// Reads the folder of a run.
    pub fn read(folder: &Path) -> Result<Self> {
        let recorded = Summary::read(folder)?;
        let path = recorded.path().display().to_string();
        let content = recorded.content;
        let rows = rows(content.values, content.comparisons, &content.provenance.models)
            .map_err(|e| e.at(path))?;
        let canonical = fs::canonicalize(folder).ok();
        let name = canonical.and_then(|f| Some(f.file_name()?.to_string_lossy().into_owned()));
        Ok(Self {
            folder: name.unwrap_or_else(|| folder.display().to_string()),
            version: content.hhalign,
            provenance: content.provenance,
            settings: content.settings,
            rows,
            histories: content.histories,
            toxicity_scores: content.toxicity_scores,
            samples: content.samples,
            frontier: content.frontier,
            judges: content.judges,
        })
    }

    /// The names of the first and the second model.
    pub fn names(&self) -> [&str; 2] {
        [&self.provenance.models[0].name, &self.provenance.models[1].name]
    }

    /// Whether the data came from the library's own grammar.
    pub fn is_synthetic(&self) -> bool {
        let data = self.provenance.data.to_lowercase();
        data.contains("embedded") || data.contains("synthetic")
    }

    /// A setting that is an integer.
    pub fn count(&self, name: &str) -> Option<i64> {
        self.settings.get(name)?.as_i64()
    }

    /// The metrics that are not parts of another one.
    pub fn main_rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|r| !r.detail)
    }
}

/// Joins each comparison with its values: the file has both in one order, with two values for a
/// comparison, or one that is about both models.
fn rows(
    values: Vec<MetricValue>,
    comparisons: Vec<Compared>,
    models: &[Model; 2],
) -> Result<Vec<Row>> {
    let mismatch = |got: String| {
        let fix = "let ./scripts/run write the folder again";
        Error::data("values and comparisons do not belong together", got, fix)
    };
    let mut values = values.into_iter();
    let mut next = |metric: &str| {
        let value = values.next().ok_or_else(|| mismatch(format!("no value for {metric:?}")))?;
        if value.metric != metric {
            let got = format!("{:?} where {metric:?} was expected", value.metric);
            return Err(mismatch(got));
        }
        Ok(value)
    };
    let mut rows = vec![];
    for compared in comparisons {
        let value = next(&compared.metric)?;
        let (first, second) = match &value.against {
            Some(_) => (None, value),
            None => (Some(value), next(&compared.metric)?),
        };
        let is_swapped = first.as_ref().is_some_and(|f| f.model != models[0]);
        if second.model != models[1] || is_swapped {
            return Err(mismatch(format!("{:?} of {}", compared.metric, second.model.name)));
        }
        let first = first.map(|f| f.number);
        rows.push(Row {
            kind: kind(&compared, first.as_ref(), &second.number),
            effect_scale: compared.effect_scale(),
            metric: compared.metric,
            detail: compared.detail,
            better: second.better,
            instrument: second.instrument,
            data_hash: second.data_hash,
            first,
            second: second.number,
            difference: compared.estimate,
            p_value: compared.p_value,
            p_corrected: compared.p_corrected,
            test: compared.test,
            effect: compared.effect,
            verdict: compared.verdict,
        });
    }
    match values.next() {
        Some(left) => Err(mismatch(format!("a value without a comparison: {:?}", left.metric))),
        None => Ok(rows),
    }
}

/// A ratio if the numbers are those of one; if they fit both readings, the name decides.
fn kind(compared: &Compared, first: Option<&Number>, second: &Number) -> Kind {
    let Some(first) = first else { return Kind::FromChance };
    let (Some([d, ..]), Some([a, ..]), Some([b, ..])) =
        (compared.estimate.known(), first.known(), second.known())
    else {
        return Kind::Difference;
    };
    let is = |x: f64| (d - x).abs() <= 1e-6 * (1.0 + x.abs());
    if is(b / a) && (!is(b - a) || is_perplexity(&compared.metric)) {
        Kind::Ratio
    } else {
        Kind::Difference
    }
}
