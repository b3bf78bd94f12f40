//! The split into training and held-out pairs: the first turn of a dialogue is never on both sides.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use super::Pair;
use crate::base::error::{Error, Result};
use crate::show::table::{Column, Table};

/// Training and held-out pairs, how they were divided, and how many were left out.
#[derive(Debug, Clone)]
pub struct Split {
    /// Pairs to train on.
    pub train: Vec<Pair>,
    /// Pairs to measure on.
    pub held_out: Vec<Pair>,
    /// The rule that assigned the pairs to sides.
    pub rule: SplitRule,
    /// Training pairs left out because their first turn is also a held-out one.
    pub overlap_removed: usize,
}

/// The rule that assigns a pair to a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SplitRule {
    /// The source's own split: files named train and test, or the embedded set's held-out templates
    /// and fillers.
    Official,
    /// A hash of the first turn.
    FirstTurnHash,
}

/// Splits by the official side if the source has both sides, otherwise by a hash of the first turn.
///
/// The hash is of the trimmed, lower-cased text, so the same question is never on both sides,
/// whatever the seed and the order of the rows. With an official split, training pairs whose first
/// turn is also a held-out one are left out and counted.
///
/// # Errors
/// A `held_out_fraction` outside (0, 1), or an empty side.
///
/// # Example
/// ```
/// let data = hhalign::data::Dataset::embedded(1, 300)?;
/// let split = data.split(0.1)?;
/// assert_eq!(split.overlap(), 0);
/// # Ok::<(), hhalign::base::error::Error>(())
/// ```
pub fn split(pairs: &[Pair], held_out_fraction: f64) -> Result<Split> {
    if !(held_out_fraction > 0.0 && held_out_fraction < 1.0) {
        return Err(Error::new(
            "the held-out fraction must lie between 0 and 1",
            held_out_fraction.to_string(),
            "choose a value such as 0.1",
        ));
    }
    let official = pairs.iter().any(|p| p.held_out == Some(true))
        && pairs.iter().any(|p| p.held_out == Some(false));
    let rule = if official { SplitRule::Official } else { SplitRule::FirstTurnHash };
    let is_held_out = |p: &Pair| match (rule, p.held_out) {
        (SplitRule::Official, Some(side)) => side,
        _ => hash_fraction(p.first_turn()) < held_out_fraction,
    };
    let (held_out, mut train): (Vec<Pair>, Vec<Pair>) =
        pairs.iter().cloned().partition(is_held_out);
    let seen: HashSet<String> = held_out.iter().map(|p| normalize(p.first_turn())).collect();
    let before = train.len();
    train.retain(|p| !seen.contains(&normalize(p.first_turn())));
    let overlap_removed = before - train.len();
    if train.is_empty() || held_out.is_empty() {
        return Err(Error::new(
            "a split needs pairs on both sides",
            format!("{} to train on and {} held out", train.len(), held_out.len()),
            "use more pairs, or another held-out fraction",
        ));
    }
    Ok(Split { train, held_out, rule, overlap_removed })
}

impl Split {
    /// Counts the first turns that are on both sides; a correct split has none.
    pub fn overlap(&self) -> usize {
        let train: HashSet<String> = self.train.iter().map(|p| normalize(p.first_turn())).collect();
        self.held_out
            .iter()
            .map(|p| normalize(p.first_turn()))
            .collect::<HashSet<_>>()
            .intersection(&train)
            .count()
    }

    /// Removes a share of the training pairs and returns them for another use, such as training a
    /// judge that must not have seen the pairs it judges.
    ///
    /// A hash of the first turn decides, so no first turn is in both parts.
    ///
    /// # Errors
    /// A share that leaves one part empty.
    ///
    /// # Example
    /// ```
    /// let mut split = hhalign::data::Dataset::embedded(1, 300)?.split(0.1)?;
    /// let before = split.train.len();
    /// let aside = split.set_aside(0.3)?;
    /// assert_eq!(aside.len() + split.train.len(), before);
    /// assert!(aside.iter().all(|a| split.train.iter().all(|t| t.first_turn() != a.first_turn())));
    /// # Ok::<(), hhalign::base::error::Error>(())
    /// ```
    pub fn set_aside(&mut self, share: f64) -> Result<Vec<Pair>> {
        let (aside, train): (Vec<Pair>, Vec<Pair>) = self
            .train
            .iter()
            .cloned()
            .partition(|p| hash_fraction(&format!("aside {}", p.first_turn())) < share);
        if aside.is_empty() || train.is_empty() {
            let got = format!("a share of {share}: {} taken, {} left", aside.len(), train.len());
            return Err(Error::new("both sides need pairs", got, "choose a share such as 0.3"));
        }
        self.train = train;
        Ok(aside)
    }

    /// Returns the pairs whose first turn is on neither side of the split.
    pub fn fresh(&self, pairs: Vec<Pair>) -> Vec<Pair> {
        let seen: HashSet<String> =
            self.train.iter().chain(&self.held_out).map(|p| normalize(p.first_turn())).collect();
        pairs.into_iter().filter(|p| !seen.contains(&normalize(p.first_turn()))).collect()
    }

    /// Returns at most `n` held-out pairs, evenly spaced, for a metric with a limited budget.
    pub fn held_out_sample(&self, n: usize) -> Vec<Pair> {
        let total = self.held_out.len();
        let n = n.min(total);
        (0..n).map(|i| self.held_out[i * total / n].clone()).collect()
    }

    /// Returns a table of both sides: pairs, distinct first turns, mean words of a reply.
    ///
    /// # Errors
    /// A failure of the table library.
    pub fn table(&self) -> Result<Table> {
        let sides = [&self.train, &self.held_out];
        let distinct = |p: &[Pair]| {
            p.iter().map(|p| normalize(p.first_turn())).collect::<HashSet<_>>().len() as i64
        };
        let words = |p: &[Pair], f: fn(&Pair) -> &str| {
            p.iter().map(|p| f(p).split_whitespace().count()).sum::<usize>() as f64 / p.len() as f64
        };
        Table::new(
            match self.rule {
                SplitRule::Official => "Split (official, from the source)",
                SplitRule::FirstTurnHash => "Split (by a hash of the first turn)",
            },
            vec![
                Column::text("side", vec!["train".into(), "held out".into()]),
                Column::int("pairs", sides.iter().map(|s| s.len() as i64).collect()),
                Column::int("first turns", sides.iter().map(|s| distinct(s)).collect()),
                Column::int("first turns on both sides", vec![self.overlap() as i64; 2]),
                Column::int("left out for overlap", vec![self.overlap_removed as i64, 0]),
                Column::float(
                    "words in chosen",
                    1,
                    sides.iter().map(|s| words(s, |p| &p.chosen)).collect(),
                ),
                Column::float(
                    "words in rejected",
                    1,
                    sides.iter().map(|s| words(s, |p| &p.rejected)).collect(),
                ),
            ],
        )
    }
}

fn normalize(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// Returns a number in [0, 1) that depends on the text alone.
fn hash_fraction(text: &str) -> f64 {
    let digest = Sha256::digest(normalize(text).as_bytes());
    let first: [u8; 8] = digest[..8].try_into().expect("a SHA-256 has 32 bytes");
    u64::from_be_bytes(first) as f64 / 2f64.powi(64)
}
