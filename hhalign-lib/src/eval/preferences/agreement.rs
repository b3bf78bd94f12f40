//! The agreement of annotators: percent, Cohen's kappa, Krippendorff's alpha.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::base::error::Result;
use crate::eval::preferences::judgements::{Judgements, Preference, read_judgements};
use crate::show::table::{Column, Table};
use crate::stats::{Estimate, bootstrap_t};

/// Returns the share of units on which two annotators agree; not a number without units, or for
/// lists of different lengths.
pub fn percent_agreement<T: PartialEq>(one: &[T], other: &[T]) -> f64 {
    let n = if one.len() == other.len() { one.len() } else { 0 };
    one.iter().zip(other).filter(|(a, b)| a == b).count().min(n) as f64 / n as f64
}

/// Returns Cohen's kappa of two annotators: agreement beyond that of chance, given their rates. Not
/// a number if it is not defined: for lists of different lengths, for empty ones, and if both use
/// only one and the same label.
///
/// # Source
/// Cohen 1960, Educational and Psychological Measurement 20, 37-46.
///
/// # Example
/// ```
/// use hhalign::eval::preferences::agreement::cohen_kappa;
/// // 20 times yes/yes, 5 yes/no, 10 no/yes, 15 no/no
/// let counts = [(true, true, 20), (true, false, 5), (false, true, 10), (false, false, 15)];
/// let one: Vec<bool> = counts.iter().flat_map(|&(a, _, n)| vec![a; n]).collect();
/// let other: Vec<bool> = counts.iter().flat_map(|&(_, b, n)| vec![b; n]).collect();
/// assert!((cohen_kappa(&one, &other) - 0.4).abs() < 1e-12);
/// ```
pub fn cohen_kappa<T: Ord>(one: &[T], other: &[T]) -> f64 {
    if one.len() != other.len() {
        return f64::NAN;
    }
    let n = one.len() as f64;
    let share =
        |labels: &[T], wanted: &T| labels.iter().filter(|l| *l == wanted).count() as f64 / n;
    let labels: BTreeSet<&T> = one.iter().chain(other).collect();
    let chance: f64 = labels.iter().map(|l| share(one, l) * share(other, l)).sum();
    let observed = percent_agreement(one, other);
    if chance >= 1.0 { f64::NAN } else { (observed - chance) / (1.0 - chance) }
}

/// Returns Krippendorff's alpha for nominal labels; each unit holds its labels, from any number of
/// annotators.
///
/// Units with fewer than two labels cannot be paired and are left out. Not a number if nothing can
/// be paired, or if only one label occurs: no disagreement was possible.
///
/// # Source
/// Krippendorff 2011, Computing Krippendorff's alpha-reliability, section C.
///
/// # Example
/// ```
/// use hhalign::eval::preferences::agreement::krippendorff_alpha;
/// // Four observers, twelve units, some missing: the usual nominal example.
/// let units = "111 2232 3333 3333 2222 1234 4444 1121 2222 555 11 3";
/// let units: Vec<Vec<char>> = units.split(' ').map(|unit| unit.chars().collect()).collect();
/// assert!((krippendorff_alpha(&units) - 0.743).abs() < 5e-4);
/// ```
pub fn krippendorff_alpha<T: Ord>(units: &[Vec<T>]) -> f64 {
    let paired: Vec<&Vec<T>> = units.iter().filter(|unit| unit.len() >= 2).collect();
    let mut totals: BTreeMap<&T, f64> = BTreeMap::new();
    let mut disagreeing = 0.0;
    for unit in &paired {
        let mut counts: BTreeMap<&T, f64> = BTreeMap::new();
        for label in unit.iter() {
            *counts.entry(label).or_default() += 1.0;
            *totals.entry(label).or_default() += 1.0;
        }
        let m = unit.len() as f64;
        disagreeing += counts.values().map(|c| c * (m - c)).sum::<f64>() / (m - 1.0);
    }
    let n: f64 = totals.values().sum();
    let expected: f64 = totals.values().map(|c| c * (n - c)).sum::<f64>() / (n - 1.0);
    if n == 0.0 || expected == 0.0 { f64::NAN } else { 1.0 - disagreeing / expected }
}

/// Seed of the bootstrap.
const SEED: u64 = 0;

const LABELS: [Preference; 3] = [Preference::A, Preference::B, Preference::Tie];

/// Returns Cohen's kappa of two annotators with an interval over pairs.
pub fn kappa_with_interval(one: &[Preference], other: &[Preference]) -> Estimate {
    let is = |holds: bool| f64::from(u8::from(holds));
    // The share of ties follows from the other shares.
    let row = |(a, b): (&Preference, &Preference)| {
        let of = |label: Preference| [is(*a == label), is(*b == label)];
        let [[a0, b0], [a1, b1]] = [of(LABELS[0]), of(LABELS[1])];
        [a0, a1, b0, b1, is(a == b)]
    };
    let rows: Vec<[f64; 5]> = one.iter().zip(other).map(row).collect();
    bootstrap_t(&rows, SEED, |[a0, a1, b0, b1, agree]| {
        let chance = a0 * b0 + a1 * b1 + (1.0 - a0 - a1) * (1.0 - b0 - b1);
        (agree - chance) / (1.0 - chance)
    })
}

/// Returns Krippendorff's alpha with an interval over units, each with two labels or more.
pub fn alpha_with_interval(units: &[Vec<Preference>]) -> Estimate {
    let rows: Vec<[f64; 4]> = units
        .iter()
        .map(|unit| {
            let counts = LABELS.map(|label| unit.iter().filter(|l| **l == label).count() as f64);
            let m = unit.len() as f64;
            [
                counts[0],
                counts[1],
                counts[2],
                counts.iter().map(|c| c * (m - c)).sum::<f64>() / (m - 1.0),
            ]
        })
        .collect();
    let n = units.len() as f64;
    bootstrap_t(&rows, SEED, |[a, b, tie, disagreeing]| {
        let totals = [a * n, b * n, tie * n];
        let all: f64 = totals.iter().sum();
        1.0 - disagreeing * n * (all - 1.0) / totals.iter().map(|t| t * (all - t)).sum::<f64>()
    })
}

/// The agreement of the annotators of a folder.
#[derive(Debug, Clone)]
pub struct Agreement {
    judged: BTreeMap<String, Judgements>,
}

impl Agreement {
    /// Reads all judgements in a folder.
    ///
    /// # Errors
    /// As [`read_judgements`].
    pub fn read(folder: &Path) -> Result<Self> {
        Ok(Self {
            judged: read_judgements(folder)?.into_iter().filter(|(_, of)| !of.is_empty()).collect(),
        })
    }

    /// Returns Krippendorff's alpha over all annotators, with a bootstrap interval over the n pairs
    /// that at least two of them judged.
    pub fn alpha(&self) -> Estimate {
        let ids: BTreeSet<&String> = self.judged.values().flat_map(BTreeMap::keys).collect();
        let units = ids.iter().map(|id| {
            self.judged.values().filter_map(|of| of.get(*id).copied()).collect::<Vec<_>>()
        });
        let units: Vec<Vec<Preference>> = units.filter(|unit| unit.len() >= 2).collect();
        alpha_with_interval(&units)
    }

    /// Returns the agreement of every two annotators as a table, with alpha over all in the note.
    ///
    /// # Errors
    /// The table library fails.
    pub fn table(&self) -> Result<Table> {
        let names: Vec<&String> = self.judged.keys().collect();
        let name =
            |i: usize| if names[i].is_empty() { "by hand".to_string() } else { names[i].clone() };
        let (mut who, mut n, mut percent, mut kappas) = (vec![], vec![], vec![], vec![]);
        for i in 0..names.len() {
            for j in i + 1..names.len() {
                let (one, other) = (&self.judged[names[i]], &self.judged[names[j]]);
                let both: Vec<(_, _)> =
                    one.iter().filter_map(|(id, a)| Some((*a, *other.get(id)?))).collect();
                let (a, b): (Vec<_>, Vec<_>) = both.into_iter().unzip();
                who.push(format!("{} and {}", name(i), name(j)));
                n.push(a.len() as i64);
                percent.push(percent_agreement(&a, &b));
                kappas.push(kappa_with_interval(&a, &b).text());
            }
        }
        let columns = vec![
            Column::text("annotators", who),
            Column::int("pairs", n),
            Column::float("agreement", 3, percent),
            Column::text("Cohen's kappa [95% interval]", kappas),
        ];
        let alpha = self.alpha();
        let all = match names.len() {
            0 | 1 => {
                format!("Not enough data: {} annotator(s), and agreement needs two.", names.len())
            }
            m => format!(
                "Krippendorff's alpha over {m} annotators: {}. 0 is chance, 1 is full agreement; \
                 intervals are bootstrapped over pairs. If all annotators always give the same \
                 label, neither kappa nor alpha is defined.",
                alpha.text()
            ),
        };
        Ok(Table::new("Agreement", columns)?.with_note(all))
    }
}
