//! Runs in threads of their own: what may be done to them changes no number that it should not.

mod changes;
mod reward;
mod runs;
mod server;

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use hhalign::data::batch::TokenizedPairs;
use hhalign::live::Run;
use hhalign::live::set_runs_folder;
use hhalign::model::Gpt;
use hhalign::train::{Dpo, Sft, TrainConfig};

use crate::common::{short, texts, tiny, tokenized};

/// The folder of all runs of this process; seeds and steps keep the runs of two tests apart.
pub fn folder() -> PathBuf {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = std::env::temp_dir().join(format!("hhalign-live-{}", std::process::id()));
        set_runs_folder(&folder);
        folder
    });
    FOLDER.clone()
}

fn data() -> (TokenizedPairs, TokenizedPairs) {
    (tokenized(&texts(1, 40)), tokenized(&texts(2, 12)))
}

fn sft(steps: usize, seed: u64) -> Sft {
    folder();
    Sft { train: TrainConfig { seed, eval_every: 3, checkpoint_every: 5, ..short(steps) } }
}

fn dpo(steps: usize, seed: u64) -> Dpo {
    folder();
    Dpo {
        train: TrainConfig { seed, eval_every: 3, checkpoint_every: 5, ..short(steps) },
        ..Dpo::default()
    }
}

fn model() -> Gpt {
    Gpt::new(tiny(2, 0.0), 5).unwrap()
}

/// The message of an error holds all of these words.
fn error<T>(result: hhalign::base::error::Result<T>, words: &[&str]) {
    let text = crate::common::error(result).to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(60), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The step at which a paused run is held: the one under way may still end.
fn held(run: &Run) -> usize {
    loop {
        let step = run.step();
        std::thread::sleep(Duration::from_millis(300));
        if run.step() == step {
            return step;
        }
    }
}

/// Takes up a run that has ended and that nobody holds, from disk: its own thread may hold it for a
/// moment longer, and would give it from memory.
fn from_disk(take_up: impl Fn() -> Run) -> Run {
    let begin = Instant::now();
    loop {
        let run = take_up();
        let from_memory = |rest: &str| !rest.starts_with(", at step");
        if !run.note().strip_prefix("had finished before").is_some_and(from_memory) {
            return run;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "the run's thread never ends");
        drop(run);
        std::thread::sleep(Duration::from_millis(2));
    }
}
