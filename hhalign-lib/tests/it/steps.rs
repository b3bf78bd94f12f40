//! What changes from one step to the next: the learning rate, the pairs, what dropout leaves out;
//! and what RPO adds to the first one.

use std::f64::consts::PI;

use candle_core::{DType, Device, Tensor};
use hhalign::base::rng::stream;
use hhalign::compute::Compute;
use hhalign::data::batch::{Side, TokenizedPairs};
use hhalign::infer::score::score_replies;
use hhalign::model::Gpt;
use hhalign::model::ops::Dropout;
use hhalign::train::reward::RewardModel;
use hhalign::train::{Dpo, History, RewardConfig, Sft, TrainConfig};

use crate::common::{numbers, short, texts, tiny, tokenized};

fn model(dropout: f64) -> Gpt {
    Gpt::new(tiny(2, dropout), 5).unwrap()
}

fn values(history: &History, metric: &str) -> Vec<f64> {
    history.series(metric).into_iter().map(|(_, value)| value).collect()
}

/// A run on one pair, whose weights stay where they are to the bit: its steps differ in what is
/// drawn, and in nothing else.
fn at_rest() -> (TokenizedPairs, TrainConfig) {
    (tokenized(&texts(1, 1)), TrainConfig { learning_rate: 1e-30, ..short(6) })
}

fn all_equal(losses: &[f64]) -> bool {
    losses.iter().all(|loss| *loss == losses[0])
}

fn all_distinct(losses: &[f64]) -> bool {
    losses.iter().enumerate().all(|(i, loss)| !losses[..i].contains(loss))
}

#[test]
fn every_step_has_the_rate_that_the_schedule_gives_it() {
    let pairs = tokenized(&texts(1, 8));
    let train =
        TrainConfig { learning_rate: 1e-3, warmup_steps: 3, min_lr_ratio: 0.25, ..short(10) };
    let run = Sft { train }.fit(&mut model(0.0), &pairs, &pairs).unwrap();
    let rates = values(&run.history, "learning_rate");
    assert_eq!(rates.len(), 10);
    for (step, rate) in rates.into_iter().enumerate() {
        let wanted = match step {
            0..3 => 1e-3 * (step + 1) as f64 / 3.0,
            _ => 1e-3 * (0.25 + 0.75 * 0.5 * (1.0 + (PI * (step - 3) as f64 / 7.0).cos())),
        };
        assert!((rate - wanted).abs() < 1e-12, "step {step}: {rate} instead of {wanted}");
    }
}

#[test]
fn every_epoch_goes_through_the_pairs_in_an_order_of_its_own() {
    let pairs = tokenized(&texts(1, 40));
    let train = TrainConfig { seed: 7, ..short(15) };
    let run = Sft { train }.fit(&mut model(0.0), &pairs, &pairs).unwrap();
    let total = values(&run.history, "num_tokens");
    let of_step = |step: usize| total[step] - if step == 0 { 0.0 } else { total[step - 1] };
    let tokens: Vec<f64> = (0..15).map(of_step).collect();
    let batches = (0..3).flat_map(|epoch| pairs.epoch(8, 7, epoch));
    let wanted: Vec<f64> =
        batches.map(|batch| pairs.n_tokens(&batch, &[Side::Chosen]) as f64).collect();
    assert_eq!(tokens, wanted);
    assert!(
        tokens[..5] != tokens[5..10] && tokens[5..10] != tokens[10..],
        "the epochs are alike: {tokens:?}"
    );
}

#[test]
fn dropout_leaves_out_something_else_at_every_step() {
    let (pair, train) = at_rest();
    let losses = |dropout: f64| {
        let run = Sft { train: train.clone() }.fit(&mut model(dropout), &pair, &pair).unwrap();
        values(&run.history, "loss")
    };
    let (without, with) = (losses(0.0), losses(0.3));
    assert!(without.len() == 6 && all_equal(&without), "{without:?}");
    assert!(with.len() == 6 && all_distinct(&with), "{with:?}");
}

#[test]
fn token_dropout_leaves_out_other_tokens_at_every_step() {
    let (pair, train) = at_rest();
    let losses = |token_dropout: f64| {
        let config = RewardConfig {
            train: train.clone(),
            lm_weight: 0.1,
            token_dropout,
            ..RewardConfig::default()
        };
        let trained = RewardModel::train(&config, &model(0.0), &pair, &pair, None).unwrap();
        values(&trained.training.unwrap().history, "lm_loss")
    };
    let (without, with) = (losses(0.0), losses(0.3));
    assert!(without.len() == 6 && all_equal(&without), "{without:?}");
    assert!(with.len() == 6 && all_distinct(&with), "{with:?}");
}

#[test]
fn dropout_keeps_the_mean() {
    let (n, p) = (20_000, 0.25);
    let ones = Tensor::ones(n, DType::F32, &Device::Cpu).unwrap();
    let kept = numbers(&Dropout::new(p, stream(1, "a test", &[])).apply(&ones).unwrap());
    assert!(kept.iter().all(|x| *x == 0.0 || (x - 1.0 / (1.0 - p)).abs() < 1e-6));
    let zeros = kept.iter().filter(|x| **x == 0.0).count() as f64 / n as f64;
    // Four standard deviations of a share.
    assert!((zeros - p).abs() < 4.0 * (p * (1.0 - p) / n as f64).sqrt(), "{zeros}");
}

#[test]
fn rpo_adds_the_chosen_replies_loss_per_token_to_the_first_loss() {
    let pairs = tokenized(&texts(1, 8));
    let reference = model(0.0);
    let dpo = Dpo { train: short(1), rpo_alpha: 0.5, ..Dpo::default() };
    let run = dpo.fit(&mut reference.fork().unwrap(), &reference, &pairs, &pairs).unwrap();
    let chosen =
        score_replies(&reference, &pairs, &[Side::Chosen], &Compute::default()).unwrap().remove(0);
    let per_token = chosen
        .iter()
        .zip(&pairs.pairs)
        .map(|(logp, pair)| -f64::from(*logp) / pair.chosen.len() as f64);
    let wanted = 2f64.ln() + 0.5 * per_token.sum::<f64>() / 8.0;
    let loss = values(&run.history, "loss")[0];
    assert!((loss - wanted).abs() < 1e-5, "{loss} instead of {wanted}");
}
