//! Files for annotators: blind, with random sides, and never overwritten after an annotator has
//! begun.

use std::fs;
use std::path::{Path, PathBuf};

use polars::prelude::{CsvReadOptions, SerReader};
use rand::Rng as _;
use rand::seq::SliceRandom;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::rng::stream;
use crate::infer::sample::Reply;
use crate::show::table::{Column, Table};

/// The file in which annotators choose between two replies.
pub const PAIRWISE: &str = "pairwise_preferences_for_annotation.csv";
/// The file in which annotators rate single replies from 1 to 5.
pub const HELPFULNESS: &str = "helpfulness_for_annotation.csv";
/// The file with the authors of the replies; not for annotators.
pub const KEY: &str = "annotation_key.csv";

/// Writes both annotation files and their key into `folder`, with shuffled rows, random sides and
/// no names of models.
///
/// An annotator fills the column `preference` with A, B or tie, and `helpfulness_1_to_5` with a
/// number. A file that an annotator has begun is kept if it shows the same replies in the same
/// order; if it shows others, a new folder with a number (`annotations-2`, ...) receives the files.
/// Returns the folder of the files.
///
/// # Errors
/// Lists of different lengths, or a file cannot be written.
pub fn write_annotation_files(
    folder: impl AsRef<Path>,
    prompts: &[String],
    first: (&str, &[Reply]),
    second: (&str, &[Reply]),
    seed: u64,
) -> Result<PathBuf> {
    if prompts.len() != first.1.len() || prompts.len() != second.1.len() {
        return Err(Error::new(
            "one reply of each model to each prompt is needed",
            format!("{} prompts, {} and {} replies", prompts.len(), first.1.len(), second.1.len()),
            "sample replies to the same prompts",
        ));
    }
    let mut rng = stream(seed, "annotation", &[]);
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    order.shuffle(&mut rng);
    let (mut ids, mut shown, mut a, mut b) = (vec![], vec![], vec![], vec![]);
    let (mut key_id, mut key_a, mut key_b) = (vec![], vec![], vec![]);
    for (row, &i) in order.iter().enumerate() {
        let swap = rng.random::<bool>();
        let (left, right) = if swap { (second, first) } else { (first, second) };
        let id = format!("pair-{:04}", row + 1);
        ids.push(id.clone());
        shown.push(readable(&prompts[i]));
        a.push(left.1[i].text.trim().to_string());
        b.push(right.1[i].text.trim().to_string());
        key_id.push(id);
        key_a.push(left.0.to_string());
        key_b.push(right.0.to_string());
    }
    let blank = vec![String::new(); ids.len()];
    let pairwise = [
        ("id", ids),
        ("prompt", shown),
        ("response_a", a),
        ("response_b", b),
        ("preference", blank),
    ];

    let mut single: Vec<(usize, bool)> =
        (0..prompts.len()).flat_map(|i| [(i, true), (i, false)]).collect();
    single.shuffle(&mut rng);
    let (mut ids, mut shown, mut replies) = (vec![], vec![], vec![]);
    for (row, &(i, of_first)) in single.iter().enumerate() {
        let (name, texts) = if of_first { first } else { second };
        let id = format!("reply-{:04}", row + 1);
        ids.push(id.clone());
        shown.push(readable(&prompts[i]));
        replies.push(texts[i].text.trim().to_string());
        key_id.push(id);
        key_a.push(name.to_string());
        key_b.push(String::new());
    }
    let blank = vec![String::new(); ids.len()];
    let helpfulness =
        [("id", ids), ("prompt", shown), ("response", replies), ("helpfulness_1_to_5", blank)];
    let key = [("id", key_id), ("a", key_a), ("b", key_b)];
    let folder = folder.as_ref();
    let mut number = 1;
    loop {
        let folder = if number == 1 { folder.to_path_buf() } else { numbered(folder, number) };
        let begun = [
            begun(&folder.join(PAIRWISE), &pairwise)?,
            begun(&folder.join(HELPFULNESS), &helpfulness)?,
        ];
        let of_annotators =
            annotator_files(&folder).into_iter().map(|path| self::begun(&path, &pairwise));
        let of_annotators = of_annotators.collect::<Result<Vec<_>>>()?;
        if begun.iter().chain(&of_annotators).any(|b| *b == Begun::Other) {
            number += 1;
            continue;
        }
        if begun[0] == Begun::No {
            write(&folder.join(PAIRWISE), &pairwise)?;
        }
        if begun[1] == Begun::No {
            write(&folder.join(HELPFULNESS), &helpfulness)?;
        }
        write(&folder.join(KEY), &key)?;
        return Ok(folder);
    }
}

fn numbered(folder: &Path, number: usize) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(format!("-{number}"));
    name.into()
}

fn write(path: &Path, columns: &[(&str, Vec<String>)]) -> Result<()> {
    let columns =
        columns.iter().map(|(name, values)| Column::text(*name, values.clone())).collect();
    Table::new("", columns)?.write_csv(path)
}

/// Whether an annotator has filled a row of a file.
#[derive(PartialEq)]
enum Begun {
    /// No, or there is no file.
    No,
    /// Yes, and it shows the same replies.
    Same,
    /// Yes, and it shows others.
    Other,
}

fn begun(path: &Path, columns: &[(&str, Vec<String>)]) -> Result<Begun> {
    if !path.exists() {
        return Ok(Begun::No);
    }
    let names: Vec<&str> = columns.iter().map(|c| c.0).collect();
    let rows = read_columns(path, &names)?;
    if rows.iter().all(|row| row.last().is_none_or(String::is_empty)) {
        return Ok(Begun::No);
    }
    let shown = names.len() - 1;
    let same = rows.len() == columns[0].1.len()
        && rows
            .iter()
            .enumerate()
            .all(|(r, row)| (0..shown).all(|c| row[c] == columns[c].1[r].trim()));
    Ok(if same { Begun::Same } else { Begun::Other })
}

/// Checks the name of an annotator: letters, digits, `-` and `_`, at most 40.
///
/// # Errors
/// Another name.
pub fn check_annotator(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 40 || !name.chars().all(fits) {
        let fix = "use letters, digits, - and _, at most 40 of them";
        return Err(Error::new("this is not a valid name for an annotator", name, fix));
    }
    Ok(())
}

/// The files of annotators with a name.
pub(super) fn annotator_files(folder: &Path) -> Vec<PathBuf> {
    let stem = format!("{}.", PAIRWISE.trim_end_matches(".csv"));
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries
        .filter(|path| {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            name.strip_prefix(&stem)
                .and_then(|n| n.strip_suffix(".csv"))
                .is_some_and(|n| check_annotator(n).is_ok())
        })
        .collect();
    files.sort();
    files
}

/// Reads some columns of a CSV as trimmed texts, row by row.
pub(crate) fn read_columns(path: &Path, names: &[&str]) -> Result<Vec<Vec<String>>> {
    std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
    let options = CsvReadOptions::default().with_has_header(true).with_infer_schema_length(Some(0));
    let frame = options
        .try_into_reader_with_file_path(Some(path.to_path_buf()))
        .and_then(|reader| reader.finish())
        .map_err(|e| {
            Error::from(e)
                .with_message("not a CSV that can be read", "save it as comma-separated UTF-8")
                .with_kind(ErrorKind::Data)
                .at(path.display())
        })?;
    let mut columns = vec![];
    for name in names {
        let column = frame.column(name).map_err(|_| {
            let found: Vec<String> =
                frame.get_column_names().iter().map(|n| n.to_string()).collect();
            Error::data(
                format!("the column {name:?} is missing"),
                format!("{found:?}"),
                "keep the header line and commas as separators",
            )
            .at(path.display())
        })?;
        let texts = column.str().map_err(Error::from)?;
        columns.push(
            texts.iter().map(|t| t.unwrap_or_default().trim().to_string()).collect::<Vec<_>>(),
        );
    }
    Ok((0..frame.height()).map(|row| columns.iter().map(|c| c[row].clone()).collect()).collect())
}

/// Returns a prompt for annotators, without the open turn at its end.
pub(super) fn readable(prompt: &str) -> String {
    prompt.trim_end_matches(crate::data::parse::ASSISTANT).trim().to_string()
}
