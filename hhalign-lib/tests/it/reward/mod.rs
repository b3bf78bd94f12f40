//! The reward model: scores, gradients and a whole training against PyTorch and transformers
//! (scripts/golden/make_gpt2.py), and the fast path against automatic differentiation.

mod mixture;
mod passes;
mod training;

use candle_core::{DType, Tensor};
use hhalign::data::batch::{TokenizedPair, TokenizedPairs};
use hhalign::model::{Gpt, GptConfig};
use hhalign::train::TrainConfig;
use hhalign::train::reward::{RewardConfig, RewardModel};

use crate::common::{Folder, bits, short, texts, tiny, tokenized};
use crate::fixtures::golden_tensors;

const LM_WEIGHT: f64 = 0.3;

/// The pairs of the fixtures, read off ids and masks.
fn golden_pairs() -> TokenizedPairs {
    let all = golden_tensors("dpo_expected.safetensors");
    let rows = |side: &str| {
        let ids =
            all[&format!("{side}_ids")].to_dtype(DType::U32).unwrap().to_vec2::<u32>().unwrap();
        let mask = all[&format!("{side}_mask")].to_vec2::<f32>().unwrap();
        let split = |(ids, mask): (Vec<u32>, Vec<f32>)| {
            let start = mask.iter().position(|m| *m == 1.0).unwrap();
            let n = mask.iter().filter(|m| **m == 1.0).count();
            (ids[..start].to_vec(), ids[start..start + n].to_vec())
        };
        ids.into_iter().zip(mask).map(split).collect::<Vec<_>>()
    };
    let pairs = rows("chosen").into_iter().zip(rows("rejected")).map(
        |((prompt, chosen), (same, rejected))| {
            assert_eq!(prompt, same);
            TokenizedPair { prompt, chosen, rejected }
        },
    );
    TokenizedPairs::from_ids(pairs.collect(), 40, 0)
}

fn head(model: &Gpt) -> Vec<f32> {
    (0..model.config.n_embd).map(|i| ((i * 29) % 31) as f32 / 31.0 - 0.5).collect()
}

/// A model whose parameters are all away from their start.
fn moved(config: GptConfig) -> Gpt {
    let model = Gpt::new(config, 3).unwrap();
    let noise = |(name, tensor): (&String, &Tensor)| {
        let noise = (0..tensor.elem_count())
            .map(|i| ((i * 37 + name.len() * 11) % 97) as f32 / 970.0 - 0.05);
        let noise =
            Tensor::from_vec(noise.collect::<Vec<f32>>(), tensor.dims(), tensor.device()).unwrap();
        (name.clone(), ((tensor * 3.0).unwrap() + noise).unwrap())
    };
    let parameters = model.named_parameters().iter().map(noise).collect();
    Gpt::from_parameters(model.config.clone(), parameters, true).unwrap()
}

fn config(steps: usize) -> RewardConfig {
    let train = TrainConfig { micro_batch_size: 2, checkpoint_every: 3, ..short(steps) };
    RewardConfig { train, lm_weight: 0.1, token_dropout: 0.1, ..RewardConfig::default() }
}

fn trained(config: &RewardConfig, cache: Option<&Folder>) -> RewardModel {
    let (start, pairs, watched) =
        (Gpt::new(tiny(2, 0.0), 5).unwrap(), tokenized(&texts(1, 40)), tokenized(&texts(2, 12)));
    RewardModel::train(config, &start, &pairs, &watched, cache.map(|c| c.0.as_path())).unwrap()
}

fn same(one: &RewardModel, other: &RewardModel) {
    assert!(bits(one.gpt()) == bits(other.gpt()), "other weights");
    assert_eq!(one.head(), other.head());
    let history = |m: &RewardModel| m.training.as_ref().unwrap().history.series("loss");
    assert_eq!(history(one), history(other));
    assert_eq!(one.training.as_ref().unwrap().best, other.training.as_ref().unwrap().best);
}
