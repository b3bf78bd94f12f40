//! The state shared by a run's handle and its thread: weights and progress to read, and requests to
//! apply.

use std::path::PathBuf;
use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, Once, OnceLock, PoisonError, RwLock, RwLockReadGuard,
};
use std::time::{Duration, Instant};

use super::Phase;
use super::store::{Manifest, Status, Store};
use crate::base::error::{Error, Result};
use crate::base::parallel;
use crate::base::parallel::Gate;
use crate::model::Gpt;
use crate::train::{Change, Observer, Progress, Recipe, Requests, SavePoint, Sources};

/// The longest time between two saves of a run, unless saving itself takes long.
const SAVE_EVERY: Duration = Duration::from_secs(15);

/// Saving takes at most 1/`SAVE_SHARE` of a run's time.
const SAVE_SHARE: u32 = 20;

pub(super) struct Shared {
    pub(super) name: String,
    pub(super) sources: Sources,
    /// The trained weights; they change only under the lock of `progress`.
    pub(super) model: Gpt,
    pub(super) progress: OnceLock<RwLock<Progress>>,
    pub(super) store: Store,
    pub(super) manifest: Manifest,
    control: Mutex<Control>,
    changed: Condvar,
}

/// The requests to the run, and its state.
pub(super) struct Control {
    pub(super) phase: Phase,
    pub(super) error: Option<Error>,
    pause: bool,
    stop: bool,
    changes: Vec<Change>,
    /// Whether the weights in main memory are older than those of a GPU.
    is_stale: bool,
    /// Whether a reader is waiting for the weights.
    weights_wanted: bool,
    paused_at: Option<Instant>,
    idle: Duration,
    saved_at: Instant,
    save_took: Duration,
}

impl Shared {
    pub(super) fn new(
        name: String,
        manifest: Manifest,
        sources: Sources,
        model: Gpt,
        store: Store,
    ) -> Self {
        let control = Control {
            phase: Phase::Preparing,
            error: None,
            pause: false,
            stop: false,
            changes: vec![],
            is_stale: false,
            weights_wanted: false,
            paused_at: None,
            idle: Duration::ZERO,
            saved_at: Instant::now(),
            save_took: Duration::ZERO,
        };
        let (control, changed) = (Mutex::new(control), Condvar::new());
        Self { name, sources, model, progress: OnceLock::new(), store, manifest, control, changed }
    }

    pub(super) fn recipe(&self) -> &Recipe {
        &self.manifest.recipe
    }

    pub(super) fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the run between two steps; `None` while it is being prepared.
    pub(super) fn progress(&self) -> Option<RwLockReadGuard<'_, Progress>> {
        self.progress.get().map(|p| p.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until the weights in main memory are those of the last step, even if a GPU trains
    /// them.
    pub(super) fn sync(&self) {
        let mut control = self.control();
        control.weights_wanted = control.is_stale;
        while control.weights_wanted && control.phase.is_active() {
            control = self.changed.wait(control).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Returns the run between two steps, with the weights of that step in main memory; `None`
    /// while it is being prepared.
    pub(super) fn synced_progress(&self) -> Option<RwLockReadGuard<'_, Progress>> {
        loop {
            self.sync();
            let progress = self.progress()?;
            // A step taken after `sync` set `is_stale` under the lock of `progress`, which is now
            // held.
            let control = self.control();
            if !control.is_stale || !control.phase.is_active() {
                return Some(progress);
            }
        }
    }

    /// Waits for a change, at most this long.
    pub(super) fn wait_for_change(&self, at_most: Duration) {
        let control = self.control();
        drop(self.changed.wait_timeout(control, at_most).unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn pause(&self) {
        let mut control = self.control();
        if control.phase.is_active() && !control.pause && !control.stop {
            (control.pause, control.paused_at) = (true, Some(Instant::now()));
            control.phase = Phase::Paused;
        }
        self.changed.notify_all();
    }

    pub(super) fn resume(&self) {
        let mut control = self.control();
        if control.pause {
            control.pause = false;
            let paused = control.paused_at.take().map_or(Duration::ZERO, |t| t.elapsed());
            control.idle += paused;
            control.phase =
                if self.progress.get().is_some() { Phase::Training } else { Phase::Preparing };
        }
        self.changed.notify_all();
    }

    pub(super) fn stop(&self) {
        self.resume();
        self.control().stop = true;
        self.changed.notify_all();
    }

    /// Waits for the end of a run that was told to stop.
    pub(super) fn wait_until_stopped(&self) {
        let mut control = self.control();
        while control.stop && control.phase.is_active() {
            control = self.changed.wait(control).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn request(&self, change: Change) -> Result<()> {
        let mut control = self.control();
        if !control.phase.is_active() || control.stop {
            let got = format!("the run is {}", control.phase);
            return Err(Error::not_ready(
                "only an active run can be changed",
                got,
                "fork it, or start another",
            ));
        }
        control.changes.push(change);
        Ok(())
    }

    /// Starts the work in its own thread; `resume` is the checkpoint to resume from.
    pub(super) fn begin(
        self: &Arc<Self>,
        resume: Option<PathBuf>,
        lock: std::fs::File,
    ) -> Result<()> {
        install_panic_hook();
        let shared = Arc::clone(self);
        let work = move || {
            parallel::silence_panics();
            // Lowers the priority: cells compile at the same time and take precedence if there are
            // few cores. Threads started here inherit this priority.
            let _ = rustix::process::setpriority_process(None, 10);
            let observer = RunObserver(&shared);
            let train = || {
                let Shared { sources, model, progress, .. } = &*shared;
                shared.store.write_description(&shared.manifest, sources)?;
                sources.train(shared.recipe(), model, resume.as_deref(), progress, &observer)
            };
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(train))
                .unwrap_or_else(|panic| Err(parallel::panicked(&*panic)));
            let (phase, error) = match result {
                Ok(outcome)
                    if outcome.steps < shared.recipe().train().max_steps
                        && !outcome.stopped_early =>
                {
                    (Phase::Stopped, None)
                }
                Ok(_) => (Phase::Finished, None),
                Err(error) => (Phase::Failed, Some(error)),
            };
            shared.end(phase, error, lock);
        };
        std::thread::Builder::new()
            .name(format!("hhalign {}", self.name))
            .spawn(work)
            .map(drop)
            .map_err(|e| {
                Error::not_ready(
                    "no thread could be started for the run",
                    e.to_string(),
                    "end other work first",
                )
                .caused_by(e)
            })
    }

    fn end(&self, phase: Phase, error: Option<Error>, lock: std::fs::File) {
        let step = self.progress().map_or(0, |p| p.state.step);
        let text = error.as_ref().map(ToString::to_string).unwrap_or_default();
        let written = self.store.write_status(&Status { phase, step, error: text });
        // The lock is released before the phase changes, since a reader of the phase may start the
        // run again.
        drop(lock);
        let mut control = self.control();
        (control.phase, control.error) = (phase, error);
        if let (Phase::Finished | Phase::Stopped, Err(error)) = (phase, written) {
            (control.phase, control.error) = (Phase::Failed, Some(error));
        }
        drop(control);
        self.changed.notify_all();
    }

    /// Sets the phase of a run that ended earlier.
    pub(super) fn set_phase(&self, phase: Phase) {
        self.control().phase = phase;
    }
}

impl Gate for Shared {
    fn pass(&self) {
        let mut control = self.control();
        while control.pause {
            control = self.changed.wait(control).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The observer of a run: it connects the training loop to the shared state.
struct RunObserver<'a>(&'a Arc<Shared>);

impl Observer for RunObserver<'_> {
    fn gate(&self) -> Option<Arc<dyn Gate>> {
        Some(self.0.clone())
    }

    fn requests(&self) -> Option<Requests> {
        let mut control = self.0.control();
        while control.pause {
            if control.is_stale {
                return None;
            }
            control = self.0.changed.wait(control).unwrap_or_else(PoisonError::into_inner);
        }
        Some(Requests { changes: std::mem::take(&mut control.changes), stop: control.stop })
    }

    fn wants_weights(&self) -> bool {
        let control = self.0.control();
        control.is_stale && (control.weights_wanted || control.pause)
    }

    fn set_stale(&self, is_stale: bool) {
        let mut control = self.0.control();
        (control.is_stale, control.weights_wanted) = (is_stale, control.weights_wanted && is_stale);
        drop(control);
        self.0.changed.notify_all();
    }

    fn will_save(&self, progress: &Progress, point: SavePoint) -> bool {
        let (shared, step) = (self.0, progress.state.step);
        match point {
            SavePoint::Begin => !shared.store.checkpoints().contains_key(&step),
            SavePoint::Changed | SavePoint::End => true,
            SavePoint::Step => {
                let control = shared.control();
                step.is_multiple_of(shared.recipe().train().checkpoint_every)
                    || control.saved_at.elapsed() > SAVE_EVERY.max(control.save_took * SAVE_SHARE)
            }
        }
    }

    fn idle_seconds(&self) -> f64 {
        let control = self.0.control();
        (control.idle + control.paused_at.map_or(Duration::ZERO, |t| t.elapsed())).as_secs_f64()
    }

    fn at_save_point(&self, model: &Gpt, progress: &Progress, point: SavePoint) -> Result<()> {
        let shared = self.0;
        if point == SavePoint::Begin {
            let mut control = shared.control();
            if control.phase == Phase::Preparing {
                control.phase = Phase::Training;
            }
        }
        if self.will_save(progress, point) {
            let begin = Instant::now();
            if !shared.store.is_there() {
                shared.store.write_description(&shared.manifest, &shared.sources)?;
            }
            shared.store.save(model, progress)?;
            let mut control = shared.control();
            (control.saved_at, control.save_took) = (Instant::now(), begin.elapsed());
        }
        shared.changed.notify_all();
        Ok(())
    }
}

/// Installs a hook that does not print panics of a run's thread. They become errors, and must not
/// appear below an unrelated cell.
fn install_panic_hook() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !parallel::is_silent() {
                before(panic);
            }
        }));
    });
}
