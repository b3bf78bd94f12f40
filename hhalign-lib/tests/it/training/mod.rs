//! What a run must hold: who moves and who does not, resuming, accumulation, stopping, and clear
//! refusals.

mod learning;
mod resuming;

use std::collections::BTreeMap;

use hhalign::data::batch::TokenizedPairs;
use hhalign::model::Gpt;
use hhalign::train::{Dpo, History, Outcome, Sft, TrainConfig};

use crate::common::{bits, tensor_bits, texts, tiny, tokenized};

fn model(dropout: f64) -> Gpt {
    Gpt::new(tiny(2, dropout), 5).unwrap()
}

/// Training and held-out ids.
fn data() -> (TokenizedPairs, TokenizedPairs) {
    (tokenized(&texts(1, 40)), tokenized(&texts(2, 12)))
}

fn sft(train: TrainConfig) -> Sft {
    Sft { train }
}

fn dpo(train: TrainConfig) -> Dpo {
    Dpo { train, ..Dpo::default() }
}

/// The records without what a clock decides.
fn records(history: &History) -> Vec<(usize, BTreeMap<String, u64>)> {
    let timeless = |m: &BTreeMap<String, f64>| {
        m.iter()
            .filter(|(name, _)| {
                !["tokens_per_s", "seconds", "peak_memory_mb"].contains(&name.as_str())
            })
            .map(|(n, v)| (n.clone(), v.to_bits()))
            .collect()
    };
    history.records.iter().map(|r| (r.step, timeless(&r.metrics))).collect()
}

/// Asserts that two runs are the same to the last bit.
fn assert_same_run(one: (&Outcome, &Gpt), other: (&Outcome, &Gpt)) {
    assert!(bits(one.1) == bits(other.1), "the final weights differ");
    assert_eq!(
        (one.0.best, one.0.steps, one.0.tokens),
        (other.0.best, other.0.steps, other.0.tokens)
    );
    assert_eq!(one.0.stopped_early, other.0.stopped_early);
    let best = |run: &Outcome| {
        run.best_parameters.iter().map(|(n, t)| (n.clone(), tensor_bits(t))).collect::<Vec<_>>()
    };
    assert!(best(one.0) == best(other.0), "the best weights differ");
    let (one, other) = (records(&one.0.history), records(&other.0.history));
    assert_eq!(one.len(), other.len());
    for (one, other) in one.iter().zip(&other) {
        assert_eq!(one, other, "a record differs");
    }
}
