//! Reward models as live runs: watched, paused, stopped, resumed and forked like any other.

use hhalign::live::{Pausable, Phase, Run, overlay};
use hhalign::model::Gpt;
use hhalign::train::reward::{RewardConfig, RewardModel};
use hhalign::train::{Dpo, Recipe, Sft, TrainConfig};

use super::{data, folder, model};
use crate::common::{bits, error, short, tiny, tokenizer};

fn config(steps: usize, seed: u64) -> RewardConfig {
    folder();
    let train = TrainConfig { seed, eval_every: 3, checkpoint_every: 5, ..short(steps) };
    RewardConfig { train, lm_weight: 0.1, token_dropout: 0.1, ..RewardConfig::default() }
}

fn same(a: &RewardModel, b: &RewardModel) -> bool {
    bits(a.gpt()) == bits(b.gpt()) && a.head() == b.head()
}

#[test]
fn a_live_reward_run_ends_with_the_bits_of_train() {
    let (pairs, watched) = data();
    let trained = RewardModel::train(&config(24, 1), &model(), &pairs, &watched, None).unwrap();
    let run = config(24, 1).start(&model(), &pairs, &watched).unwrap();
    let outcome = run.finish().unwrap();
    let live = run.reward_model().unwrap();
    assert!(same(&trained, &live));
    let of = |model: &RewardModel| model.training.clone().unwrap();
    assert_eq!((of(&trained).best, of(&trained).steps), (of(&live).best, outcome.steps));
    for metric in
        ["loss", "accuracy", "margin", "lm_loss", "eval_loss", "eval_accuracy", "grad_norm"]
    {
        let series = outcome.history.series(metric);
        assert!(series.len() >= 8, "{metric} was logged");
        assert_eq!(series, of(&trained).history.series(metric), "{metric}");
    }
    assert!(
        outcome.history.last("tokens_per_s").unwrap() > 0.0,
        "its rate is logged like any run's"
    );
    assert!(matches!(outcome.recipe, Recipe::Reward(_)) && run.name().starts_with("reward-"));
    // Another start finds it.
    let again = config(24, 1).start(&model(), &pairs, &watched).unwrap();
    assert_eq!((again.phase(), again.note()), (Phase::Finished, "had finished before".to_string()));
}

#[test]
fn it_can_be_paused_stopped_and_resumed_by_its_name_to_the_same_bits() {
    let (pairs, watched) = data();
    let whole = RewardModel::train(&config(60, 2), &model(), &pairs, &watched, None).unwrap();
    let run = config(60, 2).start(&model(), &pairs, &watched).unwrap();
    run.wait_for_step(3);
    run.pause();
    assert!(run.status().unwrap().to_string().contains("paused"));
    assert!(run.plot().svg().unwrap().contains("Accuracy"), "it has curves of its own");
    run.resume();
    run.wait_for_step(7);
    run.stop();
    let stopped = run.finish().unwrap();
    assert!(stopped.steps < 60 && run.phase() == Phase::Stopped);
    let resumed = Run::resume(run.name()).unwrap();
    assert_eq!(resumed.note(), format!("resumes from step {}", stopped.steps));
    resumed.finish().unwrap();
    assert!(same(&whole, &resumed.reward_model().unwrap()));
}

#[test]
fn a_fork_starts_from_its_weights_moments_and_head() {
    let (pairs, watched) = data();
    let run = config(20, 3).start(&model(), &pairs, &watched).unwrap();
    run.finish().unwrap();
    let longer = run.fork(|branch| branch.train.max_steps = 30).unwrap();
    longer.finish().unwrap();
    let slower = run
        .fork(|branch| (branch.train.max_steps, branch.train.learning_rate) = (30, 1e-6))
        .unwrap();
    slower.finish().unwrap();
    let head = |run: &Run| run.reward_model().unwrap().head().to_vec();
    assert!(longer.step() == 30 && head(&longer) != head(&slower));
    // Ten steps at this rate move no weight by more than 1e-5: what is there was taken over.
    let largest = head(&slower).iter().fold(0f32, |m, w| m.max(w.abs()));
    assert!(largest > 1e-3, "{largest}");
    assert!(overlay(&[longer, slower]).svg().unwrap().contains("accuracy"));
}

#[test]
fn what_a_reward_run_does_not_have_is_refused_by_name() {
    let (pairs, watched) = data();
    let run = config(6, 4).start(&model(), &pairs, &watched).unwrap();
    assert!(error(run.set_beta(0.2)).what().contains("a reward model has no beta"));
    run.wait_for_step(1);
    assert!(error(run.fork(|branch| branch.beta = 0.3)).what().contains("neither beta nor loss"));
    run.finish().unwrap();
    assert!(run.beta().is_none());
    let tokenizer = tokenizer();
    assert!(error(run.samples(&tokenizer, 1)).fix().contains("reward_model"));
    let sft = Sft { train: config(4, 5).train }.start(&model(), &pairs, &watched).unwrap();
    sft.finish().unwrap();
    assert!(error(sft.reward_model()).what().contains("does not train a reward model"));
    let dropout = Gpt::new(tiny(2, 0.1), 5).unwrap();
    assert!(
        error(config(4, 6).start(&dropout, &pairs, &watched)).what().contains("without dropout")
    );
    let composed = RewardConfig {
        train: TrainConfig {
            compute: hhalign::compute::Compute { composed: true, ..Default::default() },
            ..config(4, 7).train
        },
        ..config(4, 7)
    };
    assert!(error(composed.start(&model(), &pairs, &watched)).got().contains("composed"));
    let dpo = Dpo { train: config(4, 8).train, ..Dpo::default() };
    let reference = model().freeze().unwrap();
    assert!(
        error(dpo.start(&model(), &reference, &pairs, &watched).unwrap().reward_model())
            .got()
            .contains("dpo")
    );
}

/// Equal ids that were cut to another length are read to other limits: another reward model.
#[test]
fn runs_on_equal_ids_of_two_lengths_are_two_runs() {
    let (pairs, watched) = data();
    let mut longer = pairs.clone();
    longer.max_length /= 2;
    let (one, other) = (config(4, 11), config(4, 11));
    let one = one.start(&model(), &pairs, &watched).unwrap();
    let other = other.start(&model(), &longer, &watched).unwrap();
    assert_ne!(one.name(), other.name());
    one.finish().unwrap();
    other.finish().unwrap();
    let limits = |run: &Run| run.reward_model().unwrap().limits();
    assert_ne!(limits(&one), limits(&other));
    // By its name alone it has its own limits, although the ids are stored once.
    assert_eq!(limits(&Run::resume(other.name()).unwrap()), limits(&other));
}

/// What a fork has not evaluated yet is not its own.
#[test]
fn a_fork_has_no_best_step_before_its_first_evaluation() {
    let (pairs, watched) = data();
    let run = config(9, 12).start(&model(), &pairs, &watched).unwrap();
    run.finish().unwrap();
    let fork = run.fork(|branch| branch.train.learning_rate = 1e-4).unwrap();
    fork.finish().unwrap();
    assert!(error(fork.reward_model()).what().contains("no held-out loss"));
}

/// A longer log is housekeeping: the run that was trained is found.
#[test]
fn a_longer_log_does_not_train_again_what_was_trained() {
    let (pairs, watched) = data();
    let run = config(10, 9).start(&model(), &pairs, &watched).unwrap();
    run.finish().unwrap();
    let mut chatty = config(10, 9);
    (chatty.train.log_every, chatty.train.progress, chatty.train.checkpoint_every) = (1, false, 2);
    let again = chatty.start(&model(), &pairs, &watched).unwrap();
    assert_eq!(again.name(), run.name());
    let every = config(10, 9).train.log_every;
    let log = if every == 1 {
        String::new()
    } else {
        format!("; its log has a record every {every} steps")
    };
    assert_eq!(again.note(), format!("had finished before{log}"));
    let mut other = config(10, 9);
    other.train.eval_every = 2;
    assert_ne!(
        other.start(&model(), &pairs, &watched).unwrap().name(),
        run.name(),
        "it decides the best step"
    );
}
