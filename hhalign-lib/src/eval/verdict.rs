//! What a test says about two models.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The conclusion of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "verdict")]
pub enum Verdict {
    /// The second model is better.
    Better,
    /// The second model is worse.
    Worse,
    /// They differ, and neither direction is better by itself.
    Different,
    /// No difference was shown, which does not prove that there is none.
    NotShown,
    /// There is no test.
    NotTested,
}

impl Verdict {
    /// The verdict in words.
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
