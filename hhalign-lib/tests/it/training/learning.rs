//! What the steps of a run move, what they start from and when they end.

use std::collections::BTreeMap;

use hhalign::data::Pair;
use hhalign::loss::PreferenceLoss;
use hhalign::model::Gpt;
use hhalign::train::{Dpo, Outcome, Pitfall, Recipe, TrainConfig};

use super::{assert_same_run, data, dpo, model, sft};
use crate::common::{
    Folder, bits, distance, error, max_abs, numbers, short, tensor_bits, texts, tiny, tokenized,
};

#[test]
fn one_sft_step_moves_every_tensor() {
    let (train, held_out) = data();
    let mut policy = model(0.0);
    let before = bits(&policy);
    sft(short(1)).fit(&mut policy, &train, &held_out).unwrap();
    for (name, after) in bits(&policy) {
        assert!(after != before[&name], "{name} did not move");
        assert!(after.iter().all(|b| f32::from_bits(*b).is_finite()), "{name} is not finite");
    }
}

#[test]
fn one_dpo_step_moves_every_policy_tensor_and_no_reference_tensor() {
    let (train, held_out) = data();
    // Either kind of reference: a frozen copy, and a model that could be trained but must not be.
    for reference in [model(0.0).freeze().unwrap(), model(0.0)] {
        let mut policy = reference.fork().unwrap();
        let before = bits(&reference);
        dpo(short(1)).fit(&mut policy, &reference, &train, &held_out).unwrap();
        assert!(bits(&reference) == before, "the reference moved");
        for (name, after) in bits(&policy) {
            assert!(after != before[&name], "{name} did not move");
        }
    }
}

#[test]
fn dpo_starts_at_rewards_of_zero_and_a_loss_of_ln_2() {
    let (train, held_out) = data();
    let reference = model(0.0);
    let mut policy = reference.fork().unwrap();
    let run = dpo(short(2)).fit(&mut policy, &reference, &train, &held_out).unwrap();
    let start = &run.history.records[0];
    assert_eq!(start.step, 0);
    for name in ["eval_rewards/chosen", "eval_rewards/rejected", "eval_rewards/margins"] {
        assert_eq!(start.metrics[name], 0.0, "{name}");
    }
    assert_eq!(start.metrics["eval_rewards/accuracies"], 0.5);
    assert!((start.metrics["eval_loss"] - 2f64.ln()).abs() < 1e-6);
    // The first step's own loss is taken before it; batches of other shapes round differently.
    let first = run.history.series("loss")[0];
    assert!(first.0 == 1.0 && (first.1 - 2f64.ln()).abs() < 1e-5, "{first:?}");
}

#[test]
fn a_policy_that_is_not_the_reference_is_stopped_before_the_first_step() {
    let (train, held_out) = data();
    let reference = model(0.0);
    let mut other = Gpt::new(tiny(2, 0.0), 6).unwrap();
    let before = bits(&other);
    let error = error(dpo(short(2)).fit(&mut other, &reference, &train, &held_out));
    assert!(error.what().contains("step 0") && error.what().contains("ln 2"), "{error}");
    assert!(error.got().contains("nats") && error.fix().contains("fork"), "{error}");
    assert!(bits(&other) == before, "nothing may move");
    let meant = Dpo { self_test: false, ..dpo(short(1)) };
    meant.fit(&mut other, &reference, &train, &held_out).unwrap();
    // Without a reference in the loss there is nothing to compare.
    let simpo = Dpo { loss: PreferenceLoss::SimPo { gamma: 0.5 }, ..dpo(short(1)) };
    simpo.fit(&mut other, &reference, &train, &held_out).unwrap();
}

#[test]
fn two_runs_of_one_seed_are_equal_bit_for_bit_and_another_seed_is_not() {
    let (train, held_out) = data();
    let run = |seed: u64| {
        let mut policy = model(0.1);
        let run =
            sft(TrainConfig { seed, ..short(4) }).fit(&mut policy, &train, &held_out).unwrap();
        (run, policy)
    };
    let (a, b, other) = (run(3), run(3), run(4));
    assert_same_run((&a.0, &a.1), (&b.0, &b.1));
    assert!(bits(&a.1) != bits(&other.1), "the seed decides nothing");
}

#[test]
fn dropout_is_on_in_training_and_off_in_evaluation() {
    let (train, held_out) = data();
    let run =
        |dropout: f64| sft(short(1)).fit(&mut model(dropout), &train, &held_out).unwrap().history;
    let (without, with) = (run(0.0), run(0.3));
    assert_eq!(without.series("eval_loss")[0], with.series("eval_loss")[0]);
    assert_ne!(without.series("loss")[0], with.series("loss")[0]);
}

/// Steps of eight in one pass, and in eight passes.
fn accumulate(tolerance: f64, fit: impl Fn(TrainConfig, &mut Gpt) -> Outcome) {
    let run = |micro_batch_size: usize| {
        let mut policy = model(0.0);
        // Plain decay and a large epsilon: Adam would blow up rounding where a gradient is zero, as
        // in the keys' bias.
        let mut config = TrainConfig { micro_batch_size, batch_size: 8, ..short(4) };
        config.adamw.epsilon = 1e-3;
        let run = fit(config, &mut policy);
        (run, policy)
    };
    let (one, eight, three) = (run(8), run(1), run(3));
    for other in [&eight, &three] {
        for metric in ["loss", "grad_norm", "eval_loss"] {
            let values =
                |run: &Outcome| run.history.series(metric).iter().map(|p| p.1).collect::<Vec<_>>();
            let (a, b) = (values(&one.0), values(&other.0));
            assert!(!a.is_empty());
            let error = distance(&a, &b) / max_abs(&a);
            println!("{metric} differs by {error:.1e}");
            assert!(error < tolerance, "{metric}: {error}");
        }
        let error = one
            .1
            .named_parameters()
            .into_iter()
            .map(|(n, t)| distance(&numbers(&t), &numbers(&other.1.named_parameters()[&n])));
        let error = error.fold(0.0, f64::max);
        println!("weights differ by {error:.1e}");
        assert!(error < 1e-5, "weights: {error}");
    }
}

#[test]
fn sft_in_one_pass_of_eight_equals_eight_passes_of_one() {
    let (train, held_out) = data();
    accumulate(1e-6, |config, policy| sft(config).fit(policy, &train, &held_out).unwrap());
}

#[test]
fn dpo_in_one_pass_of_eight_equals_eight_passes_of_one() {
    let (train, held_out) = data();
    let reference = model(0.0);
    // Sums of some 300 nats are rounded to 3e-5 in f32; times beta, and over eight pairs, that is
    // about 1e-6.
    accumulate(1e-5, |config, policy| {
        dpo(config).fit(policy, &reference, &train, &held_out).unwrap()
    });
}

#[test]
fn overfitting_one_batch_drives_the_loss_near_zero() {
    let few = tokenized(&texts(1, 4));
    let train = TrainConfig {
        learning_rate: 2e-2,
        batch_size: 4,
        eval_every: 1000,
        warmup_steps: 5,
        log_every: 1000,
        ..short(120)
    };
    let mut policy = model(0.0);
    let run = sft(train.clone()).fit(&mut policy, &few, &few).unwrap();
    let loss = run.history.last("eval_loss").unwrap();
    println!("SFT on one batch: {} to {loss:.4}", run.history.series("eval_loss")[0].1);
    assert!(loss < 0.1, "{loss}");

    let reference = policy.freeze().unwrap();
    let train = TrainConfig { learning_rate: 5e-3, max_steps: 60, ..train };
    let run = dpo(train).fit(&mut policy, &reference, &few, &few).unwrap();
    let loss = run.history.last("eval_loss").unwrap();
    println!("DPO on one batch: {loss:.4}");
    assert!(loss < 0.05, "{loss}");
    assert_eq!(run.history.last("eval_rewards/accuracies"), Some(1.0));
}

#[test]
fn early_stopping_stops_and_keeps_the_best_weights() {
    let pairs = texts(1, 24);
    // Held-out preferences that say the opposite: each step that learns makes them worse.
    let opposite =
        |p: &Pair| Pair { chosen: p.rejected.clone(), rejected: p.chosen.clone(), ..p.clone() };
    let (train, held_out) =
        (tokenized(&pairs), tokenized(&pairs.iter().map(opposite).collect::<Vec<_>>()));
    let reference = model(0.0);
    let folder = Folder::new("patience");
    let checkpoint = folder.join("run.safetensors");
    let config = TrainConfig {
        eval_every: 1,
        patience: Some(2),
        batch_size: 24,
        checkpoint: Some(checkpoint.clone()),
        ..short(20)
    };
    let mut policy = reference.fork().unwrap();
    let run = dpo(config.clone()).fit(&mut policy, &reference, &train, &held_out).unwrap();
    assert!(run.stopped_early);
    assert_eq!((run.steps, run.best.step), (2, 0));
    assert_eq!(run.recipe, Recipe::Dpo(dpo(config.clone())), "an outcome knows what it was told");
    assert_eq!(run.beta(), Some(Dpo::default().beta));
    let best: BTreeMap<_, _> =
        run.best_parameters.iter().map(|(n, t)| (n.clone(), tensor_bits(t))).collect();
    assert!(best == bits(&reference), "the best weights are those before the first step");
    assert!(bits(&policy) != best, "the policy itself ends with its last weights");
    let mut again = reference.fork().unwrap();
    let resumed =
        dpo(config).resume(&checkpoint, &mut again, &reference, &train, &held_out).unwrap();
    assert_same_run((&run, &policy), (&resumed, &again));
}

#[test]
fn a_frozen_model_cannot_be_trained() {
    let (train, held_out) = data();
    let mut frozen = model(0.0).freeze().unwrap();
    assert!(error(sft(short(1)).fit(&mut frozen, &train, &held_out)).what().contains("frozen"));
    let reference = model(0.0);
    assert!(
        error(dpo(short(1)).fit(&mut frozen, &reference, &train, &held_out))
            .what()
            .contains("frozen")
    );
    assert!(error(frozen.assign(&reference.named_parameters())).what().contains("frozen"));
}

#[test]
fn a_fork_shares_no_storage() {
    let original = model(0.0);
    let before = bits(&original);
    let fork = original.fork().unwrap();
    for var in fork.named_vars().values() {
        var.set(&var.zeros_like().unwrap()).unwrap();
    }
    assert!(bits(&original) == before);
}

#[test]
fn settings_out_of_range_are_named() {
    let (train, held_out) = data();
    let bad = [
        (TrainConfig { learning_rate: 0.0, ..short(2) }, "learning_rate"),
        (TrainConfig { learning_rate: f64::NAN, ..short(2) }, "learning_rate"),
        (TrainConfig { max_grad_norm: -1.0, ..short(2) }, "max_grad_norm"),
        (TrainConfig { batch_size: 0, ..short(2) }, "batch_size"),
        (TrainConfig { micro_batch_size: 0, ..short(2) }, "micro_batch_size"),
        (TrainConfig { eval_every: 0, ..short(2) }, "eval_every"),
        (TrainConfig { log_every: 0, ..short(2) }, "log_every"),
        (TrainConfig { min_lr_ratio: 1.5, ..short(2) }, "min_lr_ratio"),
        (TrainConfig { warmup_steps: 3, ..short(2) }, "warm-up"),
        (short(0), "max_steps"),
    ];
    for (config, setting) in bad {
        let error = error(sft(config).fit(&mut model(0.0), &train, &held_out));
        assert!(error.what().contains(setting), "{error}");
    }
    let reference = model(0.0);
    let fit =
        |dpo: Dpo| error(dpo.fit(&mut reference.fork().unwrap(), &reference, &train, &held_out));
    assert!(fit(Dpo { beta: 0.0, ..dpo(short(1)) }).what().contains("beta"));
    assert!(fit(Dpo { rpo_alpha: -1.0, ..dpo(short(1)) }).what().contains("rpo_alpha"));
    let mut small = tiny(1, 0.0);
    small.block_size = 32;
    let error = error(sft(short(1)).fit(&mut Gpt::new(small, 1).unwrap(), &train, &held_out));
    assert!(error.what().contains("block"), "{error}");
}

/// With dropout the composed model trains, but evaluations compute as the reference was scored: at
/// step 0 every margin is 0.
#[test]
fn a_run_with_dropout_is_evaluated_as_its_reference_was_scored() {
    let (pairs, held_out) = data();
    let reference = model(0.0).freeze().unwrap();
    let mut policy = reference.fork().unwrap();
    let train = TrainConfig { pitfall: Some(Pitfall::DropoutLeftOn), eval_every: 1, ..short(2) };
    let run = dpo(train).fit(&mut policy, &reference, &pairs, &held_out).unwrap();
    let first = |metric: &str| run.history.series(metric)[0];
    assert_eq!(first("eval_rewards/margins"), (0.0, 0.0));
    assert_eq!(first("eval_rewards/accuracies"), (0.0, 0.5));
    assert!(run.history.series("eval_rewards/margins")[1].1 != 0.0);
}
