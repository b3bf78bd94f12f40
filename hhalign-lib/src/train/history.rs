//! The history of a run, step by step, under TRL's metric names.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::error::Result;
use crate::show::table::{Column, Table};

/// The metrics of one logged step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "record")]
pub struct Record {
    /// Optimiser steps taken so far.
    pub step: usize,
    /// Metrics by name: `loss`, `rewards/accuracies`, `eval_loss`, ...
    #[schemars(with = "BTreeMap<String, Option<f64>>")]
    pub metrics: BTreeMap<String, f64>,
}

/// An event of a run at a step, such as a changed setting or a fork.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "mark")]
pub struct Mark {
    /// Optimiser steps taken before the event.
    pub step: usize,
    /// The event, such as `beta 0.3`.
    pub text: String,
}

/// All logged steps of a run, in order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "history")]
pub struct History {
    /// The records.
    pub records: Vec<Record>,
    /// The events.
    #[serde(default)]
    pub marks: Vec<Mark>,
}

impl History {
    /// Adds metrics to the record of a step.
    pub fn log(&mut self, step: usize, metrics: impl IntoIterator<Item = (String, f64)>) {
        if self.records.last().is_none_or(|r| r.step != step) {
            self.records.push(Record { step, metrics: BTreeMap::new() });
        }
        let last = self.records.last_mut().expect("a record was just pushed");
        last.metrics.extend(metrics);
    }

    /// Returns steps and values of one metric, for the steps at which it was logged.
    pub fn series(&self, metric: &str) -> Vec<(f64, f64)> {
        self.records
            .iter()
            .filter_map(|r| r.metrics.get(metric).map(|&v| (r.step as f64, v)))
            .collect()
    }

    /// Returns the last value of a metric.
    pub fn last(&self, metric: &str) -> Option<f64> {
        self.series(metric).last().map(|p| p.1)
    }

    /// Returns every metric's name, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.records.iter().flat_map(|r| r.metrics.keys().cloned()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Returns a table with one row for each logged step and one column for each metric.
    ///
    /// # Errors
    /// A failure of the table library.
    pub fn table(&self) -> Result<Table> {
        let mut columns =
            vec![Column::int("step", self.records.iter().map(|r| r.step as i64).collect())];
        for name in self.names() {
            let values = self
                .records
                .iter()
                .map(|r| r.metrics.get(&name).copied().unwrap_or(f64::NAN))
                .collect();
            let decimals = match name.as_str() {
                "num_tokens" | "tokens_per_s" => 0,
                "learning_rate" => 6,
                _ => 4,
            };
            columns.push(Column::float(name, decimals, values));
        }
        Table::new("History", columns)
    }
}
