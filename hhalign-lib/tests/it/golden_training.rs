//! DPO's loss and gradients, and ten optimiser steps of SFT and of DPO, against PyTorch
//! (scripts/golden/make_gpt2.py).

use std::sync::{Mutex, PoisonError};

use candle_core::Tensor;
use hhalign::compute::gradients::{Gradients, clip_scale};
use hhalign::compute::optim::{AdamW, AdamWConfig, cosine_schedule};
use hhalign::data::batch::Batch;
use hhalign::infer::score;
use hhalign::loss::{PairLogps, PairValues, PreferenceLoss, Values};
use hhalign::model::Gpt;
use hhalign::model::ops::Dropout;

use crate::common::{Tensors, distance, max_abs, named_gradients, numbers};
use crate::fixtures::{
    golden_batch, golden_json, golden_model, golden_tensors, gradient_error, number,
};

const BETA: f64 = 0.1;

/// The pairs of the DPO fixtures with the reference's log-probabilities, scored by our own
/// reference model.
struct Pairs {
    chosen: Batch,
    rejected: Batch,
    reference: [Tensor; 2],
    expected: Tensors,
}

impl Pairs {
    fn load() -> Self {
        let expected = golden_tensors("dpo_expected.safetensors");
        let batch = |side: &str| {
            golden_batch(&expected[&format!("{side}_ids")], &expected[&format!("{side}_mask")])
        };
        let (chosen, rejected) = (batch("chosen"), batch("rejected"));
        let reference = golden_model("gpt2_l2_ref").freeze().unwrap();
        let score =
            |batch: &Batch| score::sequence_logps(&reference, batch, &mut Dropout::off()).unwrap();
        Self { reference: [score(&chosen), score(&rejected)], chosen, rejected, expected }
    }

    fn logps(&self, policy: &Gpt) -> PairLogps {
        // The process keeps the graphs of the 16 passes used last: those of other tests must not
        // come between these two.
        static TURN: Mutex<()> = Mutex::new(());
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let score = |b: &Batch| {
            Values::from_tensor(score::sequence_logps(policy, b, &mut Dropout::off()).unwrap())
        };
        PairLogps::new(PairValues {
            policy_chosen: score(&self.chosen),
            policy_rejected: score(&self.rejected),
            ref_chosen: Values::from_tensor(self.reference[0].clone()),
            ref_rejected: Values::from_tensor(self.reference[1].clone()),
            chosen_tokens: self.chosen.layout.lengths().to_vec(),
            rejected_tokens: self.rejected.layout.lengths().to_vec(),
        })
        .unwrap()
    }

    fn losses(&self, policy: &Gpt) -> Tensor {
        PreferenceLoss::Sigmoid.losses(&self.logps(policy), BETA).unwrap()
    }
}

#[test]
fn dpo_log_probabilities_losses_and_gradients_equal_pytorchs() {
    let pairs = Pairs::load();
    let policy = golden_model("gpt2_l2");
    let logps = pairs.logps(&policy);
    for (name, ours) in [
        ("chosen_policy_logps", logps.policy_chosen()),
        ("rejected_policy_logps", logps.policy_rejected()),
        ("chosen_ref_logps", logps.ref_chosen()),
        ("rejected_ref_logps", logps.ref_rejected()),
    ] {
        let error = distance(&ours.to_vec().unwrap(), &numbers(&pairs.expected[name]));
        println!("{name} differ by {error:.1e}");
        assert!(error < 1e-4, "{name}: {error}");
    }
    let losses = pairs.losses(&policy);
    let error = distance(&numbers(&losses), &numbers(&pairs.expected["losses"]));
    let loss = losses.mean_all().unwrap();
    let mean_error = (number(&loss) - number(&pairs.expected["loss"])).abs();
    let gradients = named_gradients(&policy, loss.backward().unwrap());
    let (gradient, worst) = gradient_error(&gradients, &pairs.expected);
    let norm = Gradients::from_tensors(&policy.config, &gradients).unwrap().norm().unwrap();
    let norm_error = (norm / number(&pairs.expected["grad_norm"]) - 1.0).abs();
    println!(
        "losses {error:.1e}, mean {mean_error:.1e}, gradients {gradient:.1e} ({worst}), norm {norm_error:.1e}"
    );
    assert!(error < 1e-5 && mean_error < 1e-5, "losses {error}, mean {mean_error}");
    assert!(gradient < 1e-4, "gradient of {worst}: {gradient}");
    assert!(norm_error < 1e-5, "norm {norm_error}");
}

/// Ten steps as the training loop takes them, against the losses, norms and final weights of `run`.
fn follow(run: &str, rate: impl Fn(usize) -> f64, loss: impl Fn(&Gpt) -> Tensor) {
    let wanted = &golden_json("trajectories.json")[run];
    let column = |key: &str| -> Vec<f64> { serde_json::from_value(wanted[key].clone()).unwrap() };
    let (rates, losses, norms) = (column("lrs"), column("losses"), column("grad_norms"));
    let model = golden_model("gpt2_l2");
    let mut optimizer = AdamW::new(AdamWConfig::default(), &model.config);
    let (mut ours, mut our_norms, mut our_rates) = (vec![], vec![], vec![]);
    for step in 0..losses.len() {
        let value = loss(&model);
        ours.push(number(&value));
        let gradients = named_gradients(&model, value.backward().unwrap());
        let gradients = Gradients::from_tensors(&model.config, &gradients).unwrap();
        let norm = gradients.norm().unwrap();
        our_norms.push(norm);
        our_rates.push(rate(step));
        optimizer.step(&model, &gradients, clip_scale(norm, 1.0), our_rates[step]).unwrap();
    }
    assert_eq!(optimizer.steps(), losses.len());
    ours.push(number(&loss(&model)));
    let losses: Vec<f64> =
        losses.into_iter().chain([wanted["final_loss"].as_f64().unwrap()]).collect();
    let relative = |a: &[f64], b: &[f64]| {
        a.iter().zip(b).map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f64::max)
    };
    let (rate_error, loss_error) = (distance(&our_rates, &rates), distance(&ours, &losses));
    let norm_error = relative(&our_norms, &norms);
    println!("{run}: rates {rate_error:.1e}, losses {loss_error:.1e}, norms {norm_error:.1e}");
    assert!(rate_error < 1e-12, "{run}: learning rates {rate_error}");
    assert!(loss_error < 2e-5, "{run}: losses {loss_error}");
    assert!(norm_error < 2e-5, "{run}: norms {norm_error}");

    let prefix = format!("{run}.");
    let finals = golden_tensors("trajectories.safetensors");
    let finals: Vec<_> =
        finals.iter().filter_map(|(n, t)| n.strip_prefix(&prefix).map(|n| (n, t))).collect();
    assert_eq!(finals.len(), 3);
    for (name, weights) in finals {
        let weights = numbers(weights);
        let error =
            distance(&numbers(&model.named_parameters()[name]), &weights) / max_abs(&weights);
        println!("{run}: final {name} differ by {error:.1e} of their largest");
        assert!(error < 2e-5, "{run}: {name}: {error}");
    }
}

#[test]
fn ten_steps_of_sft_follow_pytorch() {
    let expected = golden_tensors("gpt2_l2_expected.safetensors");
    let batch = golden_batch(&expected["input_ids"], &expected["completion_mask"]);
    let loss = |model: &Gpt| {
        let logps = score::token_logps(model, &batch, &mut Dropout::off()).unwrap();
        (logps.sum_all().unwrap() * (-1.0 / batch.n_reply_tokens() as f64)).unwrap()
    };
    follow("sft", |step| cosine_schedule(step, 3, 10, 1e-3, 0.1), loss);
}

#[test]
fn ten_steps_of_dpo_follow_pytorch() {
    let pairs = Pairs::load();
    // A floor at the peak makes the schedule constant, and no warm-up is needed.
    let rate = |step| cosine_schedule(step, 0, 10, 1e-3, 1.0);
    follow("dpo", rate, |model| pairs.losses(model).mean_all().unwrap());
}

#[test]
fn clipping_scales_the_norm_to_the_one_asked_for() {
    let config = golden_model("gpt2_l2").config;
    let mut gradients = Gradients::zeros(&config);
    let values = gradients.values_mut();
    values.wte[1] = 3.0;
    values.blocks[0].attproj.bias.as_mut().unwrap()[0] = -4.0;
    assert_eq!(gradients.norm().unwrap(), 5.0);
    assert_eq!(clip_scale(5.0, 10.0), 1.0, "below the limit nothing changes");
    assert!((clip_scale(5.0, 1.0) - 0.2).abs() < 1e-6);
}

#[test]
fn weight_decay_spares_biases_and_layer_norms() {
    let model = golden_model("gpt2_l2");
    let before: Tensors =
        model.named_parameters().iter().map(|(n, t)| (n.clone(), t.copy().unwrap())).collect();
    let mut optimizer = AdamW::new(AdamWConfig::default(), &model.config);
    optimizer.step(&model, &Gradients::zeros(&model.config), 1.0, 0.5).unwrap();
    for (name, old) in before {
        // With gradients of zero, only the decay 1 - 0.5 · 0.1 is left.
        let factor = if old.rank() >= 2 { 0.95 } else { 1.0 };
        let wanted: Vec<f64> = numbers(&old).iter().map(|v| v * factor).collect();
        assert!(distance(&numbers(&model.named_parameters()[&name]), &wanted) < 1e-6, "{name}");
    }
}
