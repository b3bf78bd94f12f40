//! The arena of `Values`: it stays within its limits, and training does not use it. Its size is
//! that of the whole process, so these tests have a program of their own and take turns.

use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{Device, Tensor, Var};
use hhalign::infer::score::{pair_logps, score_pairs};
use hhalign::loss::{ArenaSize, PairLogps, PairValues, PreferenceLoss, Values};
use hhalign::model::Gpt;
use hhalign::model::ops::Dropout;
use hhalign::train::{Dpo, TrainConfig};

use crate::common::{error, short, texts, tiny, tokenized};

/// Vectors that keep a gradient, and forward passes whose graph is kept, at most.
const GRAPHS: usize = 1_000;
const PASSES: usize = 16;
/// Vectors kept at most.
const VECTORS: usize = 100_000;

fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn variable() -> Tensor {
    Var::from_tensor(&Tensor::new(&[1.0, 2.0], &Device::Cpu).unwrap()).unwrap().into_inner()
}

/// A tensor with a graph of its own, as a forward pass gives it.
fn pass() -> Tensor {
    (variable() * 2.0).unwrap()
}

#[test]
fn a_hundred_thousand_operations_with_graphs_keep_a_thousand_of_them() {
    let _turn = alone();
    let a = Values::from_tensor(variable());
    let first = a * 3.0;
    let mut most = 0;
    for i in 0..50_000 {
        let b = a - f64::from(i);
        let c = b * 0.5;
        if i % 1_000 == 0 {
            let size = ArenaSize::now();
            most = most.max(size.graphs);
            assert!(size.graphs <= GRAPHS && size.vectors <= VECTORS, "{size:?}");
            assert!(c.tensor().unwrap().track_op(), "a fresh vector has its gradient");
        }
        if i == 20_000 {
            let refused = error(first.tensor());
            assert!(
                refused.what().contains("gradient") && refused.fix().contains("Values::new"),
                "{refused}"
            );
            assert_eq!(first.to_vec().unwrap(), [3.0, 6.0], "the numbers are left");
        }
    }
    assert_eq!(most, GRAPHS);
    assert!(error(first.tensor()).what().contains("gradient"));
    assert_eq!(first.to_vec().unwrap(), [3.0, 6.0]);
    // `a` was used all the time.
    assert!(a.tensor().unwrap().is_variable());
}

#[test]
fn half_a_gradient_is_none() {
    let _turn = alone();
    let (old, a) = (Values::from_tensor(pass()), Values::from_tensor(variable()));
    let _newer: Vec<Values> = (0..=PASSES).map(|_| Values::from_tensor(pass())).collect();
    let sum = old + a;
    assert_eq!(sum.to_vec().unwrap(), [3.0, 6.0]);
    assert!(error(sum.tensor()).what().contains("released"));
    let values = PairValues {
        policy_chosen: sum,
        policy_rejected: a,
        ref_chosen: a,
        ref_rejected: a,
        chosen_tokens: vec![1; 2],
        rejected_tokens: vec![1; 2],
    };
    assert!(error(PairLogps::new(values.clone())).what().contains("released"));
    let numbers = Values::new(&sum.to_vec().unwrap());
    assert!(PairLogps::new(PairValues { policy_chosen: numbers, ..values }).is_ok());
}

#[test]
fn the_graphs_of_old_forward_passes_are_dropped() {
    let _turn = alone();
    let roots: Vec<Values> = (0..3 * PASSES).map(|_| 2.0 * Values::from_tensor(pass())).collect();
    let kept = |values: &&Values| values.tensor().is_ok();
    assert_eq!(roots.iter().rev().take(PASSES).filter(kept).count(), PASSES);
    assert_eq!(roots.iter().filter(kept).count(), PASSES);
    // A pass that is used stays, whatever its age.
    let old = roots[3 * PASSES - 1];
    for _ in 0..3 * PASSES {
        let _ = old + Values::from_tensor(pass());
    }
    assert!(old.tensor().is_ok());
    // A sum over more passes than are kept has no gradient; its numbers are right.
    let sum =
        (0..2 * PASSES).fold(Values::new(&[0.0; 2]), |sum, _| sum + Values::from_tensor(pass()));
    assert_eq!(sum.to_vec().unwrap(), [2.0 * 32.0, 4.0 * 32.0]);
    assert!(error(sum.tensor()).what().contains("released"));
}

#[test]
fn one_pass_counts_once_however_often_it_is_asked_for() {
    let _turn = alone();
    let (root, other) = (pass(), Values::from_tensor(pass()));
    for _ in 0..10 * PASSES {
        let again = Values::from_tensor(root.clone());
        assert!((again - again).tensor().is_ok());
    }
    assert!(other.tensor().is_ok());
}

#[test]
fn a_long_chain_of_operations_neither_overflows_the_stack_nor_loses_its_numbers() {
    let _turn = alone();
    let mut chain = Values::from_tensor(variable());
    for _ in 0..1_000 {
        chain = chain + 1.0;
    }
    let total = chain.tensor().unwrap().sum_all().unwrap();
    assert!(total.backward().is_ok());
    for _ in 0..100_000 {
        chain = chain + 1.0;
    }
    assert_eq!(chain.to_vec().unwrap(), [101_001.0, 101_002.0]);
    assert!(error(chain.tensor()).what().contains("released"));
}

#[test]
fn numbers_go_after_a_hundred_thousand_vectors_and_say_so() {
    let _turn = alone();
    let (old, used) = (Values::new(&[1.0]), Values::new(&[2.0]));
    let _newer: Vec<Values> = (0..VECTORS).map(|i| used + i as f64).collect();
    assert_eq!(ArenaSize::now().vectors, VECTORS);
    assert_eq!(used.to_vec().unwrap(), [2.0]);
    let refused = error((old + used).to_vec());
    assert!(
        refused.what().contains("no longer kept") && refused.fix().contains("cell"),
        "{refused}"
    );
    // Few vectors with many numbers.
    let many = vec![0.5; 1 << 20];
    let first = Values::new(&many);
    let _newer = [(); 20].map(|()| Values::new(&many));
    assert!(ArenaSize::now().numbers <= 1 << 24);
    assert!(first.to_vec().is_err());
    assert!(
        Values::new(&vec![0.5; (1 << 24) + 1]).len().is_ok(),
        "the newest vector is kept, whatever its size"
    );
}

#[test]
fn training_makes_no_values() {
    let _turn = alone();
    let (train, held_out) = (tokenized(&texts(1, 24)), tokenized(&texts(2, 8)));
    let reference = Gpt::new(tiny(1, 0.0), 5).unwrap();
    let scores = score_pairs(&reference, &train).unwrap();
    let first =
        pair_logps(&reference.fork().unwrap(), &scores, &train, &[0, 1], &mut Dropout::off())
            .unwrap();
    let before = ArenaSize::now();
    for composed in [false, true] {
        for loss in [PreferenceLoss::Sigmoid, PreferenceLoss::Aot { label_smoothing: 0.1 }] {
            let mut train_config = TrainConfig { eval_every: 2, log_every: 1, ..short(4) };
            train_config.compute.composed = composed;
            let dpo = Dpo { train: train_config, loss, rpo_alpha: 0.5, ..Dpo::default() };
            let run =
                dpo.fit(&mut reference.fork().unwrap(), &reference, &train, &held_out).unwrap();
            assert_eq!(run.steps, 4);
        }
    }
    assert!(PreferenceLoss::Sigmoid.mean(&first, 0.1).unwrap() > 0.0);
    assert_eq!(first.rewards(0.1).chosen.len(), 2);
    assert_eq!(ArenaSize::now(), before);
    // The test would see one.
    let _ = first.margins();
    assert_ne!(ArenaSize::now(), before);
}
