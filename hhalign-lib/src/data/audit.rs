//! The audit of a data set: it counts every irregularity in each subset, so that no row is dropped
//! without being counted.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Pair;
use super::parse::{Irregularity, parse_row};
use super::source::RawRow;
use crate::base::error::Result;
use crate::show::table::{Column, Table};

/// The counts of one subset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubsetAudit {
    /// Rows read.
    pub rows: usize,
    /// Pairs kept.
    pub kept: usize,
    /// Rows with each irregularity; a row may have several.
    pub found: BTreeMap<Irregularity, usize>,
    /// Rows dropped, by the first irregularity that drops them.
    pub dropped: BTreeMap<Irregularity, usize>,
    /// Prompts that occur in more than one row.
    pub repeated_prompts: usize,
    /// Rows whose first turn also occurs in another row.
    pub rows_sharing_first_turn: usize,
}

/// The audit of a data set: one [`SubsetAudit`] for each subset.
#[derive(Debug, Clone, Default)]
pub struct Audit {
    /// The subsets in the order in which they were read.
    pub subsets: Vec<(Arc<str>, SubsetAudit)>,
}

impl Audit {
    /// Returns the number of rows read.
    pub fn rows_read(&self) -> usize {
        self.subsets.iter().map(|s| s.1.rows).sum()
    }

    /// Returns the number of pairs kept.
    pub fn pairs_kept(&self) -> usize {
        self.subsets.iter().map(|s| s.1.kept).sum()
    }

    /// Returns the audit of one subset, or `None` if it was not read.
    pub fn subset(&self, name: &str) -> Option<&SubsetAudit> {
        self.subsets.iter().find(|s| &*s.0 == name).map(|s| &s.1)
    }

    /// Returns a table of the irregularities and what is done about each, with one column of counts
    /// for each subset.
    ///
    /// # Errors
    /// A failure of the table library.
    pub fn table(&self) -> Result<Table> {
        let mut what = vec!["rows read".to_string()];
        let mut action = vec![String::new()];
        let mut counts: Vec<Vec<i64>> =
            self.subsets.iter().map(|s| vec![s.1.rows as i64]).collect();
        let mut row = |label: &str, done: &str, count: &dyn Fn(&SubsetAudit) -> usize| {
            what.push(label.into());
            action.push(done.into());
            for (column, subset) in counts.iter_mut().zip(&self.subsets) {
                column.push(count(&subset.1) as i64);
            }
        };
        for it in Irregularity::ALL {
            row(it.label(), it.action(), &|s| s.found.get(&it).copied().unwrap_or(0));
        }
        row("prompts that repeat", "kept: all on one side of the split", &|s| s.repeated_prompts);
        row("rows that share a first turn", "kept: all on one side of the split", &|s| {
            s.rows_sharing_first_turn
        });
        row("rows dropped (each counted once)", "", &|s| s.dropped.values().sum());
        row("pairs kept", "", &|s| s.kept);
        let mut columns = vec![Column::text("found", what), Column::text("what was done", action)];
        for ((name, _), values) in self.subsets.iter().zip(counts) {
            columns.push(Column::int(name.to_string(), values));
        }
        Table::new("Audit of the preference data", columns)
    }
}

/// Parses every row and counts its irregularities.
pub fn audit_rows(rows: Vec<RawRow>) -> (Vec<Pair>, Audit) {
    let mut audit = Audit::default();
    let mut pairs = vec![];
    let mut prompts: HashMap<(usize, String), usize> = HashMap::new();
    let mut first_turns: HashMap<(usize, String), usize> = HashMap::new();
    for row in rows {
        let index = match audit.subsets.iter().position(|s| s.0 == row.origin.subset) {
            Some(index) => index,
            None => {
                audit.subsets.push((row.origin.subset.clone(), SubsetAudit::default()));
                audit.subsets.len() - 1
            }
        };
        let prompt = match row.chosen.rfind(super::parse::ASSISTANT) {
            Some(at) => row.chosen[..at].to_string(),
            None => row.chosen.clone(),
        };
        *first_turns.entry((index, super::parse::first_turn(&prompt).to_string())).or_default() +=
            1;
        *prompts.entry((index, prompt)).or_default() += 1;
        let subset = &mut audit.subsets[index].1;
        subset.rows += 1;
        let (found, pair) = parse_row(row);
        for &it in &found {
            *subset.found.entry(it).or_default() += 1;
        }
        match pair {
            Some(pair) => {
                subset.kept += 1;
                pairs.push(pair);
            }
            None => {
                let reason = found
                    .into_iter()
                    .find(|i| i.drops())
                    .expect("a row without a pair has an irregularity that drops it");
                *subset.dropped.entry(reason).or_default() += 1;
            }
        }
    }
    for ((index, _), count) in prompts {
        audit.subsets[index].1.repeated_prompts += usize::from(count > 1);
    }
    for ((index, _), count) in first_turns {
        audit.subsets[index].1.rows_sharing_first_turn += if count > 1 { count } else { 0 };
    }
    (pairs, audit)
}
