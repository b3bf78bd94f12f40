//! A run on disk: its description, its data, its last two checkpoints, and how it ended.
//!
//! Pairs and reference models are stored in a folder next to the runs under their hashes, once for
//! all runs that share them. A new process can therefore resume a run from its name alone.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::Phase;
use crate::base::error::{Error, Result};
use crate::base::files;
use crate::data::batch::{TokenizedPair, TokenizedPairs};
use crate::model::checkpoint::{is_whole, read_metadata, read_tensors, write_tensors};
use crate::model::{Gpt, GptConfig};
use crate::train::{Mark, Progress, Recipe, Sources};

/// The description of a run in its folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) recipe: Recipe,
    pub(super) model: GptConfig,
    /// Everything that affects the numbers: an equal identity means the same run.
    pub(super) identity: String,
    pub(super) pairs: String,
    pub(super) held_out: String,
    pub(super) reference: Option<String>,
    /// The lengths to which both sides were cut. Equal ids are stored once, whatever length they
    /// were cut to.
    #[serde(default)]
    pub(super) max_lengths: Option<MaxLengths>,
    /// The run it was forked from.
    pub(super) parent: Option<Parent>,
}

/// `max_length` of a run's pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MaxLengths {
    pub(super) pairs: usize,
    pub(super) held_out: usize,
}

/// The point at which a run was forked from its parent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Parent {
    pub(super) name: String,
    pub(super) step: usize,
    /// The parent's changes at that point; a parent of the same name with other changes is another
    /// run.
    pub(super) marks: Vec<Mark>,
}

/// The state of a run, for a list of runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Status {
    pub(super) phase: Phase,
    pub(super) step: usize,
    pub(super) error: String,
}

/// The folder of one run.
#[derive(Debug, Clone)]
pub(super) struct Store(PathBuf);

const CHECKPOINT: &str = "checkpoint-";

impl Store {
    pub(super) fn new(runs: &Path, name: &str) -> Self {
        Self(runs.join(name))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.0
    }

    /// Takes the lock of the process that trains this run; the system releases it when the process
    /// ends in any way.
    pub(super) fn lock(&self) -> Result<File> {
        fs::create_dir_all(&self.0).map_err(|e| Error::io(&self.0, e))?;
        let path = self.0.join("lock");
        let file = File::create(&path).map_err(|e| Error::io(&path, e))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => Err(Error::not_ready(
                "another process is training this run",
                self.0.display().to_string(),
                "shut down the kernel that trains it, or wait until it ends",
            )),
            Err(fs::TryLockError::Error(e)) => Err(Error::io(&path, e)),
        }
    }

    /// Returns whether a process is training the run.
    pub(super) fn is_locked(&self) -> bool {
        let file = File::open(self.0.join("lock"));
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
    }

    /// Returns whether there is a run of this name.
    pub(super) fn is_there(&self) -> bool {
        self.0.join("run.json").exists()
    }

    /// Prepares the folder for a run that starts or resumes; files of an unknown run are removed.
    pub(super) fn prepare(&self, known: bool) -> Result<()> {
        let mut old = vec![self.0.join("standing.json")];
        if !known {
            old.push(self.0.join("run.json"));
            old.extend(self.checkpoints().into_values());
        }
        for path in old.iter().filter(|path| path.exists()) {
            fs::remove_file(path).map_err(|e| Error::io(path, e))?;
        }
        Ok(())
    }

    pub(super) fn manifest(&self) -> Result<Manifest> {
        let path = self.0.join("run.json");
        serde_json::from_slice(&files::read(&path)?).map_err(|e| Error::from(e).at(path.display()))
    }

    /// Writes the run's description and data; existing files stay unchanged.
    pub(super) fn write_description(&self, manifest: &Manifest, sources: &Sources) -> Result<()> {
        for pairs in [&sources.pairs, &sources.held_out] {
            let path = self.object("pairs", &pairs.hash);
            if !is_whole(&path) {
                write_pairs(&path, pairs)?;
            }
        }
        if let Some((reference, hash)) = &sources.reference {
            let path = self.object("model", hash);
            if !is_whole(&path) {
                let config = serde_json::to_string(&reference.config)?;
                write_tensors(
                    &path,
                    &reference.named_parameters(),
                    HashMap::from([("hhalign_model".into(), config)]),
                )?;
            }
        }
        let path = self.0.join("run.json");
        if path.exists() {
            return Ok(());
        }
        files::write_atomic(&path, format!("{:#}\n", serde_json::to_value(manifest)?).as_bytes())
    }

    /// Reads the run's data.
    pub(super) fn sources(&self, manifest: &Manifest) -> Result<Sources> {
        let mut pairs = read_pairs(&self.object("pairs", &manifest.pairs))?;
        let mut held_out = read_pairs(&self.object("pairs", &manifest.held_out))?;
        if let Some(lengths) = manifest.max_lengths {
            (pairs.max_length, held_out.max_length) = (lengths.pairs, lengths.held_out);
        }
        let (pairs, held_out) = (Arc::new(pairs), Arc::new(held_out));
        let reference = match &manifest.reference {
            Some(hash) => {
                let path = self.object("model", hash);
                let config = read_metadata(&path)?.remove("hhalign_model").unwrap_or_default();
                let config =
                    serde_json::from_str(&config).map_err(|e| Error::from(e).at(path.display()))?;
                let model = Gpt::from_parameters(config, read_tensors(&path)?, false)
                    .map_err(|e| e.at(path.display()))?;
                Some((Arc::new(model), hash.clone()))
            }
            None => None,
        };
        Ok(Sources { pairs, held_out, reference })
    }

    fn object(&self, kind: &str, hash: &str) -> PathBuf {
        self.0.with_file_name("shared").join(format!("{kind}-{hash}.safetensors"))
    }

    /// Returns the checkpoints by step, the last one last.
    pub(super) fn checkpoints(&self) -> BTreeMap<usize, PathBuf> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let named = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let step = name.strip_prefix(CHECKPOINT)?.strip_suffix(".safetensors")?.parse().ok()?;
            Some((step, entry.path()))
        });
        named.collect()
    }

    /// Saves a run between two steps and keeps the two latest checkpoints.
    pub(super) fn save(&self, model: &Gpt, progress: &Progress) -> Result<()> {
        let step = progress.state.step;
        progress.save(&self.0.join(format!("{CHECKPOINT}{step:08}.safetensors")), model)?;
        for (_, path) in self.checkpoints().into_iter().rev().skip(2) {
            fs::remove_file(&path).map_err(|e| Error::io(&path, e))?;
        }
        Ok(())
    }

    pub(super) fn write_status(&self, status: &Status) -> Result<()> {
        files::write_atomic(
            &self.0.join("standing.json"),
            format!("{:#}\n", serde_json::to_value(status)?).as_bytes(),
        )
    }

    pub(super) fn status(&self) -> Option<Status> {
        serde_json::from_slice(&files::read(&self.0.join("standing.json")).ok()?).ok()
    }

    /// Returns the bytes of all files in the folder.
    pub(super) fn size(&self) -> u64 {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        entries.filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum()
    }
}

/// Returns the names of all runs in a folder.
pub(super) fn names(runs: &Path) -> Vec<String> {
    let entries = fs::read_dir(runs).into_iter().flatten().flatten();
    let named = entries.filter_map(|e| e.file_name().into_string().ok());
    let mut names: Vec<String> = named.filter(|name| Store::new(runs, name).is_there()).collect();
    names.sort();
    names
}

/// Writes pairs as one list of ids and the lengths of prompt, chosen and rejected reply, (B, 3).
fn write_pairs(path: &Path, pairs: &TokenizedPairs) -> Result<()> {
    let parts = || pairs.pairs.iter().flat_map(|p| [&p.prompt, &p.chosen, &p.rejected]);
    let ids: Vec<u32> = parts().flatten().copied().collect();
    let lengths: Vec<u32> = parts().map(|part| part.len() as u32).collect();
    let tensors = BTreeMap::from([
        ("ids".to_string(), Tensor::new(ids, &Device::Cpu)?),
        ("lengths".to_string(), Tensor::from_vec(lengths, (pairs.len(), 3), &Device::Cpu)?),
    ]);
    let numbers = [("max_length", pairs.max_length), ("eos_id", pairs.eos_id() as usize)];
    write_tensors(path, &tensors, numbers.map(|(name, n)| (name.to_string(), n.to_string())).into())
}

fn read_pairs(path: &Path) -> Result<TokenizedPairs> {
    let broken = || {
        let fix = "delete this file and start the run from the notebook again, which rewrites it";
        Error::data("the pairs of a run cannot be read", path.display().to_string(), fix)
    };
    let metadata = read_metadata(path)?;
    let number =
        |name: &str| metadata.get(name).and_then(|n| n.parse::<usize>().ok()).ok_or_else(broken);
    let tensors = read_tensors(path)?;
    let ids: Vec<u32> = tensors.get("ids").ok_or_else(broken)?.to_vec1()?;
    let lengths: Vec<Vec<u32>> = tensors.get("lengths").ok_or_else(broken)?.to_vec2()?;
    let mut rest = ids.as_slice();
    let mut take = |n: u32| {
        let (part, after) = rest.split_at_checked(n as usize).ok_or_else(broken)?;
        rest = after;
        Ok::<_, Error>(part.to_vec())
    };
    let pairs = lengths.iter().map(|n| {
        Ok(TokenizedPair { prompt: take(n[0])?, chosen: take(n[1])?, rejected: take(n[2])? })
    });
    let pairs = pairs.collect::<Result<_>>()?;
    Ok(TokenizedPairs::from_ids(pairs, number("max_length")?, number("eos_id")? as u32))
}
