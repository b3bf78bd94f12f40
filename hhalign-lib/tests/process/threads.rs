//! The number of threads changes no bit of a training.

use std::sync::{Mutex, PoisonError};

use hhalign::base::parallel;
use hhalign::compute::{Compute, Precision};
use hhalign::data::batch::TokenizedPairs;
use hhalign::model::Gpt;
use hhalign::train::reward::{RewardConfig, RewardModel};
use hhalign::train::{Dpo, History, Outcome, Sft, TrainConfig};

use crate::common::{bits, short, texts, tiny, tokenized};

const STEPS: usize = 12;

/// Does `work` with a given number of threads; the number is one for the whole process.
fn with<T>(threads: usize, work: impl FnOnce() -> T) -> T {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    parallel::set_threads(threads);
    let result = work();
    parallel::set_threads(0);
    result
}

fn data() -> (TokenizedPairs, TokenizedPairs) {
    (tokenized(&texts(1, 40)), tokenized(&texts(2, 12)))
}

fn config(steps: usize, compute: Compute) -> TrainConfig {
    TrainConfig { compute, micro_batch_size: 2, ..short(steps) }
}

fn sft(compute: Compute) -> (Outcome, Gpt) {
    let ((pairs, held_out), mut model) = (data(), Gpt::new(tiny(2, 0.0), 5).unwrap());
    let sft = Sft { train: config(STEPS, compute) };
    (sft.fit(&mut model, &pairs, &held_out).unwrap(), model)
}

fn dpo(compute: Compute) -> (Outcome, Gpt) {
    let ((pairs, held_out), (_, reference)) = (data(), sft(Compute::default()));
    let mut policy = reference.fork().unwrap();
    let dpo = Dpo { train: config(STEPS, compute), ..Dpo::default() };
    (dpo.fit(&mut policy, &reference, &pairs, &held_out).unwrap(), policy)
}

fn reward(seed: u64) -> RewardModel {
    let ((pairs, watched), start) = (data(), Gpt::new(tiny(2, 0.0), 5).unwrap());
    let train = TrainConfig { seed, ..config(8, Compute::default()) };
    let config =
        RewardConfig { train, lm_weight: 0.1, token_dropout: 0.1, ..RewardConfig::default() };
    RewardModel::train(&config, &start, &pairs, &watched, None).unwrap()
}

fn losses(history: &History) -> Vec<(f64, f64)> {
    history.series("loss")
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for run in [sft, dpo] {
        let run = || run(Compute { precision: Precision::Auto, ..Compute::default() });
        let (first, model) = with(1, run);
        for threads in [2, 3, 8] {
            let (other, other_model) = with(threads, run);
            assert!(bits(&model) == bits(&other_model), "{threads} threads give other weights");
            assert_eq!(losses(&first.history), losses(&other.history));
            assert_eq!((losses(&first.history).len(), first.best), (STEPS, other.best));
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit_and_the_seed_does() {
    let first = with(1, || reward(0));
    let training = first.training.as_ref().unwrap();
    for threads in [2, 3] {
        let other = with(threads, || reward(0));
        assert!(bits(first.gpt()) == bits(other.gpt()), "{threads} threads give other weights");
        assert_eq!(first.head(), other.head());
        let other = other.training.unwrap();
        assert_eq!(losses(&training.history), losses(&other.history));
        assert_eq!((losses(&training.history).len(), training.best), (8, other.best));
    }
    assert!(bits(reward(1).gpt()) != bits(first.gpt()));
}
