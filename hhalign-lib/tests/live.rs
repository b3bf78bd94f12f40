//! Runs in threads of their own: what may be done to them changes no number that it should not.

mod common;

use std::time::{Duration, Instant};

use common::{bits, short, texts, tiny, tokenized};
use hhalign::batch::TokenizedPairs;
use hhalign::live::{self, Pausable, Phase, Run, overlay};
use hhalign::loss::PreferenceLoss;
use hhalign::model::Gpt;
use hhalign::score::reference_logps;
use hhalign::train::{Dpo, Sft, TrainConfig, evaluate_preferences};

/// One folder for all tests of this file; their seeds keep their runs apart.
fn folder() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("hhalign-live-{}", std::process::id()));
    live::set_runs_folder(&folder);
    folder
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
    Dpo { train: TrainConfig { seed, eval_every: 3, checkpoint_every: 5, ..short(steps) }, ..Dpo::default() }
}

fn model() -> Gpt {
    Gpt::new(tiny(2, 0.0), 5).unwrap()
}

/// The message of an error holds all of these words.
fn error<T>(result: hhalign::error::Result<T>, words: &[&str]) {
    let text = common::error(result).to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(60), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
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

#[test]
fn a_run_in_a_thread_ends_with_the_bits_of_fit() {
    let (pairs, held_out) = data();
    let mut fitted = model();
    let outcome = sft(12, 1).fit(&mut fitted, &pairs, &held_out).unwrap();
    let begin = model();
    let run = sft(12, 1).start(&begin, &pairs, &held_out).unwrap();
    let live = run.finish().unwrap();
    assert!(bits(&fitted) == bits(&run.model().unwrap()));
    assert_eq!((outcome.best, outcome.steps, outcome.tokens), (live.best, live.steps, live.tokens));
    assert!(bits(&begin) == bits(&model()), "the caller's model is trained on a copy");

    let reference = model().freeze().unwrap();
    let mut fitted = model();
    dpo(12, 1).fit(&mut fitted, &reference, &pairs, &held_out).unwrap();
    let run = dpo(12, 1).start(&model(), &reference, &pairs, &held_out).unwrap();
    run.finish().unwrap();
    assert!(bits(&fitted) == bits(&run.model().unwrap()));
}

#[test]
fn pausing_holds_within_a_step_and_changes_nothing() {
    let (pairs, held_out) = data();
    let mut whole = model();
    sft(400, 2).fit(&mut whole, &pairs, &held_out).unwrap();
    let begin = Instant::now();
    let run = sft(400, 2).start(&model(), &pairs, &held_out).unwrap();
    until("the third step", || run.step() >= 3);
    run.pause();
    assert_eq!(run.phase(), Phase::Paused);
    // The step under way may end; none begins.
    let at = run.step();
    std::thread::sleep(Duration::from_millis(300));
    let held = run.step();
    assert!(held <= at + 1, "{held} steps after a pause at {at}");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(run.step(), held);
    // Everything can be read meanwhile.
    let (first, second) = (run.model().unwrap(), run.model().unwrap());
    assert!(bits(&first) == bits(&second));
    assert!(run.status().unwrap().to_string().contains("paused"));
    run.resume();
    let outcome = run.finish().unwrap();
    assert!(bits(&whole) == bits(&run.model().unwrap()));
    assert!(outcome.seconds < begin.elapsed().as_secs_f64() - 0.5, "a pause is no time of the run");
}

#[test]
fn a_stopped_run_goes_on_where_it_was_and_ends_as_the_whole_one() {
    let (pairs, held_out) = data();
    let reference = model().freeze().unwrap();
    let mut whole = model();
    let outcome = dpo(60, 3).fit(&mut whole, &reference, &pairs, &held_out).unwrap();
    let start = || dpo(60, 3).start(&model(), &reference, &pairs, &held_out).unwrap();
    let run = start();
    until("a few steps", || run.step() >= 4);
    run.stop();
    let stopped = run.finish().unwrap();
    assert!(stopped.steps < 60 && run.phase() == Phase::Stopped);
    // By its name alone, as a fresh process would.
    let by_name = Run::resume(run.name()).unwrap();
    assert_eq!(by_name.note(), format!("goes on from step {}", stopped.steps));
    until("a step more", || by_name.step() > stopped.steps);
    by_name.stop();
    let stopped = by_name.finish().unwrap();
    let again = start();
    assert_eq!(again.name(), run.name());
    assert_eq!(again.note(), format!("goes on from step {}", stopped.steps));
    let ended = again.finish().unwrap();
    assert!(bits(&whole) == bits(&again.model().unwrap()));
    assert_eq!((outcome.best, outcome.steps, outcome.tokens), (ended.best, ended.steps, ended.tokens));
    assert_eq!(outcome.history.series("eval_loss"), ended.history.series("eval_loss"));
    let seconds = ended.history.series("seconds");
    assert!(seconds.windows(2).all(|pair| pair[0].1 <= pair[1].1), "the time of all parts counts: {seconds:?}");

    // Started once more it is there at once, and the same handle.
    let third = start();
    assert_eq!((third.phase(), third.note()), (Phase::Finished, "had finished before".to_string()));
    let by_name = Run::resume(run.name()).unwrap();
    assert!(bits(&by_name.model().unwrap()) == bits(&whole));
    let list = Run::list().unwrap().to_string();
    assert!(list.contains(&run.name()) && list.contains("finished"), "{list}");
    assert!(Run::resume("no-such-run").err().unwrap().got().contains(&run.name()));
    Run::delete(&run.name()).unwrap();
    assert!(Run::resume(run.name()).is_err());
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    let (pairs, held_out) = data();
    let mut whole = model();
    sft(20, 4).fit(&mut whole, &pairs, &held_out).unwrap();
    let with = |stop_at| Sft { train: TrainConfig { stop_at, ..sft(20, 4).train } };
    let run = with(Some(13)).start(&model(), &pairs, &held_out).unwrap();
    run.finish().unwrap();
    let last = folder().join(run.name()).join("checkpoint-00000013.safetensors");
    let bytes = std::fs::read(&last).unwrap();
    std::fs::write(&last, &bytes[..bytes.len() / 2]).unwrap();
    let kept = std::fs::read_dir(last.parent().unwrap()).unwrap().flatten();
    let kept = kept.filter(|e| e.file_name().to_string_lossy().starts_with("checkpoint-")).count();
    assert_eq!(kept, 2);
    let again = with(None).start(&model(), &pairs, &held_out).unwrap();
    assert!(again.note().starts_with("goes on from step 10"), "{}", again.note());
    again.finish().unwrap();
    assert!(bits(&whole) == bits(&again.model().unwrap()));
}

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
    assert_eq!((marks[0].text.as_str(), marks[1].text.as_str()), ("beta 0.4", "learning rate 0.00001"));
    assert!(run.plot().svg().unwrap().contains("beta 0.4"));
    run.stop();
    run.finish().unwrap();
    let again = start();
    again.finish().unwrap();
    assert_eq!(again.history().marks, marks);
    let rate = again.history().series("learning_rate").into_iter().filter(|p| p.0 > marks[1].step as f64 + 1.0);
    assert!(rate.map(|p| p.1).fold(0.0, f64::max) <= 1e-5);
    error(again.set_beta(0.2), &["only a run that goes on can be changed", "finished"]);
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
        let [before, after] = [0.1, 2.0].map(|beta| PreferenceLoss::Sigmoid.mean(&logps, beta).unwrap());
        let series = outcome.history.series(metric);
        assert!(series[0].0 <= changed);
        for &(step, value) in &series {
            let wanted = if step <= changed { before } else { after };
            assert!((value - wanted).abs() < 1e-4, "{metric} at {step}: {value} instead of {wanted}");
        }
        let first = series.iter().find(|point| point.0 > changed).expect("a value under the new beta");
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
    // Evaluated at every step, with patience: what is forgotten or done twice shows in the best moment and in the end.
    let mut recipe = dpo(40, 40);
    (recipe.train.eval_every, recipe.train.patience, recipe.train.checkpoint_every) = (1, Some(3), 1000);
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
    let after: Vec<_> = after.filter(|p| !p.ends_with(format!("checkpoint-{step:08}.safetensors"))).collect();
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
    assert_eq!([whole.beta(), ended.beta()], [Some(3.0); 2], "an outcome knows the beta that it ended with");
    assert_eq!((ended.recipe.train().learning_rate, recipe.beta), (0.05, 0.1));
    // Whoever starts the cell again is told that the run is not what its name says.
    let note = recipe.start(&model(), &reference, &pairs, &held_out).unwrap().note();
    assert!(note.contains("on its way: beta 3"), "{note}");
}

#[test]
fn a_finished_run_whose_end_is_damaged_is_finished_again() {
    let (pairs, held_out) = data();
    let start = || sft(20, 41).start(&model(), &pairs, &held_out).unwrap();
    let run = start();
    run.finish().unwrap();
    let (name, whole) = (run.name(), bits(&run.model().unwrap()));
    drop(run);
    let last = folder().join(&name).join("checkpoint-00000020.safetensors");
    std::fs::write(&last, b"half a file").unwrap();
    let again = from_disk(|| Run::resume(&name).unwrap());
    assert!(again.note().contains("goes on from step 15") && again.note().contains("damaged"), "{}", again.note());
    again.finish().unwrap();
    assert!(whole == bits(&again.model().unwrap()));
    drop(again);
    // A description that cannot be read is written anew, and nothing of the old run is mistaken for the new one's.
    std::fs::write(folder().join(&name).join("run.json"), b"{").unwrap();
    assert!(Run::list().unwrap().to_string().contains("damaged"));
    let anew = from_disk(start);
    assert_eq!(anew.note(), "");
    anew.finish().unwrap();
    drop(anew);
    let by_name = from_disk(|| Run::resume(&name).unwrap());
    assert!(whole == bits(&by_name.model().unwrap()));
}

#[test]
fn only_runs_can_be_deleted() {
    let root = folder();
    std::fs::create_dir_all(root.join("shared")).unwrap();
    let beside = root.with_extension("beside");
    std::fs::create_dir_all(&beside).unwrap();
    let outside = format!("../{}", beside.file_name().unwrap().to_str().unwrap());
    for name in ["", ".", "..", "shared", "no-such-run", outside.as_str(), beside.to_str().unwrap()] {
        assert!(Run::delete(name).is_err(), "{name}");
    }
    assert!(root.join("shared").exists() && beside.exists());
    std::fs::remove_dir_all(&beside).unwrap();
}

#[test]
fn a_paused_or_stopping_run_does_not_hang_the_cell() {
    let (pairs, held_out) = data();
    let start = || sft(5000, 42).start(&model(), &pairs, &held_out).unwrap();
    let run = start();
    until("a step", || run.step() > 0);
    run.pause();
    error(run.finish().map(drop), &["the run is paused", "run.resume()"]);
    run.wait(60.0);
    assert_eq!(run.wait_for_step(4000), run.step());
    run.stop();
    run.pause();
    // Told to stop and started again at once: it stops, and goes on.
    let again = start();
    assert!(again.note().starts_with("goes on from step"), "{}", again.note());
    error(run.set_lr(1e-4), &["only a run that goes on"]);
    again.stop();
    assert!(again.finish().unwrap().steps < 5000);
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
    error(run.fork(|branch| branch.train.max_steps = 10).map(drop), &["would end before it begins"]);
}

#[test]
fn a_fork_shares_the_past_and_goes_its_own_way() {
    let (pairs, held_out) = data();
    let reference = model().freeze().unwrap();
    let run = dpo(200, 6).start(&model(), &reference, &pairs, &held_out).unwrap();
    until("a few steps", || run.step() >= 5);
    run.pause();
    std::thread::sleep(Duration::from_millis(100));
    let at = run.step();
    let same = run.fork(|_| {}).unwrap();
    let bolder = run.fork(|branch| branch.beta = 0.02).unwrap();
    let other = run.fork(|branch| branch.loss = PreferenceLoss::Ipo).unwrap();
    error(run.fork(|branch| branch.beta = 0.0).map(drop), &["beta must be positive"]);
    run.resume();
    for fork in [&run, &same, &bolder, &other] {
        fork.finish().unwrap();
    }
    assert!(bits(&run.model().unwrap()) == bits(&same.model().unwrap()), "a fork without a change is the run itself");
    assert!(bits(&run.model().unwrap()) != bits(&bolder.model().unwrap()));
    assert_eq!(bolder.history().marks[0].text, format!("fork of {}", run.name()));
    assert_eq!(bolder.history().marks[0].step, at);
    let past = |run: &Run| run.history().series("loss").into_iter().filter(|p| p.0 <= at as f64).collect::<Vec<_>>();
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

#[test]
fn an_error_or_a_panic_is_a_state_to_be_read() {
    let (pairs, held_out) = data();
    let mut wild = sft(50, 7);
    (wild.train.learning_rate, wild.train.max_grad_norm) = (1e30, 1e30);
    let run = wild.start(&model(), &pairs, &held_out).unwrap();
    error(run.finish().map(drop), &["not finite"]);
    assert_eq!(run.phase(), Phase::Failed);
    assert!(run.status().unwrap().to_string().contains("not finite"));
    assert!(run.model().is_ok() && !run.history().records.is_empty());

    // Ids outside the vocabulary are found out in a pass only.
    let mut broken = pairs.clone();
    broken.pairs[3].chosen[0] = 4_000_000;
    let run = sft(50, 8).start(&model(), &broken, &held_out).unwrap();
    assert!(run.finish().is_err());
    error(dpo(0, 9).start(&model(), &model(), &pairs, &held_out).map(drop), &["max_steps must be at least 1"]);
}

#[test]
fn two_runs_at_once_share_the_cores_fairly() {
    let (pairs, held_out) = data();
    let runs: Vec<Run> = (0..2).map(|i| sft(100_000, 20 + i).start(&model(), &pairs, &held_out).unwrap()).collect();
    until("both have begun", || runs.iter().all(|run| run.step() > 20));
    let from: Vec<usize> = runs.iter().map(Run::step).collect();
    std::thread::sleep(Duration::from_secs(2));
    let steps: Vec<f64> = runs.iter().zip(from).map(|(run, from)| (run.step() - from) as f64).collect();
    runs.iter().for_each(Run::stop);
    assert!(steps[0] / steps[1] < 1.6 && steps[1] / steps[0] < 1.6, "{steps:?}");
}

#[test]
fn a_sweep_trains_one_policy_for_each_beta() {
    let (pairs, held_out) = data();
    let reference = model().freeze().unwrap();
    let sweep = dpo(9, 30).sweep(&[0.05, 0.5], &model(), &reference, &pairs, &held_out).unwrap();
    sweep.wait(120.0);
    let alone = dpo(9, 30);
    let alone = Dpo { beta: 0.5, ..alone };
    let mut policy = model();
    alone.fit(&mut policy, &reference, &pairs, &held_out).unwrap();
    assert!(
        bits(&policy) == bits(&sweep.at(0.5).unwrap().model().unwrap()),
        "a run of a sweep is a run like any other"
    );
    let kl = sweep.at(0.05).unwrap().history().series("eval_kl");
    assert!(kl[0].1.abs() < 1e-6, "policy and reference are equal at step 0: {kl:?}");
    assert!(kl.last().unwrap().1 > 0.0);
    assert!(sweep.table().unwrap().to_string().contains("0.500"));
    assert!(sweep.plot().svg().unwrap().contains("KL of a reply"));
    error(sweep.at(0.3).map(drop), &["no such beta", "0.3"]);
    error(dpo(9, 31).sweep(&[0.1, 0.1], &model(), &reference, &pairs, &held_out).map(drop), &["different values"]);
}
