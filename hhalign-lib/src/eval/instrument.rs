//! The instrument of a metric, and which way the metric should go.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The better direction of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "better")]
pub enum Better {
    /// Higher is better.
    Higher,
    /// Lower is better.
    Lower,
    /// Neither direction is better.
    Neither,
}

/// The instrument that turns replies into a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", content = "identity", rename_all = "snake_case")]
#[schemars(deny_unknown_fields, rename = "instrument")]
pub enum Instrument {
    /// A formula alone.
    Formula,
    /// A classifier, by name, version and hash.
    Classifier(#[schemars(length(min = 1))] String),
    /// A judge, by name, version and hash.
    Judge(#[schemars(length(min = 1))] String),
    /// A rule that reads texts, by name.
    Rule(#[schemars(length(min = 1))] String),
    /// A language model other than the two compared ones, by name and hash.
    LanguageModel(#[schemars(length(min = 1))] String),
}

impl Instrument {
    /// Returns the instrument as text for a table's note; `None` for a formula.
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

impl Better {
    /// An arrow in the better direction.
    pub fn arrow(self) -> &'static str {
        match self {
            Self::Higher => "↑",
            Self::Lower => "↓",
            Self::Neither => "",
        }
    }
}
