//! The reader of HH rows, from `.jsonl` and `.jsonl.gz` files and folders of them.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use serde_json::Value;

use super::{Origin, PromptKind};
use crate::base::error::{Error, ErrorKind, Result};

/// A row of the source: two whole dialogues.
#[derive(Debug, Clone)]
pub struct RawRow {
    /// The dialogue that ends with the preferred reply.
    pub chosen: String,
    /// The dialogue that ends with the other reply.
    pub rejected: String,
    /// The file and line of the row.
    pub origin: Origin,
    /// The kind of request, if known.
    pub kind: Option<PromptKind>,
    /// The side of the official split, if the file's name or the generator gives one.
    pub held_out: Option<bool>,
}

/// Reads one file, or every `.jsonl` and `.jsonl.gz` file in a folder and its subfolders, in order
/// of their names.
///
/// The subset is the file's folder (`harmless-base/train.jsonl.gz`) or the first part of its name
/// (`harmless-base.test.jsonl.gz`). `train` or `test` in the name gives the official side.
///
/// # Errors
/// No such file, no data file in a folder, or a bad line: the message names the file, the line and
/// the fix.
pub fn read_rows(path: &Path) -> Result<Vec<RawRow>> {
    let metadata = fs::metadata(path).map_err(|e| Error::io(path, e))?;
    let mut files = vec![];
    if metadata.is_dir() {
        collect_files(path, &mut files, &mut HashSet::new())?;
        files.sort();
        if files.is_empty() {
            return Err(Error::file(
                format!("no data file in {}", path.display()),
                "a folder without .jsonl or .jsonl.gz files",
                "give a file, or a folder with SUBSET/train.jsonl.gz or SUBSET.test.jsonl.gz in it",
            ));
        }
    } else {
        files.push(path.to_path_buf());
    }
    read_files(&files, path)
}

/// Reads the given files under a folder, in the order given.
pub(super) fn read_files(files: &[PathBuf], root: &Path) -> Result<Vec<RawRow>> {
    let mut rows = vec![];
    for file in files {
        read_file(file, root, &mut rows)?;
    }
    Ok(rows)
}

fn is_data_file(path: &Path) -> bool {
    let name = path.to_string_lossy();
    name.ends_with(".jsonl") || name.ends_with(".jsonl.gz")
}

fn collect_files(
    folder: &Path,
    files: &mut Vec<PathBuf>,
    seen: &mut HashSet<PathBuf>,
) -> Result<()> {
    // A link may point to a parent folder, so each folder is read once.
    if !seen.insert(fs::canonicalize(folder).map_err(|e| Error::io(folder, e))?) {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        if path.is_dir() {
            collect_files(&path, files, seen)?;
        } else if is_data_file(&path) {
            files.push(path);
        }
    }
    Ok(())
}

/// Returns the subset and the official side, from a file's folder and name.
fn subset_and_side(file: &Path, root: &Path) -> (Arc<str>, Option<bool>) {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.trim_end_matches(".gz").trim_end_matches(".jsonl");
    let mut parts: Vec<&str> = stem.split('.').collect();
    let held_out = match parts.last() {
        Some(&"train") => Some(false),
        Some(&"test") => Some(true),
        _ => None,
    };
    if held_out.is_some() {
        parts.pop();
    }
    let folder = file.parent().filter(|&f| f != root).and_then(|f| f.file_name());
    let subset = match (parts.is_empty(), folder) {
        (false, _) => parts.join("."),
        (true, Some(folder)) => folder.to_string_lossy().into_owned(),
        (true, None) => "data".into(),
    };
    (subset.into(), held_out)
}

fn read_file(file: &Path, root: &Path, rows: &mut Vec<RawRow>) -> Result<()> {
    let opened = File::open(file).map_err(|e| Error::io(file, e))?;
    let reader: Box<dyn Read> = if file.extension().is_some_and(|e| e == "gz") {
        Box::new(MultiGzDecoder::new(opened))
    } else {
        Box::new(opened)
    };
    let mut reader = BufReader::with_capacity(1 << 16, reader);
    let (subset, held_out) = subset_and_side(file, root);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).map_err(|e| {
            use std::io::ErrorKind as Io;
            let (kind, fix) = match e.kind() {
                Io::UnexpectedEof => {
                    (ErrorKind::Data, "the file is truncated: download or copy it again")
                }
                Io::InvalidInput | Io::InvalidData => {
                    let fix = "not a valid gzip file: \
                               download it again, or drop .gz from a plain file's name";
                    (ErrorKind::Data, fix)
                }
                _ => (ErrorKind::File, "check the file and the disk"),
            };
            Error::file("cannot read the next line", e.to_string(), fix)
                .with_kind(kind)
                .caused_by(e)
                .at(format!("{}, line {number}", file.display()))
        })?;
        if read == 0 {
            break;
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let (chosen, rejected) =
            parse_line(&line).map_err(|e| e.at(format!("{}, line {number}", file.display())))?;
        rows.push(RawRow {
            chosen,
            rejected,
            origin: Origin { subset: subset.clone(), line: number },
            kind: None,
            held_out,
        });
    }
    Ok(())
}

fn parse_line(line: &[u8]) -> Result<(String, String)> {
    let text = std::str::from_utf8(line).map_err(|e| {
        Error::data(
            "not valid UTF-8",
            format!("byte {} of the line: {e}", e.valid_up_to() + 1),
            "convert the file to UTF-8, for example with iconv",
        )
        .caused_by(e)
    })?;
    let value: Value = serde_json::from_str(text).map_err(|e| {
        let start: String = text.chars().take(60).collect();
        Error::data(
            format!("not valid JSON ({e})"),
            format!("{:?}", start.trim_end()),
            "a row is one JSON object on one line: {\"chosen\": \"...\", \"rejected\": \"...\"}",
        )
        .caused_by(e)
    })?;
    let Value::Object(mut row) = value else {
        return Err(Error::data(
            "a row must be a JSON object",
            kind_of(&value),
            "write {\"chosen\": \"...\", \"rejected\": \"...\"}",
        ));
    };
    let mut keys: Vec<String> = row.keys().map(|k| format!("\"{k}\"")).collect();
    keys.sort();
    let mut take = |key: &str| match row.remove(key) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(Error::data(
            format!("\"{key}\" must be a string"),
            kind_of(&other),
            "HH rows hold whole dialogues as text; lists of messages must be joined first",
        )),
        None => Err(Error::data(
            format!("the key \"{key}\" is missing"),
            format!("keys {}", if keys.is_empty() { "none".into() } else { keys.join(", ") }),
            "rename the keys to \"chosen\" and \"rejected\"",
        )),
    };
    Ok((take("chosen")?, take("rejected")?))
}

fn kind_of(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => format!("the boolean {b}"),
        Value::Number(n) => format!("the number {n}"),
        Value::String(s) => format!("the string {s:?}"),
        Value::Array(a) => format!("a list of {} items", a.len()),
        Value::Object(o) => format!("an object with {} keys", o.len()),
    }
}
