//! The summary of an earlier run, read back from its folder.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::file::{Content, FILE, MetricValue, Number, SCHEMA_VERSION, Version};
use crate::base::error::{Error, Result};
use crate::eval::measure::Instrument;
use crate::stats::format::Format;

/// A summary as a file records it.
///
/// Only [`Summary::read`](super::Summary::read) creates one. Its values can be shown, but they are
/// no [`Estimate`](crate::stats::Estimate): what a file says cannot enter a comparison.
#[derive(Debug, Clone)]
pub struct RecordedSummary {
    path: PathBuf,
    pub(crate) content: Content,
}

impl RecordedSummary {
    /// Reads the summary in a results folder.
    ///
    /// # Errors
    /// No summary in the folder, one that is broken, or one of another schema.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let text = fs::read_to_string(&path).map_err(|e| {
            let what = format!("{} holds no {FILE} that can be read", folder.display());
            let fix = format!(
                "name a folder that a run has written: ./scripts/run --out {}",
                folder.display()
            );
            Error::io(&path, e).with_message(what, fix)
        })?;
        let broken = |e: serde_json::Error| {
            let what = format!("{} is not the summary of a run", path.display());
            Error::from(e).with_message(what, "let ./scripts/run write the folder again")
        };
        let Version { schema_version } = serde_json::from_str(&text).map_err(broken)?;
        if schema_version != SCHEMA_VERSION {
            let what = format!("{} follows another schema than this library", path.display());
            let got =
                format!("schema_version {schema_version}, and this library reads {SCHEMA_VERSION}");
            let fix = "use the version of the library that wrote it, or run again";
            return Err(Error::data(what, got, fix));
        }
        let content = serde_json::from_str(&text).map_err(broken)?;
        Ok(Self { path, content })
    }

    /// The file that it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The values in the order of the file.
    pub fn values(&self) -> Vec<SummaryValue> {
        let recorded =
            |entry: &MetricValue| SummaryValue::new(entry.clone(), Some(self.path.clone()));
        self.content.values.iter().map(recorded).collect()
    }
}

/// A value of a summary with all that it depends on: n, interval, seed, data, model, instrument.
///
/// A row of a [`Comparison`](crate::eval::comparison::Comparison) becomes one, which takes hashes
/// from the data and the weights themselves, or a summary on disk, whose path is the value's
/// [`origin`](Self::origin). The type system rejects a value that is typed in, also as JSON:
///
/// ```compile_fail
/// use hhalign::eval::summary::SummaryValue;
/// let typed_in = SummaryValue { metric: "win rate".into(), value: 0.68 };
/// ```
/// ```compile_fail
/// use hhalign::eval::summary::SummaryValue;
/// let typed_in = serde_json::from_str::<SummaryValue>(r#"{"metric": "win rate", "value": 0.68}"#);
/// ```
/// ```compile_fail
/// use hhalign::eval::summary::RecordedSummary;
/// let typed_in = serde_json::from_str::<RecordedSummary>("{}");
/// ```
/// ```compile_fail
/// use hhalign::stats::{Estimate, Method};
/// let typed_in = Estimate { value: 0.68, low: 0.68, high: 0.68, n: 50, method: Method::Wilson };
/// ```
/// ```compile_fail
/// use hhalign::stats::Estimate;
/// let typed_in = serde_json::from_str::<Estimate>(r#"{"value": 0.68}"#);
/// ```
/// ```compile_fail
/// use hhalign::eval::comparison::ModelId;
/// let typed_in = serde_json::from_str::<ModelId>(r#"{"name": "DPO", "hash": "0123456789ab"}"#);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct SummaryValue {
    entry: MetricValue,
    origin: Option<PathBuf>,
}

impl SummaryValue {
    pub(super) fn new(entry: MetricValue, origin: Option<PathBuf>) -> Self {
        Self { entry, origin }
    }

    /// The metric.
    pub fn metric(&self) -> &str {
        &self.entry.metric
    }

    /// The name of the model; of a value about two models the one whose success it counts.
    pub fn model(&self) -> &str {
        &self.entry.model.name
    }

    /// The hash of the model's weights.
    pub fn model_hash(&self) -> &str {
        &self.entry.model.hash
    }

    /// The name of the other model, of a value about two.
    pub fn against(&self) -> Option<&str> {
        self.entry.against.as_ref().map(|model| model.name.as_str())
    }

    /// The value and the ends of its 95% interval, if there was enough data.
    pub fn known(&self) -> Option<[f64; 3]> {
        self.entry.number.known()
    }

    /// The number of cases.
    pub fn n(&self) -> usize {
        self.entry.number.n
    }

    /// The instrument.
    pub fn instrument(&self) -> &Instrument {
        &self.entry.instrument
    }

    /// The hash of the data.
    pub fn data_hash(&self) -> &str {
        &self.entry.data_hash
    }

    /// The seed of interval and test.
    pub fn seed(&self) -> u64 {
        self.entry.seed
    }

    /// The file that it was read from; `None` for a value that this process measured.
    pub fn origin(&self) -> Option<&Path> {
        self.origin.as_deref()
    }
}

impl fmt::Display for SummaryValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number: &Number = &self.entry.number;
        write!(f, "{}, {}: {}", self.metric(), self.model(), number.format(&Format::TABLE))?;
        match number.known() {
            Some(_) => write!(f, ", {}", Format::TABLE.cases(number.n)),
            None => Ok(()),
        }
    }
}
