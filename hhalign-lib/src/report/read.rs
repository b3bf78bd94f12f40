//! A results folder read back: what the summary says, row by row.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::eval::comparison::Verdict;
use crate::eval::measure::{Better, Instrument, is_perplexity};
use crate::eval::summary::SCHEMA_VERSION;
use crate::stats::{EffectScale, Method};
use crate::train::History;

/// The file that a report is made of.
pub(super) const SUMMARY: &str = "results_summary.json";

/// A model by name and by the hash of its weights.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Model {
    pub name: String,
    pub hash: String,
}

/// What all figures of a summary rest on.
#[derive(Debug, Deserialize)]
pub(super) struct Provenance {
    pub data: String,
    pub data_hash: String,
    pub tokenizer_hash: String,
    pub models: [Model; 2],
    pub seed: u64,
    /// β of the second model's training; `None` where no run recorded one.
    #[serde(deserialize_with = "present")]
    pub beta: Option<f64>,
}

/// A figure with its interval; all three are missing where there was not enough data.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Number {
    #[serde(deserialize_with = "present")]
    value: Option<f64>,
    #[serde(deserialize_with = "present")]
    low: Option<f64>,
    #[serde(deserialize_with = "present")]
    high: Option<f64>,
    pub n: usize,
    /// How the interval was made; `None` for a method that this version does not know.
    #[serde(deserialize_with = "method")]
    pub method: Option<Method>,
}

/// A number or null, but not nothing: a figure without its interval is no figure.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    Option::deserialize(from)
}

fn method<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Method>, D::Error> {
    Ok(Method::from_words(&String::deserialize(from)?))
}

fn effect_scale<'de, D: Deserializer<'de>>(from: D) -> Result<Option<EffectScale>, D::Error> {
    Ok(EffectScale::from_words(&String::deserialize(from)?))
}

impl Number {
    /// Value, lower and upper end.
    pub fn known(&self) -> Option<[f64; 3]> {
        Some([self.value?, self.low?, self.high?])
    }

    /// Whether it follows from a definition, and was not measured.
    pub fn defined(&self) -> bool {
        self.method == Some(Method::ByDefinition)
    }

    /// Whether it is a share of cases: such figures are shown in percent.
    fn is_share(&self) -> bool {
        self.method.is_some_and(Method::is_share)
    }
}

#[derive(Debug, Deserialize)]
struct Figure {
    metric: String,
    better: Better,
    model: Model,
    against: Option<Model>,
    #[serde(flatten)]
    number: Number,
    data_hash: String,
    instrument: Instrument,
}

#[derive(Debug, Deserialize)]
struct Compared {
    metric: String,
    detail: bool,
    estimate: Number,
    p_value: Option<f64>,
    p_corrected: Option<f64>,
    test: String,
    effect: Option<f64>,
    #[serde(rename = "effect_name", deserialize_with = "effect_scale")]
    effect_scale: Option<EffectScale>,
    verdict: Verdict,
}

/// A prompt and each model's reply.
#[derive(Debug, Deserialize)]
pub(super) struct Sample {
    pub prompt: String,
    pub replies: BTreeMap<String, String>,
}

/// One state of a training: its reward against its distance from the reference.
#[derive(Debug, Deserialize)]
pub(super) struct FrontierPoint {
    /// Which training.
    pub label: String,
    pub step: usize,
    /// Who gave the rewards.
    pub judge: String,
    pub kl: Number,
    pub reward: Number,
}

/// How often a judge agreed with preferences that it had not seen.
#[derive(Debug, Deserialize)]
pub(super) struct JudgeCheck {
    pub identity: String,
    pub accuracy: Number,
}

#[derive(Deserialize)]
struct Version {
    schema_version: u32,
}

#[derive(Deserialize)]
struct Raw {
    hhalign: String,
    provenance: Provenance,
    settings: Map<String, Value>,
    figures: Vec<Figure>,
    comparisons: Vec<Compared>,
    histories: BTreeMap<String, History>,
    toxicity_scores: BTreeMap<String, Vec<f64>>,
    samples: Vec<Sample>,
    #[serde(default)]
    frontier: Vec<FrontierPoint>,
    #[serde(default)]
    judges: Vec<JudgeCheck>,
}

/// How a difference is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Second - first.
    Difference,
    /// Second / first: 1 is none.
    Ratio,
    /// A rate of wins - one half.
    FromChance,
}

/// One metric of both models.
#[derive(Debug)]
pub(super) struct Row {
    pub metric: String,
    /// Whether it is a part of the metric above it.
    pub detail: bool,
    pub better: Better,
    pub instrument: Instrument,
    pub data_hash: String,
    /// The first model's figure; `None` where a figure is about both.
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
    /// Whether its figures are shares, to be shown in percent.
    pub fn is_share(&self) -> bool {
        self.first.is_none() || self.first.iter().chain([&self.second]).any(Number::is_share)
    }

    /// Whether either figure is missing.
    pub fn lacks_data(&self) -> bool {
        self.first.iter().chain([&self.second]).any(|n| n.known().is_none())
    }
}

/// A summary whose figures stand beside their comparisons.
#[derive(Debug)]
pub(super) struct Results {
    /// The folder's own name.
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

impl Provenance {
    /// β as text.
    pub fn beta_text(&self) -> String {
        self.beta.map_or("not recorded".into(), |beta| beta.to_string())
    }
}

impl Results {
    /// Of a folder that a run wrote.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(SUMMARY);
        let text = fs::read_to_string(&path).map_err(|e| {
            let what = format!("{} holds no {SUMMARY} that can be read", folder.display());
            let fix = format!("name a folder that a run has written: ./scripts/run --out {}", folder.display());
            Error::new(what, e.to_string(), fix)
        })?;
        let broken = |e: serde_json::Error| {
            let what = format!("{} is not the summary of a run", path.display());
            Error::new(what, e.to_string(), "let ./scripts/run write the folder again")
        };
        // The version first: a summary of another one may well lack other things.
        let Version { schema_version } = serde_json::from_str(&text).map_err(broken)?;
        if schema_version != SCHEMA_VERSION {
            let what = format!("{} follows another schema than this library", path.display());
            let got = format!("schema_version {schema_version}, and this library reads {SCHEMA_VERSION}");
            let fix = "use the version of the library that wrote it, or run again";
            return Err(Error::new(what, got, fix));
        }
        let raw: Raw = serde_json::from_str(&text).map_err(broken)?;
        let rows = rows(raw.figures, raw.comparisons, &raw.provenance.models).map_err(|e| e.at(path.display()))?;
        let name = fs::canonicalize(folder).ok().and_then(|f| Some(f.file_name()?.to_string_lossy().into_owned()));
        Ok(Self {
            folder: name.unwrap_or_else(|| folder.display().to_string()),
            version: raw.hhalign,
            provenance: raw.provenance,
            settings: raw.settings,
            rows,
            histories: raw.histories,
            toxicity_scores: raw.toxicity_scores,
            samples: raw.samples,
            frontier: raw.frontier,
            judges: raw.judges,
        })
    }

    /// The first and the second model's name.
    pub fn names(&self) -> [&str; 2] {
        [&self.provenance.models[0].name, &self.provenance.models[1].name]
    }

    /// Whether the data came from the library's own grammar.
    pub fn is_synthetic(&self) -> bool {
        let data = self.provenance.data.to_lowercase();
        data.contains("embedded") || data.contains("synthetic")
    }

    /// A setting that is a whole number.
    pub fn count(&self, name: &str) -> Option<i64> {
        self.settings.get(name)?.as_i64()
    }

    /// The metrics that are not parts of another one.
    pub fn main_rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|r| !r.detail)
    }
}

/// Each comparison with its figures: they are written in one order, two figures to a comparison, or one that is about
/// both models.
fn rows(figures: Vec<Figure>, comparisons: Vec<Compared>, models: &[Model; 2]) -> Result<Vec<Row>> {
    let apart = |got: String| {
        Error::new("figures and comparisons do not belong together", got, "let ./scripts/run write the folder again")
    };
    let mut figures = figures.into_iter();
    let mut next = |metric: &str| {
        let figure = figures.next().ok_or_else(|| apart(format!("no figure for {metric:?}")))?;
        if figure.metric != metric {
            return Err(apart(format!("{:?} where {metric:?} was expected", figure.metric)));
        }
        Ok(figure)
    };
    let mut rows = vec![];
    for c in comparisons {
        let figure = next(&c.metric)?;
        let (first, second) = match &figure.against {
            Some(_) => (None, figure),
            None => (Some(figure), next(&c.metric)?),
        };
        if second.model != models[1] || first.as_ref().is_some_and(|f| f.model != models[0]) {
            return Err(apart(format!("{:?} of {}", c.metric, second.model.name)));
        }
        let first = first.map(|f| f.number);
        rows.push(Row {
            kind: kind(&c, first.as_ref(), &second.number),
            metric: c.metric,
            detail: c.detail,
            better: second.better,
            instrument: second.instrument,
            data_hash: second.data_hash,
            first,
            second: second.number,
            difference: c.estimate,
            p_value: c.p_value,
            p_corrected: c.p_corrected,
            test: c.test,
            effect: c.effect,
            effect_scale: c.effect_scale,
            verdict: c.verdict,
        });
    }
    match figures.next() {
        Some(left) => Err(apart(format!("a figure without a comparison: {:?}", left.metric))),
        None => Ok(rows),
    }
}

/// A ratio where the numbers are those of one; where both readings fit, the name decides.
fn kind(compared: &Compared, first: Option<&Number>, second: &Number) -> Kind {
    let Some(first) = first else { return Kind::FromChance };
    let (Some([d, ..]), Some([a, ..]), Some([b, ..])) = (compared.estimate.known(), first.known(), second.known())
    else {
        return Kind::Difference;
    };
    let is = |x: f64| (d - x).abs() <= 1e-6 * (1.0 + x.abs());
    if is(b / a) && (!is(b - a) || is_perplexity(&compared.metric)) { Kind::Ratio } else { Kind::Difference }
}
