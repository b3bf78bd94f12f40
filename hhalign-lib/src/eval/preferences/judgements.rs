//! Judgements by annotator: one file for each, in the form of the distributed file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::base::error::{Error, Result};
use crate::eval::preferences::annotation::{
    PAIRWISE, annotator_files, check_annotator, read_columns,
};
use crate::show::table::{Column, Table};

/// A preference between two replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Preference {
    /// The left one.
    A,
    /// The right one.
    B,
    /// Neither.
    Tie,
}

impl fmt::Display for Preference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
            Self::Tie => "tie",
        })
    }
}

impl Preference {
    /// Reads a cell; `None` if it is empty.
    ///
    /// # Errors
    /// The text is not A, B or tie.
    ///
    /// # Example
    /// ```
    /// use hhalign::eval::preferences::judgements::Preference;
    /// assert_eq!(Preference::read(" b ")?, Some(Preference::B));
    /// assert_eq!(Preference::read("")?, None);
    /// assert!(Preference::read("C").is_err());
    /// # Ok::<(), hhalign::base::error::Error>(())
    /// ```
    pub fn read(cell: &str) -> Result<Option<Self>> {
        Ok(match cell.trim().to_lowercase().as_str() {
            "" => None,
            "a" => Some(Self::A),
            "b" => Some(Self::B),
            "tie" | "=" | "both" | "neither" => Some(Self::Tie),
            _ => {
                let fix = "correct the cell, or leave it empty";
                return Err(Error::data("a preference must be A, B or tie", cell.trim(), fix));
            }
        })
    }
}

/// Returns the most frequent of several judgements of one pair, a tie if there is none, and `None`
/// without a judgement.
///
/// # Example
/// ```
/// use hhalign::eval::preferences::judgements::Preference::{A, B, Tie};
/// use hhalign::eval::preferences::judgements::plurality;
/// assert_eq!(plurality(&[A, A, B]), Some(A));
/// assert_eq!([plurality(&[A, B]), plurality(&[])], [Some(Tie), None]);
/// ```
pub fn plurality(judgements: &[Preference]) -> Option<Preference> {
    let count = |wanted: Preference| judgements.iter().filter(|p| **p == wanted).count();
    let [a, b, tie] = [Preference::A, Preference::B, Preference::Tie].map(count);
    Some(match judgements {
        [] => return None,
        _ if a > b.max(tie) => Preference::A,
        _ if b > a.max(tie) => Preference::B,
        _ => Preference::Tie,
    })
}

/// Judgements of one annotator by the id of the pair.
pub type Judgements = BTreeMap<String, Preference>;

/// The file of an annotator: `pairwise_preferences_for_annotation.NAME.csv`; without a name the
/// distributed file.
fn file(folder: &Path, annotator: &str) -> PathBuf {
    let stem = PAIRWISE.trim_end_matches(".csv");
    folder.join(if annotator.is_empty() {
        PAIRWISE.into()
    } else {
        format!("{stem}.{annotator}.csv")
    })
}

/// Reads all judgements in a folder by annotator; the annotator of the distributed file has an
/// empty name.
///
/// # Errors
/// A file is missing or lacks a column, or a judgement is not A, B or tie.
pub fn read_judgements(folder: &Path) -> Result<BTreeMap<String, Judgements>> {
    let named = annotator_files(folder)
        .into_iter()
        .filter_map(|path| Some(path.file_stem()?.to_str()?.rsplit_once('.')?.1.to_string()));
    let names: Vec<String> = [String::new()].into_iter().chain(named).collect();
    names.into_iter().map(|name| Ok((name.clone(), read_of(folder, &name)?))).collect()
}

/// Reads the judgements of one annotator; none if there is no file yet.
///
/// # Errors
/// As [`read_judgements`].
pub fn read_of(folder: &Path, annotator: &str) -> Result<Judgements> {
    let path = file(folder, annotator);
    if !annotator.is_empty() && !path.exists() {
        return Ok(Judgements::new());
    }
    let mut judged = Judgements::new();
    for (row, cells) in read_columns(&path, &["id", "preference"])?.into_iter().enumerate() {
        let place = || format!("{}, row {}", path.display(), row + 2);
        if let Some(preference) = Preference::read(&cells[1]).map_err(|e| e.at(place()))? {
            judged.insert(cells[0].clone(), preference);
        }
    }
    Ok(judged)
}

/// Writes a judgement into the annotator's file, or removes it; returns the number of judgements.
///
/// # Errors
/// An invalid name, an unknown pair, or a file cannot be read or written.
pub fn judge(
    folder: &Path,
    annotator: &str,
    id: &str,
    preference: Option<Preference>,
) -> Result<usize> {
    check_annotator(annotator)?;
    let names = ["id", "prompt", "response_a", "response_b"];
    let rows = read_columns(&folder.join(PAIRWISE), &names)?;
    if !rows.iter().any(|row| row[0] == id) {
        return Err(Error::new(
            "there is no such pair",
            id,
            "reload the page: its pairs have changed",
        ));
    }
    let mut judged = read_of(folder, annotator)?;
    match preference {
        Some(preference) => judged.insert(id.into(), preference),
        None => judged.remove(id),
    };
    let mut columns: Vec<Column> = (0..names.len())
        .map(|c| Column::text(names[c], rows.iter().map(|row| row[c].clone()).collect()))
        .collect();
    let preferences =
        rows.iter().map(|row| judged.get(&row[0]).map_or(String::new(), ToString::to_string));
    columns.push(Column::text("preference", preferences.collect()));
    Table::new("", columns)?.write_csv(file(folder, annotator))?;
    Ok(judged.len())
}
