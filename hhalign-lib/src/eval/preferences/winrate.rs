//! Human preferences from annotation files.

use std::collections::HashMap;
use std::path::Path;

use crate::base::error::{Error, Result};
use crate::eval::measure::{Better, Cases, Instrument, Measure};
use crate::eval::preferences::annotation::{HELPFULNESS, KEY, PAIRWISE, read_columns};
use crate::eval::preferences::judgements::{Preference, plurality, read_judgements};
use crate::stats::{Estimate, bootstrap_mean};

/// How often annotators preferred one model's reply.
#[derive(Debug, Clone)]
pub struct WinRate {
    /// The model whose wins are counted.
    pub model: String,
    /// Pairs in which its reply was preferred.
    pub wins: usize,
    /// Pairs in which the other reply was preferred.
    pub losses: usize,
    /// Pairs judged a tie.
    pub ties: usize,
    /// Pairs without a judgement.
    pub open: usize,
    /// People who have judged at least one pair.
    pub annotators: usize,
    /// (wins + ties / 2) / judged, with its interval.
    pub rate: Measure,
}

/// Reads all judgements and counts the wins of `model`: of several judgements of one pair the most
/// frequent one counts, and without one the pair is a tie.
///
/// # Errors
/// A file is missing or lacks a column, a judgement is not A, B or tie, or an id is not in the key.
pub fn read_preferences(folder: &Path, model: &str) -> Result<WinRate> {
    let key: HashMap<String, (String, String)> =
        read_columns(&folder.join(KEY), &["id", "a", "b"])?
            .into_iter()
            .map(|mut r| {
                (std::mem::take(&mut r[0]), (std::mem::take(&mut r[1]), std::mem::take(&mut r[2])))
            })
            .collect();
    if !key.values().any(|(a, b)| a == model || b == model) {
        return Err(Error::data(
            "the key has no such model",
            model,
            "use the name from the run that wrote the files",
        ));
    }
    let judged = read_judgements(folder)?;
    let (mut wins, mut losses, mut ties, mut open) = (0, 0, 0, 0);
    for (row, cells) in read_columns(&folder.join(PAIRWISE), &["id"])?.into_iter().enumerate() {
        let (a, b) = key.get(&cells[0]).ok_or_else(|| {
            Error::data(
                "an id that the key does not have",
                cells[0].as_str(),
                "keep the files of one run together",
            )
            .at(format!("{}, row {}", folder.join(PAIRWISE).display(), row + 2))
        })?;
        let of_pair: Vec<Preference> =
            judged.values().filter_map(|of| of.get(&cells[0]).copied()).collect();
        let preferred = match plurality(&of_pair) {
            Some(Preference::A) => a,
            Some(Preference::B) => b,
            Some(Preference::Tie) => {
                ties += 1;
                continue;
            }
            None => {
                open += 1;
                continue;
            }
        };
        if preferred == model { wins += 1 } else { losses += 1 }
    }
    let annotators = judged.values().filter(|of| !of.is_empty()).count();
    let judges =
        Instrument::Judge(format!("{annotators} annotators, blind, each pair in one order"));
    let cases = Cases::Won { wins, ties, losses };
    let rate =
        Measure::new(&format!("human win rate of {model}"), Better::Higher, judges, cases, 0);
    Ok(WinRate { model: model.into(), wins, losses, ties, open, annotators, rate })
}

/// Reads the ratings of one model's replies.
///
/// # Errors
/// A file is missing or lacks a column, or a rating is not a number from 1 to 5.
pub fn read_helpfulness(folder: &Path, model: &str, seed: u64) -> Result<Estimate> {
    let path = folder.join(HELPFULNESS);
    let key: HashMap<String, String> = read_columns(&folder.join(KEY), &["id", "a"])?
        .into_iter()
        .map(|r| (r[0].clone(), r[1].clone()))
        .collect();
    let mut ratings = vec![];
    for (row, cells) in read_columns(&path, &["id", "helpfulness_1_to_5"])?.into_iter().enumerate()
    {
        let place = || format!("{}, row {}", path.display(), row + 2);
        let author = key.get(&cells[0]).ok_or_else(|| {
            Error::data(
                "an id that the key does not have",
                cells[0].as_str(),
                "keep the files of one run together",
            )
            .at(place())
        })?;
        if cells[1].is_empty() || author != model {
            continue;
        }
        let rating: f64 =
            cells[1].parse().ok().filter(|r| (1.0..=5.0).contains(r)).ok_or_else(|| {
                Error::data(
                    "a rating must be a number from 1 to 5",
                    cells[1].as_str(),
                    "correct the cell, or leave it empty",
                )
                .at(place())
            })?;
        ratings.push(rating);
    }
    Ok(bootstrap_mean(&ratings, seed))
}
