//! What is changed in a run under way, and forks of it.

use hhalign::data::batch::TokenizedPairs;
use hhalign::infer::score::reference_logps;
use hhalign::live::{Pausable, Run, overlay};
use hhalign::loss::PreferenceLoss;
use hhalign::model::Gpt;
use hhalign::train::{Dpo, evaluate_preferences};

use super::{data, dpo, error, folder, from_disk, held, model, until};
use crate::common::{bits, tiny};

#[test]
fn changes_on_the_way_are_written_down_and_survive_a_resume() {
    let (pairs, held_out) = data();
    let reference = model().freeze().unwrap();
    let start = || dpo(300, 5).start(&model(), &reference, &pairs, &held_out).unwrap();
    let run = start();
    until("a few steps", || run.step() >= 4);
    run.pause();
    run.set_beta(0.4).unwrap();
    run.set_lr(1e-5).unwrap();
    error(run.set_beta(-1.0), &["beta must be positive", "-1"]);
    error(run.set_lr(0.0), &["learning_rate must be positive"]);
    run.resume();
    until("the change", || run.history().marks.len() == 2);
    let marks = run.history().marks;
    assert_eq!(
        (marks[0].text.as_str(), marks[1].text.as_str()),
        ("beta 0.4", "learning rate 0.00001")
    );
    assert!(run.plot().svg().unwrap().contains("beta 0.4"));
    run.stop();
    run.finish().unwrap();
    let again = start();
    again.finish().unwrap();
    assert_eq!(again.history().marks, marks);
    let rate = again
        .history()
        .series("learning_rate")
        .into_iter()
        .filter(|p| p.0 > marks[1].step as f64 + 1.0);
    assert!(rate.map(|p| p.1).fold(0.0, f64::max) <= 1e-5);
    error(again.set_beta(0.2), &["only an active run can be changed", "finished"]);
}

#[test]
fn a_beta_set_on_the_way_holds_for_the_loss_its_evaluation_and_the_best_step() {
    // All pairs in every step, and weights that stay where they are: what changes is beta alone.
    let (pairs, held_out) = data();
    let (policy, reference) = (model(), Gpt::new(tiny(2, 0.0), 6).unwrap().freeze().unwrap());
    let mut recipe = Dpo { self_test: false, beta: 0.1, ..dpo(60, 44) };
    (recipe.train.learning_rate, recipe.train.batch_size) = (1e-30, pairs.len());
    let run = recipe.start(&policy, &reference, &pairs, &held_out).unwrap();
    until("a few steps", || run.step() >= 4);
    run.pause();
    run.set_beta(2.0).unwrap();
    run.resume();
    let outcome = run.finish().unwrap();
    let changed = outcome.history.marks[0].step as f64;
    let check = |metric: &str, of: &TokenizedPairs| {
        let scores = reference_logps(&reference, of, None).unwrap();
        let logps = evaluate_preferences(&policy, &scores, of).unwrap();
        let [before, after] =
            [0.1, 2.0].map(|beta| PreferenceLoss::Sigmoid.mean(&logps, beta).unwrap());
        let series = outcome.history.series(metric);
        assert!(series[0].0 <= changed);
        for &(step, value) in &series {
            let wanted = if step <= changed { before } else { after };
            assert!(
                (value - wanted).abs() < 1e-4,
                "{metric} at {step}: {value} instead of {wanted}"
            );
        }
        let first =
            series.iter().find(|point| point.0 > changed).expect("a value under the new beta");
        (after - before, first.0)
    };
    check("loss", &pairs);
    let (rise, first) = check("eval_loss", &held_out);
    assert!(rise > 0.01, "the lower loss under the old beta must not stay the best: {rise}");
    assert_eq!(outcome.best.step as f64, first);
}

#[test]
fn a_change_at_an_evaluation_survives_a_kill_to_the_bit() {
    let (pairs, held_out) = data();
    let reference = model().freeze().unwrap();
    // Evaluated at every step, with patience: what is forgotten or done twice shows in the best
    // moment and in the end.
    let mut recipe = dpo(40, 40);
    (recipe.train.eval_every, recipe.train.patience, recipe.train.checkpoint_every) =
        (1, Some(3), 1000);
    let run = recipe.start(&model(), &reference, &pairs, &held_out).unwrap();
    run.pause();
    run.set_beta(3.0).unwrap();
    run.set_lr(0.05).unwrap();
    run.resume();
    until("the change", || run.history().marks.len() == 2);
    // A kill right after the change would leave this checkpoint.
    let step = run.history().marks[0].step;
    let whole = run.finish().unwrap();
    let folder = folder().join(run.name());
    let kept: Vec<_> = std::fs::read_dir(&folder).unwrap().flatten().map(|e| e.path()).collect();
    let after = kept.iter().filter(|p| p.to_string_lossy().contains("checkpoint-"));
    let after: Vec<_> =
        after.filter(|p| !p.ends_with(format!("checkpoint-{step:08}.safetensors"))).collect();
    assert_eq!(after.len() + 1, 2, "{kept:?}");
    let bits_of_whole = bits(&run.model().unwrap());
    let name = run.name();
    drop(run);
    after.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let again = from_disk(|| Run::resume(&name).unwrap());
    let ended = again.finish().unwrap();
    assert!(bits_of_whole == bits(&again.model().unwrap()));
    assert_eq!((whole.best, whole.steps), (ended.best, ended.steps));
    assert_eq!(again.beta(), Some(3.0));
    assert_eq!(
        [whole.beta(), ended.beta()],
        [Some(3.0); 2],
        "an outcome knows the beta that it ended with"
    );
    assert_eq!((ended.recipe.train().learning_rate, recipe.beta), (0.05, 0.1));
    // Whoever starts the cell again is told that the run is not what its name says.
    let note = recipe.start(&model(), &reference, &pairs, &held_out).unwrap().note();
    assert!(note.contains("changed: beta 3"), "{note}");
}

#[test]
fn a_fork_is_found_again_when_its_parent_has_ended() {
    let (pairs, held_out) = data();
    let reference = model().freeze().unwrap();
    let run = dpo(60, 43).start(&model(), &reference, &pairs, &held_out).unwrap();
    until("a few steps", || run.step() >= 5);
    run.pause();
    let fork = |run: &Run| run.fork(|branch| branch.beta = 0.02).unwrap();
    let first = fork(&run);
    run.resume();
    run.finish().unwrap();
    first.finish().unwrap();
    assert_eq!(fork(&run).name(), first.name());
    assert_ne!(run.fork(|branch| branch.beta = 0.03).unwrap().name(), first.name());
    error(
        run.fork(|branch| branch.train.max_steps = 10).map(drop),
        &["would end before it begins"],
    );
}

#[test]
fn a_fork_shares_the_past_and_goes_its_own_way() {
    let (pairs, held_out) = data();
    let reference = model().freeze().unwrap();
    let run = dpo(200, 6).start(&model(), &reference, &pairs, &held_out).unwrap();
    until("a few steps", || run.step() >= 5);
    run.pause();
    let at = held(&run);
    let same = run.fork(|_| {}).unwrap();
    let bolder = run.fork(|branch| branch.beta = 0.02).unwrap();
    let other = run.fork(|branch| branch.loss = PreferenceLoss::Ipo).unwrap();
    error(run.fork(|branch| branch.beta = 0.0).map(drop), &["beta must be positive"]);
    run.resume();
    for fork in [&run, &same, &bolder, &other] {
        fork.finish().unwrap();
    }
    assert!(
        bits(&run.model().unwrap()) == bits(&same.model().unwrap()),
        "a fork without a change is the run itself"
    );
    assert!(bits(&run.model().unwrap()) != bits(&bolder.model().unwrap()));
    assert_eq!(bolder.history().marks[0].text, format!("fork of {}", run.name()));
    assert_eq!(bolder.history().marks[0].step, at);
    let past = |run: &Run| {
        run.history().series("loss").into_iter().filter(|p| p.0 <= at as f64).collect::<Vec<_>>()
    };
    assert_eq!(past(&run), past(&bolder));
    assert!(overlay(&[run, bolder, other]).svg().unwrap().contains("β = 0.02"));
}

#[test]
fn a_fork_of_a_changed_run_has_the_settings_that_it_was_given() {
    let (pairs, held_out) = data();
    let reference = model().freeze().unwrap();
    let run = dpo(60, 45).start(&model(), &reference, &pairs, &held_out).unwrap();
    run.pause();
    run.set_beta(0.4).unwrap();
    run.resume();
    until("the change", || run.history().marks.len() == 1);
    let (same, other) = (run.fork(|_| {}).unwrap(), run.fork(|branch| branch.beta = 1.5).unwrap());
    let betas = [&run, &same, &other].map(|run| run.finish().unwrap().beta().unwrap());
    assert_eq!(betas, [0.4, 0.4, 1.5]);
}
