//! How a run computes must not decide what it computes: precision, shared prompts, memory, composed
//! or fused. The number of threads is in `tests/process/threads.rs`.

use hhalign::compute::{Compute, Precision};
use hhalign::infer::score::reference_logps_with;
use hhalign::model::Gpt;
use hhalign::train::{Dpo, Outcome, Sft, TrainConfig};

use crate::common::{Folder, bits, short, texts, tiny, tokenized};

const STEPS: usize = 12;

fn config(compute: Compute) -> TrainConfig {
    TrainConfig { compute, micro_batch_size: 2, ..short(STEPS) }
}

fn sft(compute: Compute) -> (Outcome, Gpt) {
    let mut model = Gpt::new(tiny(2, 0.0), 5).unwrap();
    let run = Sft { train: config(compute) }.fit(
        &mut model,
        &tokenized(&texts(1, 40)),
        &tokenized(&texts(2, 12)),
    );
    (run.unwrap(), model)
}

fn dpo(compute: Compute) -> (Outcome, Gpt) {
    let (_, reference) = sft(Compute::default());
    let mut policy = reference.fork().unwrap();
    let dpo = Dpo { train: config(compute), ..Dpo::default() };
    let run =
        dpo.fit(&mut policy, &reference, &tokenized(&texts(1, 40)), &tokenized(&texts(2, 12)));
    (run.unwrap(), policy)
}

/// The largest difference between two runs' curves of one metric.
fn apart(one: &Outcome, other: &Outcome, metric: &str) -> f64 {
    let (one, other) = (one.history.series(metric), other.history.series(metric));
    assert!(
        one.len() == other.len() && one.len() >= STEPS / 2,
        "{metric}: {} and {} points",
        one.len(),
        other.len()
    );
    one.iter().zip(&other).map(|(a, b)| (a.1 - b.1).abs()).fold(0.0, f64::max)
}

#[test]
fn the_fused_run_follows_the_composed_one() {
    let composed = Compute { composed: true, ..Compute::default() };
    for (run, metrics) in [
        (
            sft as fn(Compute) -> (Outcome, Gpt),
            ["loss", "eval_loss", "mean_token_accuracy", "entropy", "grad_norm"],
        ),
        (dpo, ["loss", "eval_loss", "rewards/margins", "logps/chosen", "grad_norm"]),
    ] {
        let (ours, exact) = (run(Compute::default()).0, run(composed.clone()).0);
        for metric in metrics {
            let apart = apart(&ours, &exact, metric);
            println!("{metric}: {apart:.1e}");
            assert!(apart < 1e-4, "{metric}: {apart}");
        }
    }
}

#[test]
fn sharing_prompts_and_computing_activations_again_change_only_rounding() {
    let plain = dpo(Compute { share_prompts: false, ..Compute::default() }).0;
    for compute in
        [Compute::default(), Compute { checkpoint_activations: true, ..Compute::default() }]
    {
        let other = dpo(compute.clone()).0;
        for metric in ["loss", "eval_loss", "rewards/margins", "grad_norm"] {
            assert!(
                apart(&plain, &other, metric) < 1e-3,
                "{compute:?}: {metric} {}",
                apart(&plain, &other, metric)
            );
        }
    }
    let (kept, again) = (
        sft(Compute::default()),
        sft(Compute { checkpoint_activations: true, ..Compute::default() }),
    );
    assert!(bits(&kept.1) == bits(&again.1), "what is computed again is the same to the bit");
}

#[test]
fn a_bf16_run_stays_in_a_band_around_the_f32_run() {
    let bf16 = Compute { precision: Precision::Bf16, ..Compute::default() };
    if let Err(error) = bf16.name() {
        return println!("skipped: {error}");
    }
    let band = [("loss", 0.002), ("eval_loss", 0.002)];
    for run in [sft as fn(Compute) -> (Outcome, Gpt), dpo] {
        let (exact, ours) = (run(Compute::default()).0, run(bf16.clone()).0);
        for (metric, band) in band {
            let apart = apart(&exact, &ours, metric);
            println!("{metric}: {apart:.1e} of {band}");
            assert!(apart > 0.0 && apart < band, "{metric}: {apart}");
        }
    }
}

#[test]
fn a_run_tells_its_time_and_memory() {
    let (run, _) = sft(Compute::default());
    let seconds = run.history.series("seconds");
    assert!(seconds.windows(2).all(|w| w[0].1 <= w[1].1) && seconds.len() == STEPS);
    if cfg!(target_os = "linux") {
        assert!(run.history.series("peak_memory_mb").iter().all(|p| p.1 > 1.0 && p.1 < 1e5));
    }
}

#[test]
fn scores_of_a_reference_that_were_computed_otherwise_are_not_taken_from_the_cache() {
    let (model, pairs) = (Gpt::new(tiny(1, 0.0), 5).unwrap(), tokenized(&texts(1, 4)));
    let folder = Folder::new("computed-otherwise");
    for compute in [Compute::default(), Compute { composed: true, ..Compute::default() }] {
        let score = || reference_logps_with(&model, &pairs, Some(&folder.0), &compute).unwrap();
        assert!(!score().from_cache, "{compute:?}");
        assert!(score().from_cache, "{compute:?}");
    }
}
