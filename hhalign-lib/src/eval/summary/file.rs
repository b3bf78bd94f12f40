//! The content of `results_summary.json`, defined once: [`Summary`](super::Summary) writes it, the
//! report reads it, and docs/results_summary.schema.json is generated from it.
//!
//! The types are private to the crate, so that no cell can read a value out of a text of its own.
//! The schema follows from the types, from their attributes, and from two rules that no attribute
//! can express: [`known_or_not`] and [`tested_or_not`].

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use crate::eval::measure::{Better, Instrument};
use crate::eval::verdict::Verdict;
use crate::stats::format::Format;
use crate::stats::{EffectScale, Estimate, Method};
use crate::train::History;

/// The version of the file's schema.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// The name of the file in a results folder.
pub(crate) const FILE: &str = "results_summary.json";

/// The beginning of a SHA-256.
const HASH: &str = "^[0-9a-f]{8,64}$";

/// The results of a run: every value with its interval, its number of cases, and all that it
/// depends on.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields, title = "results_summary.json")]
pub(crate) struct Content {
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// Version of the library.
    #[schemars(regex(pattern = r"^[0-9]+\.[0-9]+\.[0-9]+"))]
    pub hhalign: String,
    pub provenance: Provenance,
    /// Settings of the run by name; a run may add its own.
    #[schemars(extend("additionalProperties" = plain_value()))]
    pub settings: Map<String, Value>,
    /// In the order of the comparisons: a value of each model, or one that is about both.
    #[serde(rename = "figures")]
    #[schemars(length(min = 1))]
    pub values: Vec<MetricValue>,
    #[schemars(length(min = 1))]
    pub comparisons: Vec<Compared>,
    /// Training curves by the model's name.
    pub histories: BTreeMap<String, History>,
    /// Toxicity scores of a model's replies, by its name.
    #[schemars(transform = items_in_unit_interval)]
    pub toxicity_scores: BTreeMap<String, Vec<f64>>,
    pub samples: Vec<Sample>,
    /// Reward against distance from the reference, one entry for each measured step of a training.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frontier: Vec<FrontierPoint>,
    /// How reliable each judge is.
    #[serde(default)]
    pub judges: Vec<JudgeCheck>,
}

/// The version alone, which is read before the rest: another version may lack other fields.
#[derive(Deserialize)]
pub(crate) struct Version {
    pub schema_version: u32,
}

/// The data, the tokenizer, the models and the seed of all values.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "provenance")]
pub(crate) struct Provenance {
    #[schemars(length(min = 1))]
    pub data: String,
    #[schemars(regex(pattern = HASH))]
    pub data_hash: String,
    #[schemars(regex(pattern = HASH))]
    pub tokenizer_hash: String,
    pub models: [Model; 2],
    pub seed: u64,
    /// As the second model's run recorded it; null if no preference run is known.
    #[serde(deserialize_with = "present")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub beta: Option<f64>,
}

/// A model by name and by the hash of its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "model")]
pub(crate) struct Model {
    #[schemars(length(min = 1))]
    pub name: String,
    #[schemars(regex(pattern = HASH))]
    pub hash: String,
}

/// A value with its interval; all three numbers are null if there is not enough data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "estimate", transform = known_or_not)]
pub(crate) struct Number {
    #[serde(deserialize_with = "present")]
    value: Option<f64>,
    #[serde(deserialize_with = "present")]
    low: Option<f64>,
    #[serde(deserialize_with = "present")]
    high: Option<f64>,
    pub n: usize,
    /// The name of the method; a later version may know others.
    #[schemars(length(min = 1))]
    method: String,
}

/// A metric of one model, or of one model against the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "value")]
pub(crate) struct MetricValue {
    #[schemars(length(min = 1))]
    pub metric: String,
    pub better: Better,
    /// The model; of a value about two models the one whose success it counts.
    pub model: Model,
    /// The other model of a value about two.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Model")]
    pub against: Option<Model>,
    #[serde(flatten)]
    pub number: Number,
    pub seed: u64,
    #[schemars(regex(pattern = HASH))]
    pub data_hash: String,
    pub instrument: Instrument,
}

/// The difference of two models in one metric.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "comparison", transform = tested_or_not)]
pub(crate) struct Compared {
    #[schemars(length(min = 1))]
    pub metric: String,
    /// Whether it is a part of the metric before it.
    pub detail: bool,
    #[schemars(length(min = 1))]
    pub first: String,
    #[schemars(length(min = 1))]
    pub second: String,
    pub estimate: Number,
    #[schemars(range(min = 0, max = 1))]
    pub p_value: Option<f64>,
    #[schemars(length(min = 1))]
    pub test: String,
    pub effect: Option<f64>,
    #[schemars(length(min = 1))]
    pub effect_name: String,
    /// p corrected for all tests of the summary, by Holm's method.
    #[schemars(range(min = 0, max = 1))]
    pub p_corrected: Option<f64>,
    pub verdict: Verdict,
}

/// A prompt and each model's reply.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "sample")]
pub(crate) struct Sample {
    pub prompt: String,
    #[schemars(extend("minProperties" = 1))]
    pub replies: BTreeMap<String, String>,
}

/// The reward of a policy against its distance from the reference, at one step of its training.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "frontier")]
pub(crate) struct FrontierPoint {
    /// The training.
    #[schemars(length(min = 1))]
    pub label: String,
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub beta: f64,
    pub step: usize,
    #[schemars(regex(pattern = HASH))]
    pub model_hash: String,
    pub kl: Number,
    pub reward: Number,
    /// The judge that gave the rewards.
    #[schemars(length(min = 1))]
    pub judge: String,
    pub seed: u64,
}

/// How often a judge agrees with preferences that it has not seen.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "judge")]
pub(crate) struct JudgeCheck {
    #[schemars(length(min = 1))]
    pub identity: String,
    pub accuracy: Number,
}

impl From<&Estimate> for Number {
    fn from(estimate: &Estimate) -> Self {
        let finite = |x: f64| x.is_finite().then_some(x);
        Self {
            value: finite(estimate.value),
            low: finite(estimate.low),
            high: finite(estimate.high),
            n: estimate.n,
            method: estimate.method.to_string(),
        }
    }
}

impl Number {
    /// The value and the ends of its interval.
    pub fn known(&self) -> Option<[f64; 3]> {
        Some([self.value?, self.low?, self.high?])
    }

    /// The method of the interval; `None` for one that this version does not know.
    pub fn method(&self) -> Option<Method> {
        Method::from_words(&self.method)
    }

    /// Whether it follows from a definition, and was not measured.
    pub fn is_by_definition(&self) -> bool {
        self.method() == Some(Method::ByDefinition)
    }

    /// Whether it is a share of cases, which the report shows in percent.
    pub fn is_share(&self) -> bool {
        self.method().is_some_and(Method::is_share)
    }

    /// Writes the value with its interval, or why there is none.
    pub fn format(&self, format: &Format) -> String {
        format.estimate(self.known(), self.n, self.method().unwrap_or(Method::NotEnoughData))
    }
}

impl Compared {
    /// The scale of the effect; `None` for one that this version does not know.
    pub fn effect_scale(&self) -> Option<EffectScale> {
        EffectScale::from_words(&self.effect_name)
    }
}

/// Reads a number or null, and refuses a missing field: no value lacks its interval.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    Option::deserialize(from)
}

/// Either the value and its interval are known, or all three are null and the method says why.
fn known_or_not(schema: &mut Schema) {
    let unknown = [Method::NotEnoughData, Method::TooUneven].map(Method::words);
    let numbers = |kind: &str| {
        let number = json!({ "type": kind });
        json!({ "value": number, "low": number, "high": number })
    };
    let mut known = numbers("number");
    known["n"] = json!({ "minimum": 1 });
    schema.insert("if".into(), json!({ "properties": { "method": { "enum": unknown } } }));
    schema.insert("then".into(), json!({ "properties": numbers("null") }));
    schema.insert("else".into(), json!({ "properties": known }));
}

/// A test has a corrected p-value and a verdict; without one there is neither. Parts of another
/// metric are not tested.
fn tested_or_not(schema: &mut Schema) {
    let not_tested = json!({ "const": Verdict::NotTested });
    let without = json!({ "p_corrected": { "type": "null" }, "verdict": not_tested });
    let with = json!({
        "p_corrected": { "type": "number" },
        "detail": { "const": false },
        "verdict": { "not": not_tested },
    });
    schema.insert("if".into(), json!({ "properties": { "p_value": { "type": "null" } } }));
    schema.insert("then".into(), json!({ "properties": without }));
    schema.insert("else".into(), json!({ "properties": with }));
}

/// Scores are in [0, 1].
fn items_in_unit_interval(schema: &mut Schema) {
    let items = schema.pointer_mut("/additionalProperties/items");
    let items = items.and_then(Value::as_object_mut).expect("a map of lists");
    items.extend([("minimum".into(), json!(0)), ("maximum".into(), json!(1))]);
}

/// A setting is a number, a text, a truth value or null.
fn plain_value() -> Value {
    json!({ "type": ["number", "string", "boolean", "null"] })
}
