//! Live runs: trainings in their own threads, which a cell can observe, pause, change, fork and
//! resume.
//!
//! Interrupting a kernel kills it, with every variable in it. A run therefore saves itself
//! regularly, under a name made from its settings, data and first weights. A second start with the
//! same inputs finds the same run.
//!
//! Read [`Run`] in `handle.rs` first (what a cell holds), then `shared.rs` (what the handle and the
//! run's thread share), `store.rs` (a run on disk), `page.rs` (its live page), `views.rs` (its
//! tables and figures) and `sweep.rs` (one run for each β). This file finds, starts and lists runs.

mod handle;
mod page;
mod shared;
mod store;
mod sweep;
mod views;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use serde::{Deserialize, Serialize};

pub use self::handle::{Branch, Pausable, Run};
use self::shared::Shared;
use self::store::{Manifest, MaxLengths, Parent, Store};
pub use self::sweep::Sweep;
pub use self::views::overlay;
use crate::base::error::{Error, Result};
use crate::data::batch::TokenizedPairs;
use crate::model::Gpt;
use crate::model::checkpoint;
use crate::show::table::{Column, Table};
use crate::train::{Dpo, Identity, Origin, Progress, Recipe, RewardConfig, Sft, Sources};

/// The phase of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Scores the reference, or reads a checkpoint.
    Preparing,
    /// Takes steps.
    Training,
    /// Waits for [`Pausable::resume`].
    Paused,
    /// Has taken all its steps, or patience ended it.
    Finished,
    /// Was stopped before its last step; a new start resumes from there.
    Stopped,
    /// Ended with an error; see [`Run::error`].
    Failed,
}

impl Phase {
    /// Returns whether the run's thread is alive.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Preparing | Self::Training | Self::Paused)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Preparing => "preparing",
            Self::Training => "training",
            Self::Paused => "paused",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        })
    }
}

impl Sft {
    /// Starts the training in its own thread and returns immediately; [`Run::model`] returns the
    /// weights.
    ///
    /// The run trains a copy of `model`. If a run with the same settings, data and first weights
    /// exists, in this process or on disk, it is used: a finished run as it is, an interrupted one
    /// from its last checkpoint.
    ///
    /// # Errors
    /// A setting out of range, or another process that is training the same run. Later errors are
    /// in [`Run::error`].
    pub fn start(
        &self,
        model: &Gpt,
        pairs: &TokenizedPairs,
        held_out: &TokenizedPairs,
    ) -> Result<Run> {
        let sources = Sources {
            pairs: Arc::new(pairs.clone()),
            held_out: Arc::new(held_out.clone()),
            reference: None,
        };
        start(Recipe::Sft(self.clone()), sources, model)
    }
}

impl Dpo {
    /// Starts the training in its own thread and returns immediately; see [`Sft::start`].
    ///
    /// # Errors
    /// See [`Sft::start`].
    pub fn start(
        &self,
        policy: &Gpt,
        reference: &Gpt,
        pairs: &TokenizedPairs,
        held_out: &TokenizedPairs,
    ) -> Result<Run> {
        start(Recipe::Dpo(self.clone()), dpo_sources(reference, pairs, held_out)?, policy)
    }
}

impl RewardConfig {
    /// Starts the training of a reward model in its own thread and returns immediately; see
    /// [`Sft::start`]. [`Run::reward_model`] returns the model of the best step.
    ///
    /// # Errors
    /// See [`Sft::start`]; or pairs that do not fit the model.
    pub fn start(
        &self,
        start: &Gpt,
        pairs: &TokenizedPairs,
        watched: &TokenizedPairs,
    ) -> Result<Run> {
        self.check_sources(start, pairs, watched)?;
        let (pairs, held_out) = (Arc::new(pairs.clone()), Arc::new(watched.clone()));
        self::start(
            Recipe::Reward(self.clone()),
            Sources { pairs, held_out, reference: None },
            start,
        )
    }
}

fn dpo_sources(
    reference: &Gpt,
    pairs: &TokenizedPairs,
    held_out: &TokenizedPairs,
) -> Result<Sources> {
    let reference = reference.freeze()?;
    let hash = reference.hash()?;
    let (pairs, held_out) = (Arc::new(pairs.clone()), Arc::new(held_out.clone()));
    Ok(Sources { pairs, held_out, reference: Some((Arc::new(reference), hash)) })
}

/// Returns the folder of runs: that of [`set_runs_folder`], else `$HHALIGN_RESULTS/runs`, else
/// `../results/runs`.
pub fn runs_folder() -> PathBuf {
    let set = RUNS_FOLDER.read().unwrap_or_else(PoisonError::into_inner).clone();
    set.unwrap_or_else(|| {
        let results = std::env::var_os("HHALIGN_RESULTS").filter(|r| !r.is_empty());
        PathBuf::from(results.unwrap_or_else(|| "../results".into())).join("runs")
    })
}

/// Sets the folder for runs started from now on.
pub fn set_runs_folder(folder: impl Into<PathBuf>) {
    *RUNS_FOLDER.write().unwrap_or_else(PoisonError::into_inner) = Some(folder.into());
}

static RUNS_FOLDER: RwLock<Option<PathBuf>> = RwLock::new(None);

/// The runs of this process by folder: those that are active, and those with a handle.
static RUNS_HERE: Mutex<BTreeMap<PathBuf, Weak<Shared>>> = Mutex::new(BTreeMap::new());

fn start(recipe: Recipe, sources: Sources, model: &Gpt) -> Result<Run> {
    recipe.check()?;
    let identity = sources.identity(&recipe, Origin::Weights(model.hash()?))?;
    let manifest = manifest_of(recipe, &sources, model, &identity, None);
    let name = name_of(&manifest.recipe, &identity);
    find_or_start(&runs_folder(), name, manifest, sources, || model.fork())
}

fn manifest_of(
    recipe: Recipe,
    sources: &Sources,
    model: &Gpt,
    identity: &Identity,
    parent: Option<Parent>,
) -> Manifest {
    Manifest {
        recipe,
        model: model.config.clone(),
        identity: identity.to_string(),
        pairs: sources.pairs.hash.clone(),
        held_out: sources.held_out.hash.clone(),
        reference: sources.reference.as_ref().map(|r| r.1.clone()),
        max_lengths: Some(MaxLengths {
            pairs: sources.pairs.max_length,
            held_out: sources.held_out.max_length,
        }),
        parent,
    }
}

/// Makes a name such as `dpo-beta0.1-3fa2c1d0`: the kind, β if there is one, and a hash of the
/// run's identity.
fn name_of(recipe: &Recipe, identity: &Identity) -> String {
    let hash = identity.hash(8);
    match recipe {
        Recipe::Dpo(dpo) if (1e-4..1e4).contains(&dpo.beta) => {
            format!("dpo-beta{}-{hash}", dpo.beta)
        }
        Recipe::Dpo(dpo) => format!("dpo-beta{:e}-{hash}", dpo.beta),
        Recipe::Sft(_) | Recipe::Reward(_) => format!("{}-{hash}", recipe.kind()),
    }
}

/// Finds the run of this name in this process or on disk, or starts a new one.
fn find_or_start(
    runs: &Path,
    name: String,
    mut manifest: Manifest,
    sources: Sources,
    model: impl FnOnce() -> Result<Gpt>,
) -> Result<Run> {
    let store = Store::new(runs, &name);
    std::fs::create_dir_all(store.folder()).map_err(|e| Error::io(store.folder(), e))?;
    let folder = store.folder().canonicalize().map_err(|e| Error::io(store.folder(), e))?;
    let mut here = RUNS_HERE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(shared) = here.get(&folder).and_then(Weak::upgrade) {
        // A run that was told to stop ends within a step, and resumes from there.
        shared.wait_until_stopped();
        let phase = shared.control().phase;
        if phase.is_active() || phase == Phase::Finished {
            let note =
                if phase.is_active() { "was running already" } else { "had finished before" };
            let log = log_note(&manifest.recipe, shared.recipe());
            let note = format!("{note}{}{log}", changes_note(shared.progress().as_deref()));
            return Ok(Run::new(shared, note));
        }
    }
    if let Recipe::Dpo(dpo) = &mut manifest.recipe {
        dpo.cache.get_or_insert_with(|| runs.join("shared"));
    }
    let there = store.manifest().ok().filter(|there| there.identity == manifest.identity);
    let log =
        there.as_ref().map(|there| log_note(&manifest.recipe, &there.recipe)).unwrap_or_default();
    let known = there.is_some();
    let (checkpoint, damaged) = if known { last_whole_checkpoint(&store) } else { (None, 0) };
    let last = checkpoint.as_ref().map(|c| c.0);
    let finished =
        store.status().is_some_and(|s| s.phase == Phase::Finished && Some(s.step) == last);
    let shared = Arc::new(Shared::new(name, manifest, sources, model()?, store));
    let note = match &checkpoint {
        Some((step, path)) if finished => {
            let progress = Progress::read(path, &shared.model)?;
            let changes = changes_note(Some(&progress));
            let _ = shared.progress.set(RwLock::new(progress));
            shared.set_phase(Phase::Finished);
            format!("had finished before, at step {step}{changes}{log}")
        }
        found => {
            let lock = shared.store.lock()?;
            shared.store.prepare(known)?;
            let note = match found {
                Some((step, _)) if damaged > 0 => {
                    format!("resumes from step {step} (later checkpoints are damaged)")
                }
                Some((step, _)) => format!("resumes from step {step}"),
                None => String::new(),
            };
            shared.begin(checkpoint.map(|c| c.1), lock)?;
            note
        }
    };
    here.insert(folder, Arc::downgrade(&shared));
    Ok(Run::new(shared, note))
}

/// Returns a note if the found run logs at other steps than the requested settings.
fn log_note(asked: &Recipe, found: &Recipe) -> String {
    match (asked.train().log_every, found.train().log_every) {
        (asked, found) if asked == found => String::new(),
        (_, found) => format!("; its log has a record every {found} steps"),
    }
}

/// Returns a note of the settings that were changed during the run.
fn changes_note(progress: Option<&Progress>) -> String {
    let marks = progress.map_or(&[][..], |p| &p.state.history.marks);
    let texts: Vec<String> =
        marks.iter().map(|m| format!("{} at step {}", m.text, m.step)).collect();
    if texts.is_empty() { String::new() } else { format!("; changed: {}", texts.join(", ")) }
}

/// Finds the latest fork with these settings, made when the parent had the same changes as now.
fn find_fork(runs: &Path, parent: &Parent, recipe: &Recipe) -> Option<String> {
    let step_if_same = |name: &String| {
        let there = Store::new(runs, name).manifest().ok()?;
        let from = there.parent?;
        let marks = parent.marks.iter().filter(|m| m.step <= from.step);
        (from.name == parent.name
            && from.marks.iter().eq(marks)
            && there.recipe.has_identity_of(recipe))
        .then_some(from.step)
    };
    let forks =
        store::names(runs).into_iter().filter_map(|name| Some((step_if_same(&name)?, name)));
    forks.max().map(|(_, name)| name)
}

/// Finds the folder of a run by its name. The name must be a single path component, so that it
/// cannot point outside the folder of runs.
fn find(runs: &Path, name: &str) -> Result<Store> {
    let mut parts = Path::new(name).components();
    let is_name = matches!(
        (parts.next(), parts.next()),
        (Some(std::path::Component::Normal(part)), None) if part == name
    );
    if !is_name {
        return Err(Error::new(
            "this is not the name of a run",
            format!("{name:?}"),
            "Run::list() shows the names",
        ));
    }
    let store = Store::new(runs, name);
    if !store.is_there() {
        let there = store::names(runs);
        let got = if there.is_empty() { "no runs".into() } else { there.join(", ") };
        let fix = "give one of these names; Run::list() shows them";
        return Err(Error::new(format!("there is no run {name} in {}", runs.display()), got, fix));
    }
    Ok(store)
}

/// Returns the last undamaged checkpoint with its step, and the number of damaged ones after it.
fn last_whole_checkpoint(store: &Store) -> (Option<(usize, PathBuf)>, usize) {
    let checkpoints = store.checkpoints();
    let damaged =
        checkpoints.iter().rev().take_while(|(_, path)| !checkpoint::is_whole(path)).count();
    (checkpoints.into_iter().rev().nth(damaged), damaged)
}

/// Resumes a run by its name alone.
fn resume(runs: &Path, name: &str) -> Result<Run> {
    let store = find(runs, name)?;
    let manifest = store.manifest()?;
    let sources = store.sources(&manifest)?;
    let config = manifest.model.clone();
    // The weights come from the checkpoint. Without one, the run had not begun, and its first
    // weights are lost.
    if last_whole_checkpoint(&store).0.is_none() {
        let fix = "start it again from the notebook's cell";
        return Err(Error::data("this run ended before its first checkpoint", name, fix));
    }
    find_or_start(runs, name.into(), manifest, sources, || Gpt::new(config, 0))
}

fn list(runs: &Path) -> Result<Table> {
    let names = store::names(runs);
    let here = RUNS_HERE.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut state, mut step, mut of, mut size) = (vec![], vec![], vec![], vec![]);
    for name in &names {
        let store = Store::new(runs, name);
        let steps = store.manifest().map(|m| m.recipe.train().max_steps);
        let shared =
            store.folder().canonicalize().ok().and_then(|folder| here.get(&folder)?.upgrade());
        let status = store.status();
        let last = store.checkpoints().into_keys().next_back().unwrap_or(0);
        let (phase, at) = match (shared, status) {
            (None, _) if steps.is_err() => ("damaged: run.json cannot be read".into(), last),
            (Some(shared), _) => {
                // The locks are taken one after the other, since the run's thread takes the second
                // while it holds the first.
                let phase = shared.control().phase.to_string();
                (phase, shared.progress().map_or(0, |p| p.state.step))
            }
            (None, Some(standing)) if standing.phase == Phase::Finished => {
                ("finished".into(), standing.step)
            }
            (None, _) if store.is_locked() => ("running in another process".into(), last),
            (None, Some(standing)) if standing.step >= last => {
                (standing.phase.to_string(), standing.step)
            }
            (None, _) => ("interrupted".into(), last),
        };
        state.push(phase);
        step.push(at as i64);
        of.push(steps.unwrap_or(0) as i64);
        size.push(store.size() as f64 / 1e6);
    }
    let columns = vec![
        Column::text("run", names),
        Column::text("state", state),
        Column::int("step", step),
        Column::int("of", of),
        Column::float("MB", 1, size),
    ];
    let note = "Run::resume(\"NAME\") resumes a run; Run::delete(\"NAME\") removes it.";
    Ok(Table::new("Runs on disk", columns)?.with_note(note))
}

fn delete(runs: &Path, name: &str) -> Result<()> {
    let store = find(runs, name)?;
    let folder = store.folder().canonicalize().map_err(|e| Error::io(store.folder(), e))?;
    let mut here = RUNS_HERE.lock().unwrap_or_else(PoisonError::into_inner);
    if here
        .get(&folder)
        .and_then(Weak::upgrade)
        .is_some_and(|shared| shared.control().phase.is_active())
    {
        return Err(Error::not_ready("this run is active", name, "stop it first: run.stop()"));
    }
    let _lock = store.lock()?;
    here.remove(&folder);
    std::fs::remove_dir_all(&folder).map_err(|e| Error::io(&folder, e))
}
