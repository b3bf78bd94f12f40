//! Runs in threads of their own: started, paused, stopped, resumed, deleted, and two at once.

use std::time::{Duration, Instant};

use hhalign::base::error::ErrorKind;
use hhalign::live::{Pausable, Phase, Run};
use hhalign::train::{Dpo, Sft, TrainConfig};

use super::{data, dpo, error, folder, from_disk, held, model, sft, until};
use crate::common::bits;

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
    let held = held(&run);
    assert!(held <= at + 1, "{held} steps after a pause at {at}");
    std::thread::sleep(Duration::from_millis(300));
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
    assert_eq!(by_name.note(), format!("resumes from step {}", stopped.steps));
    until("a step more", || by_name.step() > stopped.steps);
    by_name.stop();
    let stopped = by_name.finish().unwrap();
    let again = start();
    assert_eq!(again.name(), run.name());
    assert_eq!(again.note(), format!("resumes from step {}", stopped.steps));
    let ended = again.finish().unwrap();
    assert!(bits(&whole) == bits(&again.model().unwrap()));
    assert_eq!(
        (outcome.best, outcome.steps, outcome.tokens),
        (ended.best, ended.steps, ended.tokens)
    );
    assert_eq!(outcome.history.series("eval_loss"), ended.history.series("eval_loss"));
    let seconds = ended.history.series("seconds");
    assert!(
        seconds.windows(2).all(|pair| pair[0].1 <= pair[1].1),
        "the time of all parts counts: {seconds:?}"
    );

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
    assert!(again.note().starts_with("resumes from step 10"), "{}", again.note());
    again.finish().unwrap();
    assert!(bits(&whole) == bits(&again.model().unwrap()));
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
    assert!(
        again.note().contains("resumes from step 15") && again.note().contains("damaged"),
        "{}",
        again.note()
    );
    again.finish().unwrap();
    assert!(whole == bits(&again.model().unwrap()));
    drop(again);
    // A description that cannot be read is written anew, and nothing of the old run is mistaken for
    // the new one's.
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
    for name in ["", ".", "..", "shared", "no-such-run", outside.as_str(), beside.to_str().unwrap()]
    {
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
    let paused = run.finish().map(drop);
    assert_eq!(crate::common::error(paused.clone()).kind(), ErrorKind::NotReady);
    error(paused, &["the run is paused", "run.resume()"]);
    run.wait(60.0);
    assert_eq!(run.wait_for_step(4000), run.step());
    run.stop();
    run.pause();
    // Told to stop and started again at once: it stops, and goes on.
    let again = start();
    assert!(again.note().starts_with("resumes from step"), "{}", again.note());
    error(run.set_lr(1e-4), &["only an active run"]);
    again.stop();
    assert!(again.finish().unwrap().steps < 5000);
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
    error(
        dpo(0, 9).start(&model(), &model(), &pairs, &held_out).map(drop),
        &["max_steps must be at least 1"],
    );
}

#[test]
fn two_runs_at_once_share_the_cores_fairly() {
    let (pairs, held_out) = data();
    let runs: Vec<Run> =
        (0..2).map(|i| sft(100_000, 20 + i).start(&model(), &pairs, &held_out).unwrap()).collect();
    until("both have begun", || runs.iter().all(|run| run.step() > 20));
    let from: Vec<usize> = runs.iter().map(Run::step).collect();
    let taken = || runs.iter().zip(&from).map(|(run, from)| run.step() - from);
    // On a busy machine they take few steps in a second, and too few say nothing.
    std::thread::sleep(Duration::from_secs(2));
    until("two hundred steps", || taken().sum::<usize>() > 200);
    let steps: Vec<f64> = taken().map(|n| n as f64).collect();
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
    error(
        dpo(9, 31).sweep(&[0.1, 0.1], &model(), &reference, &pairs, &held_out).map(drop),
        &["different values"],
    );
}
