//! How far a policy is from its reference: the KL of replies, and what a run says of it.

use candle_core::{Device, Tensor};
use hhalign::infer::kl::{MAX_REPLY, reply_kl};
use hhalign::infer::sample::Sampler;
use hhalign::model::Gpt;
use hhalign::train::Dpo;

use crate::common::passes::{config, ids};
use crate::common::{BLOCK, numbers, short, texts, tiny, tokenized};

/// Weights large enough that two models say different things.
fn model(seed: u64) -> Gpt {
    let model = Gpt::new(config(2, 2, 16, 50), seed).unwrap();
    for (name, var) in model.named_vars() {
        if name.ends_with("weight") && !name.contains("ln_") {
            var.set(&(var.as_tensor().detach() * 10.0).unwrap()).unwrap();
        }
    }
    model
}

/// log softmax of the logits after each token of a text.
fn log_probabilities(model: &Gpt, text: &[u32]) -> Vec<Vec<f64>> {
    let input = Tensor::new(text, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let logits = numbers(&model.logits(&input).unwrap());
    let rows = logits.chunks_exact(model.config.vocab_size);
    rows.map(|row| {
        let total = row.iter().map(|x| x.exp()).sum::<f64>().ln();
        row.iter().map(|x| x - total).collect()
    })
    .collect()
}

/// Σ over a reply's tokens of Σ p · (log p - log q).
fn by_hand(p: &Gpt, q: &Gpt, prompt: &[u32], reply: &[u32]) -> f64 {
    let text = [prompt, reply].concat();
    let rows = log_probabilities(p, &text).into_iter().zip(log_probabilities(q, &text));
    let tokens = rows.skip(prompt.len() - 1).take(reply.len());
    tokens.flat_map(|(p, q)| p.into_iter().zip(q)).map(|(p, q)| p.exp() * (p - q)).sum()
}

#[test]
fn the_kl_of_a_reply_is_the_sum_over_its_tokens_from_policy_to_reference() {
    let (policy, reference) = (model(1), model(2));
    let prompts: Vec<Vec<u32>> = (1..12).map(|n| ids(n, n, 50)).collect();
    let replies: Vec<Vec<u32>> = (1..12).map(|n| ids(12 - n, 20 + n, 50)).collect();
    let found = reply_kl(&policy, &reference, &prompts, &replies).unwrap();
    assert_eq!(found.len(), 11);
    let (mut all, mut all_other_way) = (0.0, 0.0);
    for ((prompt, reply), kl) in prompts.iter().zip(&replies).zip(found) {
        let wanted = by_hand(&policy, &reference, prompt, reply);
        assert!((kl - wanted).abs() < 1e-4 * wanted, "{kl} instead of {wanted}");
        all += wanted;
        all_other_way += by_hand(&reference, &policy, prompt, reply);
    }
    assert!(
        (all - all_other_way).abs() > 0.01 * all,
        "these models cannot tell the directions apart"
    );
}

#[test]
fn a_run_tells_the_mean_kl_of_its_replies_and_half_of_its_interval() {
    let (pairs, held_out) = (tokenized(&texts(1, 24)), tokenized(&texts(2, 12)));
    let reference = Gpt::new(tiny(2, 0.0), 5).unwrap();
    let mut policy = reference.fork().unwrap();
    let mut dpo = Dpo { train: short(4), kl_prompts: 5, ..Dpo::default() };
    (dpo.train.seed, dpo.train.learning_rate) = (3, 1e-2);
    let history = dpo.fit(&mut policy, &reference, &pairs, &held_out).unwrap().history;
    assert_eq!(history.series("eval_kl")[0], (0.0, 0.0), "before the first step both are one");

    let prompts: Vec<Vec<u32>> =
        held_out.pairs.iter().take(5).map(|pair| pair.prompt.clone()).collect();
    let room = BLOCK - prompts.iter().map(Vec::len).max().unwrap();
    let sampler = Sampler { max_new_tokens: MAX_REPLY.min(room), seed: 3, ..Sampler::default() };
    let replies = sampler.ids(&policy, prompts.clone(), Some(held_out.eos_id())).unwrap();
    let kl = reply_kl(&policy, &reference, &prompts, &replies).unwrap();
    let mean = kl.iter().sum::<f64>() / 5.0;
    let variance = kl.iter().map(|k| (k - mean).powi(2)).sum::<f64>() / 4.0;
    let (last, half) =
        (history.last("eval_kl").unwrap(), history.last("eval_kl_half_width").unwrap());
    assert!(mean > 0.0 && (last - mean).abs() < 1e-9 * mean, "{last} instead of {mean}");
    let wanted = 1.96 * (variance / 5.0).sqrt();
    assert!(wanted > 0.0 && (half - wanted).abs() < 1e-9 * wanted, "{half} instead of {wanted}");
}
