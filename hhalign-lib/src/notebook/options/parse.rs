//! Reads the values of options. Every check of a value is here, or is called from here.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde::Serializer;

use crate::base::error::{Error, Result};
use crate::base::hub::{self, Repo, TOXIC_BERT};
use crate::data::Dataset;
use crate::loss::check_beta;

/// Fewer would leave sides of the split empty.
const MIN_PAIRS: usize = 100;

/// A prompt and a reply need some room.
const MIN_BLOCK: usize = 8;

/// Reads a whole number of at least 1.
///
/// # Errors
/// The text is no such number.
///
/// # Example
/// ```
/// use hhalign::notebook::options::parse::count;
/// assert_eq!(count("80")?, 80);
/// assert_eq!(count("0").unwrap_err().what(), "at least 1 is needed");
/// # Ok::<(), hhalign::base::error::Error>(())
/// ```
pub fn count(text: &str) -> Result<usize> {
    at_least(1, text)
}

/// Reads the seed of random streams, a whole number.
///
/// # Errors
/// The text is no whole number below 2^64.
pub fn seed(text: &str) -> Result<u64> {
    text.parse()
        .map_err(|_| Error::new("a whole number is needed", text, "give one such as 0 or 7"))
}

/// Reads the longest sequence in tokens.
///
/// # Errors
/// The text is no whole number, or one without room for a prompt and a reply.
pub fn block_size(text: &str) -> Result<usize> {
    at_least(MIN_BLOCK, text)
}

/// Reads a number of pairs.
///
/// # Errors
/// The text is no whole number, or [`check_pairs`] refuses it.
pub fn pairs(text: &str) -> Result<usize> {
    let n = at_least(0, text)?;
    check_pairs(n)?;
    Ok(n)
}

/// Refuses fewer pairs than a run needs.
///
/// # Errors
/// There are fewer than 100.
pub fn check_pairs(n: usize) -> Result<()> {
    if n >= MIN_PAIRS {
        return Ok(());
    }
    Err(Error::new(
        "too few pairs for a run: training, held-out side and samples all need some",
        format!("{n} pairs"),
        format!("use at least {MIN_PAIRS} (--pairs, or a larger file)"),
    ))
}

/// Reads β of a preference loss.
///
/// # Errors
/// The text is no number, or [`check_beta`] refuses it.
pub fn beta(text: &str) -> Result<f64> {
    let beta = text.parse().map_err(|_| {
        Error::new("a number is needed", text, "0.1 is usual; 0.01 to 0.5 are tried")
    })?;
    check_beta(beta)?;
    Ok(beta)
}

/// Reads the place of preference data: a file, a folder, or `hub:SUBSET`.
///
/// # Errors
/// There is no such file, folder or subset.
pub fn data(text: &str) -> Result<PathBuf> {
    match hub::name_in(text.as_ref()) {
        Some(name) => Dataset::check_hub_name(name).map(|()| text.into()),
        None => existing(text, "file or folder", Path::exists),
    }
}

/// Reads the place of a model: a folder, the file beside it, or `hub:OWNER/NAME`.
///
/// # Errors
/// There is no such folder, or no repository can have such a name.
pub fn model(text: &str) -> Result<PathBuf> {
    match hub::name_in(text.as_ref()) {
        Some(name) => Repo::model(name).check().map(|()| text.into()),
        None => existing(text, "model", |path| path.exists() || path.with_extension("").is_dir()),
    }
}

/// Reads the place of toxic-bert: a folder, `hub`, or `hub:OWNER/NAME`.
///
/// # Errors
/// There is no such folder, or no repository can have such a name.
pub fn toxic_bert(text: &str) -> Result<PathBuf> {
    match (text, hub::name_in(text.as_ref())) {
        ("hub", _) => Ok(format!("hub:{TOXIC_BERT}").into()),
        (_, Some(name)) => Repo::model(name).check().map(|()| text.into()),
        _ => existing(text, "folder", Path::is_dir),
    }
}

/// Reads the path of an existing file.
///
/// # Errors
/// There is no such file.
pub fn file(text: &str) -> Result<PathBuf> {
    existing(text, "file", Path::is_file)
}

/// Reads the path of a folder, which need not exist.
///
/// # Errors
/// The text is empty, or there is a file of this name.
pub fn folder(text: &str) -> Result<PathBuf> {
    let path = PathBuf::from(given(text)?);
    if path.exists() && !path.is_dir() {
        return Err(Error::new(
            "a folder is needed, and this is a file",
            text,
            "give another name",
        ));
    }
    Ok(path)
}

/// The absolute path of something that exists; what reads it may run in another folder.
fn existing(text: &str, what: &str, exists: impl Fn(&Path) -> bool) -> Result<PathBuf> {
    let path = std::path::absolute(given(text)?).map_err(|e| Error::io(text.as_ref(), e))?;
    if exists(&path) {
        return Ok(path);
    }
    let fix = "check the path; a relative one is relative to the current folder";
    Err(Error::file(format!("there is no such {what}"), text, fix))
}

fn given(text: &str) -> Result<&str> {
    if text.is_empty() {
        return Err(Error::new("a value is needed", "nothing", "give a path"));
    }
    Ok(text)
}

fn at_least(least: usize, text: &str) -> Result<usize> {
    match text.parse() {
        Ok(n) if n >= least => Ok(n),
        Ok(n) => Err(Error::new(
            format!("at least {least} is needed"),
            usize::to_string(&n),
            format!("give at least {least}, or leave it out"),
        )),
        Err(_) => Err(Error::new("a whole number is needed", text, "give one such as 100")),
    }
}

/// Writes a value as its name, which the value's parser reads.
pub(super) fn name<S: Serializer>(
    value: &impl Display,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Writes a value as its name, or null where there is none.
pub(super) fn optional_name<S: Serializer>(
    value: &Option<impl Display>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}
