//! Human preference data: from rows of text to audited pairs, split so that no prompt stands on both sides.
//!
//! [`source`] reads rows, [`parse`] turns a row into a [`Pair`] or says why it cannot, [`audit`] counts every
//! irregularity, [`split`] divides by the first turn of the dialogue. [`embedded`] is the synthetic set that ships with
//! the library; [`cues`] shows that no single surface feature gives its labels away.

pub mod audit;
pub mod cues;
pub mod embedded;
pub mod parse;
pub mod source;
pub mod split;

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::hub::{self, HH_RLHF, Hub, Repo};
use crate::rng::{sha256_hex, stream};
use audit::Audit;
pub use embedded::PromptKind;
use source::RawRow;
pub use split::Split;

/// Where a row comes from: the subset (or file) and its line, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The subset's name, such as `harmless-base`.
    pub subset: Arc<str>,
    /// The line in its file, counted from 1.
    pub line: usize,
}

/// One preference: a prompt and two replies, of which people preferred `chosen`.
///
/// The prompt ends with `"\n\nAssistant:"`; the replies begin with the space that follows it in the source.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// The dialogue up to and including the last `"\n\nAssistant:"`.
    pub prompt: String,
    /// The preferred reply.
    pub chosen: String,
    /// The other reply.
    pub rejected: String,
    /// Where the pair comes from.
    pub origin: Origin,
    /// What kind of request it is; known for the embedded set only.
    pub kind: Option<PromptKind>,
    /// Which side of an official split it stands on, where there is one: `Some(true)` is held out.
    pub held_out: Option<bool>,
}

impl Pair {
    /// The first thing the human says, trimmed: what the split goes by.
    pub fn first_turn(&self) -> &str {
        parse::first_turn(&self.prompt)
    }

    /// Whether the prompt asks for harm: by its kind, or else by its subset (people tried to bring harm out of the model in
    /// HH's `harmless-*`, and not in `helpful-*`); `None` where neither is known.
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
    /// What was found in the rows and what was done about it.
    pub audit: Audit,
}

/// The subsets of Anthropic's HH data that hold preferences.
pub const SUBSETS: [&str; 4] = ["harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"];

/// Pairs that the grammar is asked for at most.
const MAX_EMBEDDED: usize = 200_000;

impl Dataset {
    /// The embedded synthetic set: `n_pairs` pairs drawn from a seeded grammar.
    ///
    /// Figures measured on it show how the method works; they say nothing about real assistants.
    ///
    /// # Example
    /// ```
    /// let data = hhalign::data::Dataset::embedded(1, 200)?;
    /// assert_eq!(data.pairs.len(), 200);
    /// # Ok::<(), hhalign::error::Error>(())
    /// ```
    pub fn embedded(seed: u64, n_pairs: usize) -> Result<Self> {
        if n_pairs == 0 {
            return Err(Error::new("the embedded set needs at least one pair", "0", "ask for 4000, the default"));
        }
        if n_pairs > MAX_EMBEDDED {
            let fix = format!("ask for at most {MAX_EMBEDDED}; the grammar repeats itself long before");
            return Err(Error::new("the embedded set does not have so many pairs", n_pairs.to_string(), fix));
        }
        let subset: Arc<str> = "embedded".into();
        let rows = embedded::generate(seed, n_pairs).into_iter().enumerate().map(|(i, pair)| RawRow {
            chosen: format!("{}{}", pair.prompt, pair.chosen),
            rejected: format!("{}{}", pair.prompt, pair.rejected),
            origin: Origin { subset: subset.clone(), line: i + 1 },
            kind: Some(pair.kind),
            held_out: Some(pair.held_out()),
        });
        Self::from_rows("embedded (synthetic)", rows.collect())
    }

    /// Reads real HH pairs: one `.jsonl` or `.jsonl.gz` file, or a folder of subsets and splits; or `hub:SUBSET`, and
    /// `hub:SUBSET@REVISION`, for what [`Dataset::hub`] fetches.
    ///
    /// # Errors
    /// A file that cannot be read, or a line that is not an HH row; the message names file, line and mend.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if let Some(name) = hub::name_in(path) {
            let (subset, revision) = name.split_once('@').map_or((name, None), |(s, r)| (s, Some(r)));
            return Self::hub(subset, revision);
        }
        let name = path.file_name().map_or("data".into(), |n| n.to_string_lossy().into_owned());
        Self::from_rows(&name, source::read_rows(path)?)
    }

    /// A subset of Anthropic's HH data from the hub: one of [`SUBSETS`], or `all` of them, at the pinned commit unless another
    /// is named.
    ///
    /// The data set's name holds repository, commit and subset, so every result says what it was made of.
    ///
    /// # Errors
    /// No such subset; files that cannot be had, as [`Hub::files`].
    pub fn hub(subset: &str, revision: Option<&str>) -> Result<Self> {
        Self::from_hub(&Hub::from_env()?, subset, revision)
    }

    /// The same from a hub of one's own settings.
    ///
    /// # Errors
    /// As [`Dataset::hub`].
    pub fn from_hub(hub: &Hub, subset: &str, revision: Option<&str>) -> Result<Self> {
        let subsets: Vec<&str> = SUBSETS.into_iter().filter(|s| *s == subset || subset == "all").collect();
        if subsets.is_empty() {
            let fix = format!("choose one of {}, or all", SUBSETS.join(", "));
            return Err(Error::new(format!("{HH_RLHF} has no such subset of preferences"), format!("{subset:?}"), fix));
        }
        let repo = Repo::dataset(HH_RLHF);
        let repo = revision.map_or_else(|| repo.clone(), |revision| repo.clone().at(revision));
        // In the order in which a folder is read, so that the hash is the same.
        let both = |subset: &str| ["test", "train"].map(|side| format!("{subset}/{side}.jsonl.gz"));
        let paths: Vec<String> = subsets.into_iter().flat_map(both).collect();
        let snapshot = hub.files(&repo, &paths.iter().map(String::as_str).collect::<Vec<_>>())?;
        let files: Vec<_> = paths.iter().map(|path| snapshot.folder.join(path)).collect();
        let rows = source::read_files(&files, &snapshot.folder)?;
        Self::from_rows(&format!("{HH_RLHF}@{}, {subset}", snapshot.commit), rows)
    }

    /// Parses and audits rows that are already in memory.
    ///
    /// # Errors
    /// No usable pair among the rows.
    pub fn from_rows(name: &str, rows: Vec<RawRow>) -> Result<Self> {
        let (pairs, audit) = audit::audit_rows(rows);
        if pairs.is_empty() {
            return Err(Error::new(
                "no usable preference pair was found",
                format!("{} rows, all dropped", audit.rows_read()),
                "look at the audit of the file: HH rows hold a dialogue that ends with an Assistant turn",
            ));
        }
        Ok(Self { name: name.into(), pairs, audit })
    }

    /// At most `n` of the pairs, drawn by `seed` and kept in their order; the audit still tells of all rows read.
    ///
    /// # Errors
    /// `n` is 0.
    ///
    /// # Example
    /// ```
    /// let data = hhalign::data::Dataset::embedded(1, 200)?.sample(50, 7)?;
    /// assert_eq!((data.pairs.len(), data.audit.rows_read()), (50, 200));
    /// assert!(data.pairs.windows(2).all(|p| p[0].origin.line < p[1].origin.line));
    /// # Ok::<(), hhalign::error::Error>(())
    /// ```
    pub fn sample(mut self, n: usize, seed: u64) -> Result<Self> {
        if n == 0 {
            return Err(Error::new("a data set needs at least one pair", "0", "leave the number out to use all pairs"));
        }
        let all = self.pairs.len();
        if n < all {
            let mut drawn = rand::seq::index::sample(&mut stream(seed, "pairs", &[]), all, n).into_vec();
            drawn.sort_unstable();
            self.pairs = drawn.into_iter().map(|i| self.pairs[i].clone()).collect();
            self.name = format!("{}, {n} of {all} pairs drawn", self.name);
        }
        Ok(self)
    }

    /// The first 16 digits of the SHA-256 over every pair's texts, in order.
    pub fn hash(&self) -> String {
        let texts = self
            .pairs
            .iter()
            .flat_map(|p| [p.prompt.as_bytes(), &[0], p.chosen.as_bytes(), &[0], p.rejected.as_bytes(), &[0]]);
        sha256_hex(texts, 16)
    }

    /// Divides into training and held-out pairs by the first turn; see [`split::split`].
    ///
    /// # Errors
    /// `held_out_fraction` outside (0, 1), or a side that would be empty.
    pub fn split(&self, held_out_fraction: f64) -> Result<Split> {
        split::split(&self.pairs, held_out_fraction)
    }

    /// Writes the pairs as HH rows (`{"chosen": ..., "rejected": ...}`, one a line), for other tools.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_jsonl(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let mut text = String::new();
        for p in &self.pairs {
            let row = serde_json::json!({
                "chosen": format!("{}{}", p.prompt, p.chosen), "rejected": format!("{}{}", p.prompt, p.rejected)
            });
            text.push_str(&row.to_string());
            text.push('\n');
        }
        crate::files::write_atomic(path, text.as_bytes())
    }
}
