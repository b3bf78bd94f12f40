//! Human preference data, from rows of text to batches of token ids. Read in this order:
//!
//! - [`source`] reads rows, and [`parse`] turns a row into a [`Pair`] or names its irregularity;
//! - [`audit`] counts every irregularity, and [`split`] divides the pairs by their first turn, so
//!   that no prompt is on both sides;
//! - [`tokenize`] turns text into ids, [`batch`] decides which tokens a loss sees, and [`packed`]
//!   lays the same sequences out without padding for the fast path;
//! - [`embedded`] generates the synthetic set that ships with the library, and [`cues`] shows that
//!   no single surface feature predicts its labels.

pub mod audit;
pub mod batch;
pub mod cues;
pub mod embedded;
pub mod packed;
pub mod parse;
pub mod source;
pub mod split;
pub mod tokenize;

use std::path::Path;
use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::base::hub;
use crate::base::hub::{HH_RLHF, Hub, Repo};
use crate::base::rng::{sha256_hex, stream};
use audit::Audit;
pub use embedded::PromptKind;
use source::RawRow;
pub use split::Split;

/// The source of a row: its subset (or file) and its line, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The subset's name, such as `harmless-base`.
    pub subset: Arc<str>,
    /// The line in the file, counted from 1.
    pub line: usize,
}

/// A prompt and two replies, of which people preferred `chosen`.
///
/// The prompt ends with `"\n\nAssistant:"`; each reply begins with the space that follows it in the
/// source.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// The dialogue up to and including the last `"\n\nAssistant:"`.
    pub prompt: String,
    /// The preferred reply.
    pub chosen: String,
    /// The other reply.
    pub rejected: String,
    /// The row that the pair was read from.
    pub origin: Origin,
    /// The kind of request; known for the embedded set only.
    pub kind: Option<PromptKind>,
    /// The side of the official split, if there is one: `Some(true)` is held out.
    pub held_out: Option<bool>,
}

impl Pair {
    /// Returns the first thing the human says, trimmed; the split is made by it.
    pub fn first_turn(&self) -> &str {
        parse::first_turn(&self.prompt)
    }

    /// Returns whether the prompt asks for harm; `None` if that is unknown.
    ///
    /// The kind decides, or else the subset: people tried to elicit harm from the model in HH's
    /// `harmless-*`, and did not in `helpful-*`.
    pub fn asks_for_harm(&self) -> Option<bool> {
        let subset = |word: &str| self.origin.subset.starts_with(word);
        match self.kind {
            Some(kind) => Some(kind == PromptKind::Harmful),
            None if subset("harmless") => Some(true),
            None if subset("helpful") => Some(false),
            None => None,
        }
    }
}

/// Audited pairs with a name and a hash.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// A name for reports, such as `embedded (synthetic)`.
    pub name: String,
    /// The pairs that were kept.
    pub pairs: Vec<Pair>,
    /// The irregularities found in the rows, and what was done about them.
    pub audit: Audit,
}

/// The subsets of Anthropic's HH data that hold preferences.
pub const SUBSETS: [&str; 4] =
    ["harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"];

/// The largest number of pairs that the grammar generates.
const MAX_EMBEDDED: usize = 200_000;

impl Dataset {
    /// Generates the embedded synthetic set: `n_pairs` pairs drawn from a seeded grammar.
    ///
    /// Results on it show how the method works; they say nothing about real assistants.
    ///
    /// # Example
    /// ```
    /// let data = hhalign::data::Dataset::embedded(1, 200)?;
    /// assert_eq!(data.pairs.len(), 200);
    /// # Ok::<(), hhalign::base::error::Error>(())
    /// ```
    pub fn embedded(seed: u64, n_pairs: usize) -> Result<Self> {
        if n_pairs == 0 {
            return Err(Error::new(
                "the embedded set needs at least one pair",
                "0",
                "ask for 4000, the default",
            ));
        }
        if n_pairs > MAX_EMBEDDED {
            let fix = format!(
                "ask for at most {MAX_EMBEDDED}; the grammar repeats itself long before that"
            );
            return Err(Error::new(
                "the embedded set is smaller than that",
                n_pairs.to_string(),
                fix,
            ));
        }
        let subset: Arc<str> = "embedded".into();
        let rows =
            embedded::generate(seed, n_pairs).into_iter().enumerate().map(|(i, pair)| RawRow {
                chosen: format!("{}{}", pair.prompt, pair.chosen),
                rejected: format!("{}{}", pair.prompt, pair.rejected),
                origin: Origin { subset: subset.clone(), line: i + 1 },
                kind: Some(pair.kind),
                held_out: Some(pair.held_out()),
            });
        Self::from_rows("embedded (synthetic)", rows.collect())
    }

    /// Reads real HH pairs from one `.jsonl` or `.jsonl.gz` file, or from a folder of subsets and
    /// splits.
    ///
    /// `hub:SUBSET` or `hub:SUBSET@REVISION` reads what [`Dataset::hub`] fetches.
    ///
    /// # Errors
    /// A file that cannot be read, or a line that is not an HH row; the message names the file, the
    /// line and the fix.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if let Some(name) = hub::name_in(path) {
            let (subset, revision) = subset_and_revision(name);
            return Self::hub(subset, revision);
        }
        let name = path.file_name().map_or("data".into(), |n| n.to_string_lossy().into_owned());
        Self::from_rows(&name, source::read_rows(path)?)
    }

    /// Fetches a subset of Anthropic's HH data from the hub: one of [`SUBSETS`], or `all` of them.
    ///
    /// The commit is the pinned one unless `revision` names another. The data set's name holds the
    /// repository, commit and subset, so that every result names its data.
    ///
    /// # Errors
    /// No such subset, or files that [`Hub::files`] cannot fetch.
    pub fn hub(subset: &str, revision: Option<&str>) -> Result<Self> {
        Self::from_hub(&Hub::from_env()?, subset, revision)
    }

    /// Fetches a subset as [`Dataset::hub`] does, from a given hub.
    ///
    /// # Errors
    /// See [`Dataset::hub`].
    pub fn from_hub(hub: &Hub, subset: &str, revision: Option<&str>) -> Result<Self> {
        let (repo, subsets) = subsets_of(subset, revision)?;
        // Files come in the order in which a folder is read, so that the hash is the same.
        let both = |subset: &str| ["test", "train"].map(|side| format!("{subset}/{side}.jsonl.gz"));
        let paths: Vec<String> = subsets.into_iter().flat_map(both).collect();
        let snapshot = hub.files(&repo, &paths.iter().map(String::as_str).collect::<Vec<_>>())?;
        let files: Vec<_> = paths.iter().map(|path| snapshot.folder.join(path)).collect();
        let rows = source::read_files(&files, &snapshot.folder)?;
        Self::from_rows(&format!("{HH_RLHF}@{}, {subset}", snapshot.commit), rows)
    }

    /// Checks `SUBSET` or `SUBSET@REVISION` without a request.
    ///
    /// # Errors
    /// No such subset, or a revision that no repository can have.
    ///
    /// # Example
    /// ```
    /// use hhalign::data::Dataset;
    /// assert!(Dataset::check_hub_name("harmless-base").is_ok());
    /// assert!(Dataset::check_hub_name("harmless").unwrap_err().fix().contains("harmless-base"));
    /// ```
    pub fn check_hub_name(name: &str) -> Result<()> {
        let (subset, revision) = subset_and_revision(name);
        subsets_of(subset, revision)?.0.check()
    }

    /// Parses and audits rows that are already in memory.
    ///
    /// # Errors
    /// No usable pair among the rows.
    pub fn from_rows(name: &str, rows: Vec<RawRow>) -> Result<Self> {
        let (pairs, audit) = audit::audit_rows(rows);
        if pairs.is_empty() {
            return Err(Error::data(
                "no usable preference pair was found",
                format!("{} rows, all dropped", audit.rows_read()),
                "look at the audit of the file: \
                 HH rows hold a dialogue that ends with an Assistant turn",
            ));
        }
        Ok(Self { name: name.into(), pairs, audit })
    }

    /// Draws at most `n` pairs by `seed` and keeps their order; the audit still counts all rows
    /// read.
    ///
    /// # Errors
    /// `n` is 0.
    ///
    /// # Example
    /// ```
    /// let data = hhalign::data::Dataset::embedded(1, 200)?.sample(50, 7)?;
    /// assert_eq!((data.pairs.len(), data.audit.rows_read()), (50, 200));
    /// assert!(data.pairs.windows(2).all(|p| p[0].origin.line < p[1].origin.line));
    /// # Ok::<(), hhalign::base::error::Error>(())
    /// ```
    pub fn sample(mut self, n: usize, seed: u64) -> Result<Self> {
        if n == 0 {
            return Err(Error::new(
                "a data set needs at least one pair",
                "0",
                "leave the number out to use all pairs",
            ));
        }
        let all = self.pairs.len();
        if n < all {
            let mut drawn =
                rand::seq::index::sample(&mut stream(seed, "pairs", &[]), all, n).into_vec();
            drawn.sort_unstable();
            self.pairs = drawn.into_iter().map(|i| self.pairs[i].clone()).collect();
            self.name = format!("{}, {n} of {all} pairs drawn", self.name);
        }
        Ok(self)
    }

    /// Returns the first 16 digits of the SHA-256 of all pairs' texts, in order.
    pub fn hash(&self) -> String {
        let texts = self.pairs.iter().flat_map(|p| {
            [p.prompt.as_bytes(), &[0], p.chosen.as_bytes(), &[0], p.rejected.as_bytes(), &[0]]
        });
        sha256_hex(texts, 16)
    }

    /// Divides the pairs into training and held-out pairs by the first turn; see [`split::split`].
    ///
    /// # Errors
    /// A `held_out_fraction` outside (0, 1), or an empty side.
    pub fn split(&self, held_out_fraction: f64) -> Result<Split> {
        split::split(&self.pairs, held_out_fraction)
    }

    /// Writes the pairs for other tools, as HH rows (`{"chosen": ..., "rejected": ...}`), one per
    /// line.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_jsonl(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let mut text = String::new();
        for p in &self.pairs {
            let row = serde_json::json!({
                "chosen": format!("{}{}", p.prompt, p.chosen),
                "rejected": format!("{}{}", p.prompt, p.rejected)
            });
            text.push_str(&row.to_string());
            text.push('\n');
        }
        crate::base::files::write_atomic(path, text.as_bytes())
    }
}

/// Splits `SUBSET@REVISION`.
fn subset_and_revision(name: &str) -> (&str, Option<&str>) {
    name.split_once('@').map_or((name, None), |(subset, revision)| (subset, Some(revision)))
}

/// Returns the repository at a revision, and the subsets that a name stands for.
fn subsets_of(subset: &str, revision: Option<&str>) -> Result<(Repo, Vec<&'static str>)> {
    let subsets: Vec<&str> =
        SUBSETS.into_iter().filter(|s| *s == subset || subset == "all").collect();
    if subsets.is_empty() {
        let fix = format!("choose one of {}, or all", SUBSETS.join(", "));
        return Err(Error::new(
            format!("{HH_RLHF} has no such subset of preferences"),
            format!("{subset:?}"),
            fix,
        ));
    }
    let repo = Repo::dataset(HH_RLHF);
    Ok((revision.map_or_else(|| repo.clone(), |revision| repo.clone().at(revision)), subsets))
}
