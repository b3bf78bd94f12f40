//! Rewards and gradients of the fast path against PyTorch and automatic differentiation.

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};
use hhalign::compute::cpu::{Keep, Purpose, Workspace, with_weights};
use hhalign::compute::gradients::Gradients;
use hhalign::compute::{Compute, Precision};
use hhalign::data::batch::{Batch, Side, TokenizedPairs};
use hhalign::data::packed::Packed;
use hhalign::infer::score;
use hhalign::model::Gpt;
use hhalign::model::ops::Dropout;
use hhalign::train::reward::{RewardModel, bradley_terry};

use super::{LM_WEIGHT, golden_pairs, head, moved};
use crate::common::{distance, max_abs, named_gradients, numbers, texts, tiny, tokenized};
use crate::fixtures::{golden_model, golden_tensors, gradient_error, number};

const BOTH: [Side; 2] = [Side::Chosen, Side::Rejected];

/// Loss, rewards (chosen, rejected, chosen, ...) and all gradients by the fast path, put together
/// from its public parts.
struct Fused {
    loss: f64,
    rewards: Vec<f64>,
    gradients: BTreeMap<String, Tensor>,
    head: Vec<f64>,
}

fn fused(
    model: &Gpt,
    head: &[f32],
    pairs: &TokenizedPairs,
    share: bool,
    keep: Keep,
    precision: Precision,
) -> Fused {
    let mut packed = Packed::default();
    for pair in &pairs.pairs {
        if share {
            packed.push_whole(&pair.prompt, &[&pair.chosen, &pair.rejected], 1).unwrap();
        } else {
            packed.push_whole(&pair.prompt, &[&pair.chosen], 1).unwrap();
            packed.push_whole(&pair.prompt, &[&pair.rejected], 0).unwrap();
        }
    }
    let tokens = packed.n_targets();
    assert_eq!(
        (tokens, packed.n_ends()),
        (pairs.pairs.iter().map(|p| p.chosen.len()).sum(), 2 * pairs.len())
    );
    let slopes = vec![(-LM_WEIGHT / tokens as f64) as f32; tokens];
    let (mut workspace, mut gradients) = (Workspace::default(), Gradients::zeros(&model.config));
    with_weights(model, precision, Purpose::Train, |weights| {
        let logps = workspace.forward_constant_grad(
            weights,
            &packed,
            keep,
            None,
            &slopes,
            &mut gradients,
        )?;
        let ends = workspace.ends(weights, &packed).to_vec();
        let rewards: Vec<f32> =
            ends.chunks(head.len()).map(|h| h.iter().zip(head).map(|(h, w)| h * w).sum()).collect();
        let leaf = Var::from_vec(rewards.clone(), (pairs.len(), 2), &candle_core::Device::Cpu)?;
        let side = |i: usize| leaf.narrow(1, i, 1);
        let loss = bradley_terry(&side(0)?, &side(1)?)?.mean_all()?;
        let slope = numbers(loss.backward()?.get(&leaf).unwrap());
        let dends: Vec<f32> =
            slope.iter().flat_map(|s| head.iter().map(move |w| *s as f32 * w)).collect();
        workspace.backward_ends(weights, &packed, &slopes, &dends, &mut gradients)?;
        let of_head = (0..head.len()).map(|i| {
            let rows = ends.chunks(head.len()).zip(&slope);
            rows.map(|(h, s)| f64::from(h[i]) * s).sum()
        });
        let lm: f64 = -logps.iter().map(|l| f64::from(*l)).sum::<f64>() / tokens as f64;
        Ok(Fused {
            loss: number(&loss) + LM_WEIGHT * lm,
            rewards: rewards.into_iter().map(f64::from).collect(),
            gradients: gradients.to_tensors()?,
            head: of_head.collect(),
        })
    })
    .unwrap()
}

/// The same by the composed model and automatic differentiation.
fn composed(model: &Gpt, head: &[f32], pairs: &TokenizedPairs) -> Fused {
    let head = Var::from_slice(head, (head.len(), 1), &candle_core::Device::Cpu).unwrap();
    let indices: Vec<usize> = (0..pairs.len()).collect();
    let batch = pairs.batch_of(&indices, &BOTH).unwrap();
    let (rows, t) = batch.input_ids.dims2().unwrap();
    let lengths = pairs.pairs.iter().flat_map(|p| BOTH.map(|s| p.prompt.len() + p.reply(s).len()));
    let ends: Vec<u32> = lengths.enumerate().map(|(row, n)| (row * t + n - 1) as u32).collect();
    let hidden = model
        .hidden(&batch.input_ids, &mut Dropout::off())
        .unwrap()
        .reshape((rows * t, ()))
        .unwrap();
    let ends = hidden.index_select(&Tensor::new(ends, hidden.device()).unwrap(), 0).unwrap();
    let rewards = ends.matmul(&head).unwrap().reshape((pairs.len(), 2)).unwrap();
    let side = |i: usize| rewards.narrow(1, i, 1).unwrap();
    let chosen = Batch::new(
        &pairs.pairs.iter().map(|p| (p.prompt.as_slice(), p.chosen.as_slice())).collect::<Vec<_>>(),
        pairs.eos_id(),
    )
    .unwrap();
    let logps =
        score::token_logps(model, &chosen, &mut Dropout::off()).unwrap().mean_all().unwrap();
    let pairs = bradley_terry(&side(0), &side(1)).unwrap().mean_all().unwrap();
    let loss = (pairs - (logps * LM_WEIGHT).unwrap()).unwrap();
    let mut store = loss.backward().unwrap();
    let of_head = numbers(&store.remove(head.as_tensor()).unwrap());
    Fused {
        loss: number(&loss),
        rewards: numbers(&rewards),
        gradients: named_gradients(model, store),
        head: of_head,
    }
}

#[test]
fn rewards_loss_and_every_gradient_equal_pytorchs() {
    let (model, pairs) = (golden_model("gpt2_l2"), golden_pairs());
    let mut expected = golden_tensors("reward_expected.safetensors");
    let head: Vec<f32> = numbers(&expected["head"]).into_iter().map(|w| w as f32).collect();
    let rewards = RewardModel::from_parts(&model, head.clone(), [20, 20])
        .unwrap()
        .score_pairs(&pairs)
        .unwrap();
    for (ours, name) in [(rewards.0, "chosen_rewards"), (rewards.1, "rejected_rewards")] {
        let apart = distance(
            &ours.into_iter().map(f64::from).collect::<Vec<_>>(),
            &numbers(&expected[name]),
        );
        println!("{name}: {apart:.1e}");
        assert!(apart < 1e-5, "{name}: {apart}");
    }
    let of_head = numbers(&expected.remove("grad.score.weight").unwrap());
    let ours = fused(&model, &head, &pairs, true, Keep::Activations, Precision::F32);
    let (slope, name) = gradient_error(&ours.gradients, &expected);
    let (loss, slope_of_head) =
        (ours.loss - number(&expected["loss"]), distance(&ours.head, &of_head));
    println!("loss {loss:.1e}, gradients {slope:.1e} ({name}), of the head {slope_of_head:.1e}");
    assert!(
        loss.abs() < 1e-5 && slope < 1e-4 && slope_of_head < 1e-5,
        "{loss} {slope} {name} {slope_of_head}"
    );
}

#[test]
fn the_fast_path_equals_automatic_differentiation() {
    let pairs = tokenized(&texts(3, 7));
    for config in [tiny(1, 0.0), tiny(3, 0.0)] {
        let model = moved(config);
        let head = head(&model);
        let exact = composed(&model, &head, &pairs);
        for (share, keep) in [
            (true, Keep::Activations),
            (false, Keep::Activations),
            (true, Keep::BlockInputs),
            (false, Keep::BlockInputs),
        ] {
            let ours = fused(&model, &head, &pairs, share, keep, Precision::F32);
            let mut worst = distance(&ours.head, &exact.head) / max_abs(&exact.head);
            for (name, ours) in &ours.gradients {
                let exact = numbers(&exact.gradients[name]);
                worst = worst.max(distance(&numbers(ours), &exact) / max_abs(&exact));
            }
            let (loss, value) =
                ((ours.loss - exact.loss).abs(), distance(&ours.rewards, &exact.rewards));
            println!(
                "share {share} {keep:?}: loss {loss:.1e}, rewards {value:.1e}, gradients {worst:.1e}"
            );
            assert!(
                loss < 2e-5 && value < 2e-5 && worst < 2e-5,
                "{share} {keep:?}: {loss} {value} {worst}"
            );
        }
    }
}

#[test]
fn bf16_stays_near_f32() {
    let (model, pairs) = (moved(tiny(2, 0.0)), tokenized(&texts(3, 7)));
    if let Err(error) = (Compute { precision: Precision::Bf16, ..Compute::default() }).name() {
        return println!("skipped: {error}");
    }
    let run = |precision| {
        fused(&model, &head(&model), &pairs, true, Keep::Activations, precision).rewards
    };
    let (exact, ours) = (run(Precision::F32), run(Precision::Bf16));
    let apart = distance(&ours, &exact) / max_abs(&exact);
    assert!(apart > 1e-6 && apart < 0.03, "{apart}");
}
