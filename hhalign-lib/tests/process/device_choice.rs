//! With a GPU present and `compute.device = Cpu`, nothing reaches the card.

use hhalign::compute::Compute;
use hhalign::compute::Device;
use hhalign::data::batch::Side;
use hhalign::data::{Dataset, PromptKind};
use hhalign::eval::metrics::perplexity::perplexity_with;
use hhalign::eval::metrics::refusal::{RefusalPrompts, likelihood_auc_with};
use hhalign::infer::kl::reply_kl_with;
use hhalign::infer::sample::Sampler;
use hhalign::infer::score::{reference_logps_with, score_pairs_with, score_replies};
use hhalign::model::Gpt;
use hhalign::train::reward::{RewardConfig, RewardModel};
use hhalign::train::{Dpo, Sft, TrainConfig, evaluate_preferences_with, evaluate_replies_with};

use crate::child;
use crate::common::emulated;
use crate::common::{short, texts, tiny, tokenized, tokenizer};

/// Everything that computes with a model, in the way that `compute` says.
fn everything(compute: &Compute) {
    let (pairs, held_out, tokenizer) =
        (tokenized(&texts(1, 12)), tokenized(&texts(2, 4)), tokenizer());
    let train = TrainConfig { compute: compute.clone(), ..short(2) };
    let mut model = Gpt::new(tiny(1, 0.0), 5).unwrap();
    Sft { train: train.clone() }.fit(&mut model, &pairs, &held_out).unwrap();
    let reference = model.freeze().unwrap();
    let mut policy = reference.fork().unwrap();
    let dpo = Dpo { train: train.clone(), kl_prompts: 2, ..Dpo::default() };
    dpo.fit(&mut policy, &reference, &pairs, &held_out).unwrap();
    let reward = RewardConfig { train, ..RewardConfig::default() };
    let judge = RewardModel::train(&reward, &reference, &pairs, &held_out, None).unwrap();
    judge.score_pairs(&held_out).unwrap();
    score_pairs_with(&policy, &held_out, compute).unwrap();
    score_replies(&policy, &held_out, &[Side::Chosen], compute).unwrap();
    let scores = reference_logps_with(&reference, &held_out, None, compute).unwrap();
    evaluate_preferences_with(&policy, &scores, &held_out, compute).unwrap();
    evaluate_replies_with(&policy, &held_out, compute).unwrap();
    let sampler = Sampler { max_new_tokens: 3, compute: compute.clone(), ..Sampler::default() };
    let prompts: Vec<String> = texts(3, 2).into_iter().map(|p| p.prompt).collect();
    sampler.replies(&policy, &tokenizer, &prompts).unwrap();
    sampler.samples(&policy, &tokenizer, &prompts, 2).unwrap();
    sampler.replies_between(&policy, &reference, 0.5, &tokenizer, &prompts).unwrap();
    let ids: Vec<Vec<u32>> = held_out.pairs.iter().map(|p| p.prompt.clone()).collect();
    let replies: Vec<Vec<u32>> = held_out.pairs.iter().map(|p| p.chosen.clone()).collect();
    reply_kl_with(&policy, &reference, &ids, &replies, compute).unwrap();
    perplexity_with(&policy, &held_out, &texts(2, 4), Side::Chosen, 1, compute).unwrap();
    let refusals = RefusalPrompts::embedded(1, 2).unwrap();
    likelihood_auc_with(&refusals, &policy, &tokenizer, 1, compute).unwrap();
}

#[test]
fn a_cpu_that_was_asked_for_is_used_although_there_is_a_gpu() {
    if emulated(16).is_none() {
        return;
    }
    // The card counts the calls of the whole process, so nothing else may run beside this.
    let test = "device_choice::a_cpu_that_was_asked_for_is_used_although_there_is_a_gpu";
    if !child::is_child(test) {
        return print!("{}", child::run(test, &[("HHALIGN_DEVICE", "emulated")]));
    }
    assert!(
        Dataset::embedded(1, 100)
            .unwrap()
            .pairs
            .iter()
            .any(|p| p.kind == Some(PromptKind::Harmful))
    );
    let card = Device::Auto.gpu().unwrap().expect("the emulated card");
    let before = card.calls();
    everything(&Compute { device: Device::Cpu, ..Compute::default() });
    assert_eq!(card.calls() - before, 0, "calls reached the card");
    // The control: the same work where the card is meant does reach it, so the count can fail.
    let (pairs, compute) = (tokenized(&texts(2, 2)), Compute::default());
    score_pairs_with(&Gpt::new(tiny(1, 0.0), 5).unwrap(), &pairs, &compute).unwrap();
    let scored = card.calls() - before;
    assert!(scored > 10, "{scored} calls");
    println!("asked for the CPU: 0 calls; scoring two pairs on the card: {scored} calls");
}
