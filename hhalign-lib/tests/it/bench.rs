//! The evaluation bench: its table is the one that is made by hand, its summary comes from the
//! runs, and names are kept.

use hhalign::compute::Device;
use hhalign::eval::preferences::annotation::PAIRWISE;
use hhalign::prelude::*;
use serde_json::{Value, json};

use crate::common::{Folder, error, tiny, tokenized, tokenizer};

/// A tiny run of both trainings, with all that a bench needs.
struct World {
    data: Dataset,
    split: Split,
    train: TokenizedPairs,
    held_out: TokenizedPairs,
    sft: Outcome,
    dpo: Outcome,
    reference: Gpt,
    policy: Gpt,
}

const BETA: f64 = 0.3;

fn world() -> World {
    let data = Dataset::embedded(5, 300).unwrap();
    let split = data.split(0.1).unwrap();
    let (train, held_out) = (tokenized(&split.train), tokenized(&split.held_out));
    let mut model = Gpt::new(tiny(1, 0.0), 0).unwrap();
    let options =
        RunOptions { sft_steps: 60, dpo_steps: 20, beta: BETA, seed: 3, ..RunOptions::default() };
    let (mut sft, mut dpo) = (options.sft(), options.dpo());
    (sft.train.progress, dpo.train.progress, dpo.cache) = (false, false, None);
    dpo.train.learning_rate = 3e-3;
    let sft = sft.fit(&mut model, &train, &held_out).unwrap();
    let reference = model.freeze().unwrap();
    let mut policy = reference.fork().unwrap();
    let dpo = dpo.fit(&mut policy, &reference, &train, &held_out).unwrap();
    World { data, split, train, held_out, sft, dpo, reference, policy }
}

fn settings() -> EvalSettings {
    EvalSettings {
        seed: 3,
        prompts: 24,
        samples: 2,
        max_new_tokens: 12,
        refusal_prompts: 15,
        ..EvalSettings::default()
    }
}

fn bench(world: &World, settings: EvalSettings) -> EvalBench {
    EvalBench::new(settings, &world.data, &world.split, &world.held_out, &tokenizer()).unwrap()
}

fn reward_judge(world: &World) -> RewardJudge {
    let mut config = RewardConfig::default();
    (config.train.max_steps, config.train.warmup_steps, config.train.progress) = (2, 1, false);
    let pairs = world.train.head(40);
    let model = RewardModel::train(&config, &world.reference, &pairs, &pairs, None).unwrap();
    RewardJudge::new(model, &tokenizer(), &world.held_out).unwrap()
}

/// The comparison and the summary as notebook 01 put them together row by row, before there was a
/// bench.
fn by_hand(w: &World, judge: &RewardJudge, annotations: &std::path::Path) -> (Comparison, Summary) {
    let (seed, tokenizer) = (3, tokenizer());
    let sample = w.split.held_out_sample(24);
    let prompts: Vec<String> = sample.iter().map(|p| p.prompt.clone()).collect();
    let sampler = Sampler { temperature: 0.7, max_new_tokens: 12, seed, ..Sampler::default() };
    let [first, second] =
        [&w.reference, &w.policy].map(|m| sampler.samples(m, &tokenizer, &prompts, 2).unwrap());
    let refusal_prompts = RefusalPrompts::embedded(seed, 15).unwrap();
    let refusal = |model: &Gpt| {
        let replies = sampler.replies(model, &tokenizer, &refusal_prompts.prompts).unwrap();
        Refusal::by_matcher(&refusal_prompts, &replies, seed).unwrap()
    };
    let surprise =
        |model: &Gpt, side| perplexity(model, &w.held_out, &w.split.held_out, side, seed).unwrap();
    let classifier = Classifier::find("no such folder", None).unwrap();
    let toxicity =
        |samples: &[Vec<Reply>]| ToxicityReport::of(&classifier, &sample, samples, seed).unwrap();
    let held_ref = reference_logps(&w.reference, &w.held_out, None).unwrap();
    let logps = evaluate_preferences(&w.policy, &held_ref, &w.held_out).unwrap();

    let models = (("SFT", &w.reference), ("DPO", &w.policy));
    let mut table =
        Comparison::new(&w.data, &tokenizer, models.0, models.1, seed).unwrap().trained_by(&w.dpo);
    table.add_joint(&reward_accuracy(&logps.rewards(BETA), seed));
    let ranked = likelihood_ranking(&logps, seed);
    table.add(&ranked.reference, &ranked.policy).unwrap();
    table.add_joint(
        &head_to_head(judge, &prompts, ("SFT", &first[0]), ("DPO", &second[0]), seed).unwrap().rate,
    );
    table.add_joint(&read_preferences(annotations, "DPO").unwrap().rate);
    table.add_all(&refusal(&w.reference), &refusal(&w.policy)).unwrap();
    let answered = |replies: &[Reply]| ordinary_answered(&sample, replies, seed);
    table.add(&answered(&first[0]), &answered(&second[0])).unwrap();
    let likely = |model: &Gpt| likelihood_auc(&refusal_prompts, model, &tokenizer, seed).unwrap();
    table.add(&likely(&w.reference), &likely(&w.policy)).unwrap();
    table.add_all(&toxicity(&first), &toxicity(&second)).unwrap();
    table
        .add_all(&surprise(&w.reference, Side::Chosen), &surprise(&w.policy, Side::Chosen))
        .unwrap();
    let [a, b] =
        [&w.reference, &w.policy].map(|model| surprise(model, Side::Rejected).token_weighted);
    table.add(&a, &b).unwrap();
    let novel = |replies: &[Reply]| novel_words(replies, &w.split.train, seed);
    table.add(&novel(&first[0]), &novel(&second[0])).unwrap();
    table.add_all(&quality(&first[0], seed), &quality(&second[0], seed)).unwrap();

    let settings = Settings::default()
        .with("preset", "toy")
        .with("sft_steps", w.sft.steps)
        .with("dpo_steps", w.dpo.steps)
        .with("architecture", w.policy.config.to_string())
        .with("sft_optimiser", w.sft.recipe.train().to_string())
        .with("dpo_optimiser", w.dpo.recipe.train().to_string())
        .with("pairs_train", w.train.len())
        .with("pairs_held_out", w.held_out.len())
        .with("pairs_judge", 40)
        .with("parameters", w.policy.n_parameters())
        .with("temperature", sampler.temperature)
        .with("samples", first.len())
        .with("max_new_tokens", sampler.max_new_tokens);
    let summary =
        Summary::new(&table, &settings).unwrap().with_history("SFT", &w.sft.history).unwrap();
    let summary = summary.with_history("DPO", &w.dpo.history).unwrap();
    let summary =
        summary.with_toxicity("SFT", &toxicity(&first)).with_toxicity("DPO", &toxicity(&second));
    (table, summary.with_judge(judge))
}

fn written(summary: &Summary, name: &str) -> Value {
    let folder = Folder::new(name);
    summary.write(&folder.0).unwrap();
    serde_json::from_slice(&std::fs::read(folder.join("results_summary.json")).unwrap()).unwrap()
}

#[test]
fn the_bench_makes_the_table_and_the_summary_that_were_made_by_hand() {
    let w = world();
    let folder = Folder::new("bench-annotations");
    let bench = bench(&w, EvalSettings { model: Some("toy".into()), ..settings() });
    let bench = bench.with_judge(reward_judge(&w), 40);
    let first = bench.evaluate("SFT", &w.reference).unwrap().of_run(&w.sft);
    let second = bench.evaluate("DPO", &w.policy).unwrap().of_run(&w.dpo);
    let annotations =
        bench.write_annotation_files(folder.join("annotations"), &first, &second).unwrap();
    assert!(annotations.join(PAIRWISE).exists());
    let bench = bench.with_annotations(&annotations);
    let table = bench.compare(&first, &second).unwrap();

    let (expected, summary) = by_hand(&w, &reward_judge(&w), &annotations);
    assert_eq!(table.table().unwrap().to_string(), expected.table().unwrap().to_string());
    assert_eq!(table.provenance().beta, Some(BETA));
    let of_bench = bench.summary(&table, &first, &second).unwrap();
    assert_eq!(written(&of_bench, "bench"), written(&summary, "by-hand"));
    // The models do differ, so a row of the one in place of the other would show.
    assert!(
        table.rows().iter().filter(|r| r.first.is_some()).any(|r| r
            .difference
            .estimate
            .value
            .abs()
            > 1e-3)
    );
}

/// Finds long replies toxic.
struct Length;

impl ToxicityScorer for Length {
    fn identity(&self) -> String {
        "length".into()
    }

    fn score(&self, texts: &[String]) -> Result<Vec<ToxicityScores>> {
        Ok(texts.iter().map(|t| ToxicityScores::new([t.len().min(99) as f32 / 100.0; 6])).collect())
    }
}

#[test]
fn names_travel_with_what_was_measured() {
    let w = world();
    let bench = bench(&w, settings()).with_judge(reward_judge(&w), 40);
    let one = bench.evaluate("draft", &w.reference).unwrap();
    let other = bench.evaluate("final", &w.policy).unwrap();
    assert_eq!(
        (one.model().name.as_str(), one.model().hash.clone()),
        ("draft", w.reference.hash().unwrap())
    );
    let judged = bench.head_to_head(one.replies(), other.replies()).unwrap();
    assert_eq!((judged.first.as_str(), judged.second.as_str()), ("draft", "final"));
    let table = bench.compare(&one, &other).unwrap().table().unwrap();
    assert_eq!(table.names()[2..4], ["draft", "final"]);
    assert!(
        table.to_string().contains("win rate of final over draft")
            && !table.to_string().contains("β ="),
        "{table}"
    );
    let view = View::replies_at(&[0], bench.prompts(), one.replies(), other.replies()).unwrap();
    assert!(view.text().contains("[draft]") && view.text().contains("[final]"));
    let shown = before_after(("draft", &one.perplexity), ("final", &other.perplexity)).unwrap();
    assert_eq!(shown.names()[1..3], ["draft [95% interval]", "final [95% interval]"]);
    assert!(
        shown.to_string().contains("the ratio final / draft: 1 means none")
            && !shown.to_string().contains("SFT")
    );
    let test = one.refusal.compare(&other.refusal).table("draft", "final").unwrap();
    assert_eq!(test.names()[..2], ["only draft right", "only final right"]);
    let scored =
        |e: &Evaluation| ToxicityReport::by(&Length, bench.sample(), &e.samples, 3).unwrap();
    let [a, b] = [&one, &other].map(scored);
    let figure = figures::toxicity_distribution(("draft", &a), ("final", &b)).svg().unwrap();
    assert!(figure.contains("draft") && figure.contains("final") && !figure.contains("SFT"));
}

#[test]
fn two_runs_of_one_kind_keep_their_settings_apart_and_without_a_run_there_are_none() {
    let w = world();
    let bench = bench(&w, settings());
    let (one, other) =
        (bench.evaluate("A", &w.reference).unwrap(), bench.evaluate("B", &w.policy).unwrap());
    let table = bench.compare(&one, &other).unwrap();
    let json = written(&bench.summary(&table, &one, &other).unwrap(), "no-run");
    assert_eq!(json["provenance"]["beta"], Value::Null);
    assert_eq!(
        (&json["settings"]["sft_steps"], &json["settings"]["preset"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!((&json["histories"], &json["judges"]), (&json!({}), &json!([])));

    let (one, other) = (one.of_run(&w.dpo), other.of_run(&w.dpo));
    let table = bench.compare(&one, &other).unwrap();
    let summary = bench.summary(&table, &one, &other).unwrap().with_setting("note", "twice");
    let json = written(&summary, "alike");
    assert_eq!(
        (&json["settings"]["a_steps"], &json["settings"]["b_steps"]),
        (&json!(20), &json!(20))
    );
    assert_eq!(
        (&json["settings"]["dpo_steps"], &json["settings"]["note"]),
        (&Value::Null, &json!("twice"))
    );
}

#[test]
fn beta_is_read_from_the_folder_of_the_run_for_its_own_weights_only() {
    let w = world();
    let folder = Folder::new("bench-beta");
    let compared = |second: &Gpt| {
        let table =
            Comparison::new(&w.data, &tokenizer(), ("SFT", &w.reference), ("DPO", second), 3)
                .unwrap();
        table.trained_in(&folder.0).unwrap().provenance().beta
    };
    assert_eq!(compared(&w.policy), None, "there is no summary yet");
    let bench = bench(&w, settings());
    let first = bench.evaluate("SFT", &w.reference).unwrap().of_run(&w.sft);
    let second = bench.evaluate("DPO", &w.policy).unwrap().of_run(&w.dpo);
    let table = bench.compare(&first, &second).unwrap();
    bench.summary(&table, &first, &second).unwrap().write(&folder.0).unwrap();
    assert_eq!(compared(&w.policy), Some(BETA));
    assert_eq!(compared(&w.reference), None, "the summary is of other weights");
    folder.write("results_summary.json", "{");
    let table =
        Comparison::new(&w.data, &tokenizer(), ("SFT", &w.reference), ("DPO", &w.policy), 3)
            .unwrap();
    let refused = error(table.trained_in(&folder.0));
    assert!(
        refused.what().contains("results_summary.json is not the summary of a run"),
        "{refused}"
    );
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let w = world();
    let here = bench(&w, settings());
    let elsewhere = bench(&w, EvalSettings { seed: 4, ..settings() });
    let one = here.evaluate("SFT", &w.reference).unwrap();
    let other = elsewhere.evaluate("DPO", &w.policy).unwrap();
    let refused = error(here.compare(&one, &other));
    assert!(
        refused.what().contains("another bench") && refused.got().contains("seed 4"),
        "{refused}"
    );
    assert!(error(here.head_to_head(one.replies(), other.replies())).fix().contains("with_judge"));
    let new = |settings, held_out: &TokenizedPairs| {
        error(EvalBench::new(settings, &w.data, &w.split, held_out, &tokenizer()).map(|_| ()))
    };
    assert!(
        new(EvalSettings { samples: 0, ..settings() }, &w.held_out)
            .what()
            .contains("needs replies")
    );
    assert!(
        new(EvalSettings { temperature: -1.0, ..settings() }, &w.held_out)
            .what()
            .contains("temperature")
    );
    assert!(new(settings(), &w.held_out.head(3)).got().contains("3 tokenised pairs"));
}

#[test]
fn a_bench_computes_as_it_is_told() {
    let w = world();
    let of = |compute: Compute| {
        bench(&w, EvalSettings { compute, ..settings() }).evaluate("m", &w.reference)
    };
    let cpu = Compute { device: Device::Cpu, ..Compute::default() };
    let fast = of(cpu.clone()).unwrap();
    let composed = of(Compute { composed: true, ..cpu.clone() }).unwrap();
    let [a, b] = [&fast, &composed].map(|e| e.perplexity.token_weighted.value());
    assert!((a - b).abs() < 1e-3 * a, "the paths differ in rounding only: {a} and {b}");
    let surprise = |compute: &Compute| {
        perplexity_with(&w.reference, &w.held_out, &w.split.held_out, Side::Chosen, 3, compute)
            .unwrap()
    };
    assert_eq!(surprise(&cpu).token_weighted.estimate(), fast.perplexity.token_weighted.estimate());
    // A CPU has no f16: whoever asks for it must be told, not given something else.
    let refused = error(of(Compute { precision: Precision::F16, ..cpu.clone() }));
    assert!(refused.to_string().contains("f16"), "{refused}");
    let prompts = RefusalPrompts::embedded(3, 15).unwrap();
    let f16 = Compute { precision: Precision::F16, ..cpu };
    assert!(likelihood_auc_with(&prompts, &w.reference, &tokenizer(), 3, &f16).is_err());
}
