//! Packs of odd sizes, and what the composed model and automatic differentiation make of them.

use std::collections::BTreeMap;

use candle_core::Tensor;
use hhalign::compute::cpu::TokenStats;
use hhalign::compute::gradients::Gradients;
use hhalign::data::batch::Batch;
use hhalign::data::packed::Packed;
use hhalign::infer::score;
use hhalign::model::ops::Dropout;
use hhalign::model::{Gpt, GptConfig};

use super::{max_abs, named_gradients, numbers};

pub type Sequences = Vec<(Vec<u32>, Vec<Vec<u32>>)>;

pub fn model(config: GptConfig) -> Gpt {
    let model = Gpt::new(config, 3).unwrap();
    // Layer norms and biases away from their start, so that a wrong use of them shows.
    let moved = model.named_parameters().into_iter().map(|(name, tensor)| {
        let n = tensor.elem_count();
        // Another noise for each name, so that no parameter can stand in for another of its shape.
        let seed = name.bytes().fold(0, |sum, byte| (sum * 31 + byte as usize) % 97);
        let noise: Vec<f32> =
            (0..n).map(|i| ((i * 37 + seed) % 97) as f32 / 970.0 - 0.05).collect();
        let noise = Tensor::from_vec(noise, tensor.dims(), tensor.device()).unwrap();
        (name, ((tensor * 3.0).unwrap() + noise).unwrap())
    });
    Gpt::from_parameters(model.config.clone(), moved.collect(), true).unwrap()
}

pub fn config(n_layer: usize, n_head: usize, n_embd: usize, vocab_size: usize) -> GptConfig {
    GptConfig {
        vocab_size,
        block_size: 160,
        n_layer,
        n_head,
        n_embd,
        dropout: 0.0,
        layer_norm_epsilon: 1e-5,
    }
}

pub fn ids(n: usize, seed: usize, vocab: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * 31 + seed * 17 + i * i) % vocab) as u32).collect()
}

/// Prompts with one or several replies, of odd lengths: a prompt and a reply of one token among
/// them.
pub fn sequences(vocab: usize) -> Sequences {
    let id = |n, seed| ids(n, seed, vocab);
    vec![
        (id(1, 1), vec![id(1, 2)]),
        (id(7, 3), vec![id(5, 4), id(9, 5)]),
        (id(1, 6), vec![id(1, 7), id(33, 8), id(2, 9)]),
        (id(70, 10), vec![id(66, 11), id(81, 12)]),
        (id(130, 13), vec![id(17, 14)]),
    ]
}

pub fn packed(sequences: &Sequences, share: bool) -> Packed {
    let mut packed = Packed::default();
    for (prompt, replies) in sequences {
        let replies: Vec<&[u32]> = replies.iter().map(Vec::as_slice).collect();
        replies
            .chunks(if share { replies.len() } else { 1 })
            .for_each(|r| packed.push(prompt, r).unwrap());
    }
    packed
}

/// An upstream gradient of each log-probability: any numbers serve.
pub fn dlogps(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 13) % 29) as f32 / 29.0 - 0.4).collect()
}

pub struct Oracle {
    pub logps: Vec<f64>,
    pub stats: TokenStats,
    pub gradients: BTreeMap<String, Tensor>,
}

pub fn oracle(model: &Gpt, sequences: &Sequences) -> Oracle {
    let flat: Vec<(&[u32], &[u32])> = sequences
        .iter()
        .flat_map(|(p, replies)| replies.iter().map(move |r| (p.as_slice(), r.as_slice())))
        .collect();
    let batch = Batch::new(&flat, 0).unwrap();
    let logits = score::reply_logits(model, &batch, &mut Dropout::off()).unwrap();
    let logps = score::logps_of_targets(&logits, &batch.targets).unwrap();
    let n = batch.n_reply_tokens();
    let loss =
        (&logps * Tensor::new(dlogps(n), logps.device()).unwrap()).unwrap().sum_all().unwrap();
    Oracle {
        logps: numbers(&logps),
        stats: score::token_stats(&logits, &batch.targets).unwrap(),
        gradients: named_gradients(model, loss.backward().unwrap()),
    }
}

/// `n` replies of 150 tokens: more targets than the logits that exist at once.
pub fn long(n: usize, vocab: usize) -> Sequences {
    (0..n).map(|i| (ids(2, i, vocab), vec![ids(150, i + 1, vocab)])).collect()
}

/// Whole replies, each of which has an end; those of every second prompt are predicted as well, as
/// far as the first.
pub fn whole(sequences: &Sequences, share: bool) -> Packed {
    let mut packed = Packed::default();
    for (i, (prompt, replies)) in sequences.iter().enumerate() {
        let replies: Vec<&[u32]> = replies.iter().map(Vec::as_slice).collect();
        for replies in replies.chunks(if share { replies.len() } else { 1 }) {
            packed.push_whole(prompt, replies, i % 2).unwrap();
        }
    }
    packed
}

pub fn super_short() -> Packed {
    let mut packed = Packed::default();
    packed.push(&[1], &[&[2], &[3]]).unwrap();
    packed
}

/// The largest difference of each gradient, relative to the largest number of its tensor.
pub fn worst(ours: &Gradients, exact: &BTreeMap<String, Tensor>) -> (f64, String) {
    let mut worst = (0.0, String::new());
    for (name, ours) in ours.to_tensors().unwrap() {
        let (ours, exact) = (numbers(&ours), numbers(&exact[&name]));
        let error = super::distance(&ours, &exact) / max_abs(&exact).max(1e-12);
        if error > worst.0 || error.is_nan() {
            worst = (error, name);
        }
    }
    worst
}
