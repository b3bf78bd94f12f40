//! Whole runs on a GPU against the same runs on the CPU: training, resuming, scoring, drawing and
//! live runs. An emulated GPU serves; `HHALIGN_DEVICE=cuda` takes a real one.

use hhalign::compute::Device;
use hhalign::compute::{Compute, Precision};
use hhalign::infer::sample::Sampler;
use hhalign::infer::score::score_pairs_with;
use hhalign::live::Pausable;
use hhalign::model::Gpt;
use hhalign::train::reward::{RewardConfig, RewardModel};
use hhalign::train::{Dpo, Outcome, Sft, TrainConfig};

use crate::child;
use crate::common::emulated;
use crate::common::{Folder, bits, max_abs, numbers, short, texts, tiny, tokenized, tokenizer};
use crate::live;

const STEPS: usize = 4;

fn on(device: Device, precision: Precision) -> TrainConfig {
    TrainConfig { compute: Compute { device, precision, ..Compute::default() }, ..short(STEPS) }
}

fn series(run: &Outcome, metric: &str) -> Vec<f64> {
    let points: Vec<f64> = run.history.series(metric).iter().map(|p| p.1).collect();
    assert!(points.len() >= 2, "{metric} was logged");
    points
}

fn apart(one: &Outcome, other: &Outcome, metric: &str) -> f64 {
    crate::common::distance(&series(one, metric), &series(other, metric))
}

#[test]
fn runs_on_a_gpu_follow_those_on_the_cpu() {
    if std::env::var("HHALIGN_DEVICE").is_err() {
        if emulated(16).is_some() {
            let test = "gpu_runs::runs_on_a_gpu_follow_those_on_the_cpu";
            print!("{}", child::run(test, &[("HHALIGN_DEVICE", "emulated")]));
        }
        return;
    }
    println!("on {}", Device::Auto.describe());
    let (pairs, held_out, tokenizer) =
        (tokenized(&texts(1, 24)), tokenized(&texts(2, 6)), tokenizer());
    let sft = |config: TrainConfig| {
        let mut model = Gpt::new(tiny(2, 0.0), 5).unwrap();
        let run = Sft { train: config }.fit(&mut model, &pairs, &held_out).unwrap();
        (run, model)
    };
    let dpo = |config: TrainConfig, reference: &Gpt| {
        let mut policy = reference.fork().unwrap();
        let run = Dpo { train: config, ..Dpo::default() }
            .fit(&mut policy, reference, &pairs, &held_out)
            .unwrap();
        (run, policy)
    };
    let greedy = Sampler { temperature: 0.0, max_new_tokens: 8, ..Sampler::default() };
    let prompts: Vec<String> = texts(3, 5).into_iter().map(|p| p.prompt).collect();

    let (cpu_run, cpu_model) = sft(on(Device::Cpu, Precision::F32));
    let (cpu_dpo, _) = dpo(on(Device::Cpu, Precision::F32), &cpu_model);
    let on_cpu = Sampler {
        compute: Compute { device: Device::Cpu, ..Compute::default() },
        ..greedy.clone()
    };
    let cpu_replies = on_cpu.replies(&cpu_model, &tokenizer, &prompts).unwrap();

    // Training: the same losses, and weights that moved alike.
    let (run, model) = sft(on(Device::Auto, Precision::F32));
    for metric in ["loss", "eval_loss", "grad_norm", "entropy", "mean_token_accuracy"] {
        let difference = apart(&run, &cpu_run, metric);
        assert!(difference < 2e-4, "SFT {metric} is {difference} apart");
    }
    let distance = |a: &Gpt, b: &Gpt| {
        let one = |name: &String| {
            crate::common::distance(
                &numbers(&a.named_parameters()[name]),
                &numbers(&b.named_parameters()[name]),
            )
        };
        a.named_parameters().keys().map(one).fold(0.0, f64::max)
    };
    assert!(distance(&model, &cpu_model) < 2e-4);
    let (dpo_run, _) = dpo(on(Device::Auto, Precision::F32), &cpu_model);
    for metric in ["loss", "rewards/margins", "eval_loss"] {
        let difference = apart(&dpo_run, &cpu_dpo, metric);
        assert!(difference < 2e-4, "DPO {metric} is {difference} apart");
    }
    for precision in [Precision::F16, Precision::Auto] {
        let (run, _) = sft(on(Device::Auto, precision));
        let difference = apart(&run, &cpu_run, "loss");
        assert!(difference > 0.0 && difference < 0.02, "{precision:?}: losses {difference} apart");
    }

    // A run that was interrupted ends as one that was not, bit for bit.
    let folder = Folder::new("gpu-resume");
    let path = folder.join("run.safetensors");
    let half = TrainConfig {
        checkpoint: Some(path.clone()),
        stop_at: Some(STEPS / 2),
        ..on(Device::Auto, Precision::F32)
    };
    let mut resumed = Gpt::new(tiny(2, 0.0), 5).unwrap();
    Sft { train: half }.fit(&mut resumed, &pairs, &held_out).unwrap();
    Sft { train: on(Device::Auto, Precision::F32) }
        .resume(&path, &mut resumed, &pairs, &held_out)
        .unwrap();
    assert!(bits(&resumed) == bits(&model), "resumed and uninterrupted run end alike");

    // Scoring and drawing.
    let score = |device| {
        score_pairs_with(&cpu_model, &held_out, &Compute { device, ..Compute::default() }).unwrap()
    };
    let (gpu, cpu) = (score(Device::Auto), score(Device::Cpu));
    let gap = gpu.chosen.iter().zip(&cpu.chosen).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(gap < 1e-3, "scores {gap} apart");
    assert_eq!(greedy.replies(&cpu_model, &tokenizer, &prompts).unwrap(), cpu_replies);
    let drawn = Sampler { temperature: 1.0, max_new_tokens: 4, ..Sampler::default() };
    let replies = |p: &[String]| drawn.replies(&cpu_model, &tokenizer, p).unwrap();
    assert_eq!(replies(&prompts), replies(&prompts), "the same seed draws the same");
    assert_eq!(replies(&prompts)[..2], replies(&prompts[..2]), "whatever the neighbours are");

    // A reward model: trained alike, resumed bit for bit, and scoring alike.
    let judge = |device, precision, stop_at, cache: Option<&Folder>| {
        let train = TrainConfig { stop_at, ..on(device, precision) };
        let config =
            RewardConfig { train, lm_weight: 0.1, token_dropout: 0.1, ..RewardConfig::default() };
        RewardModel::train(&config, &cpu_model, &pairs, &held_out, cache.map(|c| c.0.as_path()))
            .unwrap()
    };
    let there = judge(Device::Auto, Precision::F32, None, None);
    let here = judge(Device::Cpu, Precision::F32, None, None);
    for metric in ["loss", "lm_loss", "eval_loss", "grad_norm"] {
        let series = |m: &RewardModel| {
            m.training
                .as_ref()
                .unwrap()
                .history
                .series(metric)
                .iter()
                .map(|p| p.1)
                .collect::<Vec<_>>()
        };
        assert!(series(&here).len() >= 2, "{metric} was logged");
        let difference = crate::common::distance(&series(&there), &series(&here));
        assert!(difference < 2e-4, "reward {metric} is {difference} apart");
    }
    assert!(distance(there.gpt(), here.gpt()) < 2e-4);
    let cache = Folder::new("gpu-reward");
    judge(Device::Auto, Precision::F32, Some(STEPS / 2), Some(&cache));
    let resumed = judge(Device::Auto, Precision::F32, None, Some(&cache));
    assert!(
        bits(resumed.gpt()) == bits(there.gpt()) && resumed.head() == there.head(),
        "resumed and uninterrupted"
    );
    let head = (0..cpu_model.config.n_embd).map(|i| ((i * 29) % 31) as f32 / 31.0 - 0.5).collect();
    let mut scorer = RewardModel::from_parts(&cpu_model, head, here.limits()).unwrap();
    let [near, far] = [Device::Auto, Device::Cpu].map(|device| {
        scorer.compute.device = device;
        let (chosen, rejected) = scorer.score_pairs(&held_out).unwrap();
        chosen.into_iter().chain(rejected).map(f64::from).collect::<Vec<_>>()
    });
    assert!(crate::common::distance(&far, &near) < 1e-4 && max_abs(&far) > 0.1, "rewards differ");
    let half = judge(Device::Auto, Precision::F16, None, None).training.unwrap().best.loss;
    assert!((half - here.training.as_ref().unwrap().best.loss).abs() < 0.01, "{half}");

    // A live run: its model is that of the last step, also while the GPU has the newer weights.
    live::folder();
    let first = Gpt::new(tiny(2, 0.0), 5).unwrap();
    let run =
        Sft { train: on(Device::Auto, Precision::F32) }.start(&first, &pairs, &held_out).unwrap();
    run.wait_for_step(1);
    let early = run.model().unwrap();
    assert!(bits(&early) != bits(&first), "the first step is seen");
    run.pause();
    run.resume();
    run.finish().unwrap();
    assert!(bits(&run.model().unwrap()) == bits(&model), "a live run ends as a plain one");
}
