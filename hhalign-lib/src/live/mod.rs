//! Runs that go on in a thread of their own: to watch, pause, change, fork and take up again.
//!
//! A kernel that is interrupted is killed, with every variable in it. So a run saves itself as it goes, under a name that
//! follows from its settings, data and first weights; a second start with the same is the same run.

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
use crate::batch::TokenizedPairs;
use crate::checkpoint;
use crate::error::{Error, Result};
use crate::model::Gpt;
use crate::table::{Column, Table};
use crate::train::{Dpo, Identity, Origin, Progress, Recipe, RewardConfig, Sft, Sources};

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Scores the reference, or reads a checkpoint.
    Preparing,
    /// Takes steps.
    Training,
    /// Waits for [`Pausable::resume`].
    Paused,
    /// Has taken all its steps, or was ended by its patience.
    Finished,
    /// Was stopped before its last step; a new start goes on from there.
    Stopped,
    /// Ended with an error, which [`Run::error`] gives.
    Failed,
}

impl Phase {
    /// Whether the run's thread is still there.
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
    /// Begins the training in a thread of its own and returns at once; [`Run::model`] gives the weights.
    ///
    /// The run trains a copy of `model`. Where a run with the same settings, data and first weights is there already, in
    /// this process or on disk, it is taken up instead: a finished one as it is, an interrupted one from its last checkpoint.
    ///
    /// # Errors
    /// A setting out of range, or another process that is training this very run. What goes wrong later is in
    /// [`Run::error`].
    pub fn start(&self, model: &Gpt, pairs: &TokenizedPairs, held_out: &TokenizedPairs) -> Result<Run> {
        let sources = Sources { pairs: Arc::new(pairs.clone()), held_out: Arc::new(held_out.clone()), reference: None };
        start(Recipe::Sft(self.clone()), sources, model)
    }
}

impl Dpo {
    /// Begins the training in a thread of its own and returns at once; as [`Sft::start`].
    ///
    /// # Errors
    /// As [`Sft::start`].
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
    /// Begins the training of a reward model in a thread of its own and returns at once; as [`Sft::start`].
    /// [`Run::reward_model`] gives the model of its best step.
    ///
    /// # Errors
    /// As [`Sft::start`], or pairs that do not fit the model.
    pub fn start(&self, start: &Gpt, pairs: &TokenizedPairs, watched: &TokenizedPairs) -> Result<Run> {
        self.check_sources(start, pairs, watched)?;
        let (pairs, held_out) = (Arc::new(pairs.clone()), Arc::new(watched.clone()));
        self::start(Recipe::Reward(self.clone()), Sources { pairs, held_out, reference: None }, start)
    }
}

fn dpo_sources(reference: &Gpt, pairs: &TokenizedPairs, held_out: &TokenizedPairs) -> Result<Sources> {
    let reference = reference.freeze()?;
    let hash = reference.hash()?;
    let (pairs, held_out) = (Arc::new(pairs.clone()), Arc::new(held_out.clone()));
    Ok(Sources { pairs, held_out, reference: Some((Arc::new(reference), hash)) })
}

/// The folder that runs are kept in: what [`set_runs_folder`] said, else `$HHALIGN_RESULTS/runs`, else `../results/runs`.
pub fn runs_folder() -> PathBuf {
    let set = RUNS_FOLDER.read().unwrap_or_else(PoisonError::into_inner).clone();
    set.unwrap_or_else(|| {
        let results = std::env::var_os("HHALIGN_RESULTS").filter(|r| !r.is_empty());
        PathBuf::from(results.unwrap_or_else(|| "../results".into())).join("runs")
    })
}

/// Keeps runs in another folder from here on.
pub fn set_runs_folder(folder: impl Into<PathBuf>) {
    *RUNS_FOLDER.write().unwrap_or_else(PoisonError::into_inner) = Some(folder.into());
}

static RUNS_FOLDER: RwLock<Option<PathBuf>> = RwLock::new(None);

/// The runs of this process by their folders: those that go on, and those that somebody holds.
static HERE: Mutex<BTreeMap<PathBuf, Weak<Shared>>> = Mutex::new(BTreeMap::new());

fn start(recipe: Recipe, sources: Sources, model: &Gpt) -> Result<Run> {
    recipe.check()?;
    let identity = recipe.identity(&sources, Origin::Weights(model.hash()?))?;
    let manifest = describe(recipe, &sources, model, &identity, None);
    let name = name_of(&manifest.recipe, &identity);
    take_up(&runs_folder(), name, manifest, sources, || model.fork())
}

fn describe(recipe: Recipe, sources: &Sources, model: &Gpt, identity: &Identity, parent: Option<Parent>) -> Manifest {
    Manifest {
        recipe,
        model: model.config.clone(),
        identity: identity.to_string(),
        pairs: sources.pairs.hash.clone(),
        held_out: sources.held_out.hash.clone(),
        reference: sources.reference.as_ref().map(|r| r.1.clone()),
        max_lengths: Some(MaxLengths { pairs: sources.pairs.max_length, held_out: sources.held_out.max_length }),
        parent,
    }
}

/// `dpo-beta0.1-3fa2c1d0`: the kind, what a reader looks for first, and a hash of all that decides the run.
fn name_of(recipe: &Recipe, identity: &Identity) -> String {
    let hash = identity.hash(8);
    match recipe {
        Recipe::Dpo(dpo) if (1e-4..1e4).contains(&dpo.beta) => format!("dpo-beta{}-{hash}", dpo.beta),
        Recipe::Dpo(dpo) => format!("dpo-beta{:e}-{hash}", dpo.beta),
        Recipe::Sft(_) | Recipe::Reward(_) => format!("{}-{hash}", recipe.kind()),
    }
}

/// The run of this name: the one of this process, the one on disk, or a new one.
fn take_up(
    runs: &Path,
    name: String,
    mut manifest: Manifest,
    sources: Sources,
    model: impl FnOnce() -> Result<Gpt>,
) -> Result<Run> {
    let store = Store::new(runs, &name);
    std::fs::create_dir_all(store.folder()).map_err(|e| Error::io(store.folder(), &e))?;
    let folder = store.folder().canonicalize().map_err(|e| Error::io(store.folder(), &e))?;
    let mut here = HERE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(shared) = here.get(&folder).and_then(Weak::upgrade) {
        // One that was told to stop ends within a step, and goes on from there.
        shared.wait_where_stopping();
        let phase = shared.control().phase;
        if phase.is_active() || phase == Phase::Finished {
            let note = if phase.is_active() { "was running already" } else { "had finished before" };
            let log = other_log(&manifest.recipe, shared.recipe());
            let note = format!("{note}{}{log}", changed(shared.progress().as_deref()));
            return Ok(Run::new(shared, note));
        }
    }
    if let Recipe::Dpo(dpo) = &mut manifest.recipe {
        dpo.cache.get_or_insert_with(|| runs.join("shared"));
    }
    let there = store.manifest().ok().filter(|there| there.identity == manifest.identity);
    let log = there.as_ref().map(|there| other_log(&manifest.recipe, &there.recipe)).unwrap_or_default();
    let known = there.is_some();
    let (checkpoint, damaged) = if known { newest(&store) } else { (None, 0) };
    let last = checkpoint.as_ref().map(|c| c.0);
    let finished = store.standing().is_some_and(|s| s.phase == Phase::Finished && Some(s.step) == last);
    let shared = Arc::new(Shared::new(name, manifest, sources, model()?, store));
    let note = match &checkpoint {
        Some((step, path)) if finished => {
            let progress = Progress::read(path, &shared.model)?;
            let changed = changed(Some(&progress));
            let _ = shared.progress.set(RwLock::new(progress));
            shared.set_phase(Phase::Finished);
            format!("had finished before, at step {step}{changed}{log}")
        }
        found => {
            let lock = shared.store.lock()?;
            shared.store.begin_again(known)?;
            let note = match found {
                Some((step, _)) if damaged > 0 => format!("goes on from step {step} (what was saved later is damaged)"),
                Some((step, _)) => format!("goes on from step {step}"),
                None => String::new(),
            };
            shared.begin(checkpoint.map(|c| c.1), lock)?;
            note
        }
    };
    here.insert(folder, Arc::downgrade(&shared));
    Ok(Run::new(shared, note))
}

/// What a reader must know of a run that was found by settings that log at other steps.
fn other_log(asked: &Recipe, found: &Recipe) -> String {
    match (asked.train().log_every, found.train().log_every) {
        (asked, found) if asked == found => String::new(),
        (_, found) => format!("; its log has a record every {found} steps"),
    }
}

/// What a reader must know of a run that did not keep the settings it is named after.
fn changed(progress: Option<&Progress>) -> String {
    let marks = progress.map_or(&[][..], |p| &p.state.history.marks);
    let texts: Vec<String> = marks.iter().map(|m| format!("{} at step {}", m.text, m.step)).collect();
    if texts.is_empty() { String::new() } else { format!("; on its way: {}", texts.join(", ")) }
}

/// The last fork with these settings that was made of a run which had been changed in the same way by then.
fn fork_of(runs: &Path, parent: &Parent, recipe: &Recipe) -> Option<String> {
    let same = |name: &String| {
        let there = Store::new(runs, name).manifest().ok()?;
        let from = there.parent?;
        let marks = parent.marks.iter().filter(|m| m.step <= from.step);
        (from.name == parent.name && from.marks.iter().eq(marks) && there.recipe.is_as(recipe)).then_some(from.step)
    };
    let forks = store::names(runs).into_iter().filter_map(|name| Some((same(&name)?, name)));
    forks.max().map(|(_, name)| name)
}

/// The folder of a run by its name, which is one part of a path: nothing outside the folder of runs can be meant by it.
fn existing(runs: &Path, name: &str) -> Result<Store> {
    let mut parts = Path::new(name).components();
    if !matches!((parts.next(), parts.next()), (Some(std::path::Component::Normal(part)), None) if part == name) {
        return Err(Error::new("this is no name of a run", format!("{name:?}"), "Run::list() shows the names"));
    }
    let store = Store::new(runs, name);
    if !store.is_there() {
        let there = store::names(runs);
        let got = if there.is_empty() { "no run at all".into() } else { there.join(", ") };
        let fix = "give one of these names; Run::list() shows them";
        return Err(Error::new(format!("there is no run {name} in {}", runs.display()), got, fix));
    }
    Ok(store)
}

/// The last checkpoint that is whole, by its step, and how many after it are not.
fn newest(store: &Store) -> (Option<(usize, PathBuf)>, usize) {
    let checkpoints = store.checkpoints();
    let damaged = checkpoints.iter().rev().take_while(|(_, path)| !checkpoint::is_whole(path)).count();
    (checkpoints.into_iter().rev().nth(damaged), damaged)
}

/// Takes up the run in a folder of runs by its name alone.
fn resume(runs: &Path, name: &str) -> Result<Run> {
    let store = existing(runs, name)?;
    let manifest = store.manifest()?;
    let sources = store.sources(&manifest)?;
    let config = manifest.model.clone();
    // Its weights are those of the checkpoint; where there is none, it had not begun, and its first weights are lost.
    if newest(&store).0.is_none() {
        let fix = "start it again from the notebook's cell";
        return Err(Error::new("this run was ended before its first checkpoint", name, fix));
    }
    take_up(runs, name.into(), manifest, sources, || Gpt::new(config, 0))
}

fn list(runs: &Path) -> Result<Table> {
    let names = store::names(runs);
    let here = HERE.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut state, mut step, mut of, mut size) = (vec![], vec![], vec![], vec![]);
    for name in &names {
        let store = Store::new(runs, name);
        let steps = store.manifest().map(|m| m.recipe.train().max_steps);
        let shared = store.folder().canonicalize().ok().and_then(|folder| here.get(&folder)?.upgrade());
        let standing = store.standing();
        let last = store.checkpoints().into_keys().next_back().unwrap_or(0);
        let (phase, at) = match (shared, standing) {
            (None, _) if steps.is_err() => ("damaged: run.json cannot be read".into(), last),
            (Some(shared), _) => {
                // One lock after the other: the run's thread takes the second inside the first.
                let phase = shared.control().phase.to_string();
                (phase, shared.progress().map_or(0, |p| p.state.step))
            }
            (None, Some(standing)) if standing.phase == Phase::Finished => ("finished".into(), standing.step),
            (None, _) if store.is_locked() => ("running in another process".into(), last),
            (None, Some(standing)) if standing.step >= last => (standing.phase.to_string(), standing.step),
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
    let note = "Run::resume(\"NAME\") takes one up; Run::delete(\"NAME\") removes it.";
    Ok(Table::new("Runs on disk", columns)?.with_note(note))
}

fn delete(runs: &Path, name: &str) -> Result<()> {
    let store = existing(runs, name)?;
    let folder = store.folder().canonicalize().map_err(|e| Error::io(store.folder(), &e))?;
    let mut here = HERE.lock().unwrap_or_else(PoisonError::into_inner);
    if here.get(&folder).and_then(Weak::upgrade).is_some_and(|shared| shared.control().phase.is_active()) {
        return Err(Error::new("this run is going on", name, "stop it first: run.stop()"));
    }
    let _lock = store.lock()?;
    here.remove(&folder);
    std::fs::remove_dir_all(&folder).map_err(|e| Error::io(&folder, &e))
}
