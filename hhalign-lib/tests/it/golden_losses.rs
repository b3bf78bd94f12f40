//! Every preference loss against the definitions in losses.json, by hand at the start of training,
//! and far out.

use candle_core::{DType, Device, Tensor, Var};
use hhalign::loss::{PairLogps, PairValues, PreferenceLoss as Loss, Values};
use serde_json::Value;

use crate::common::{error, numbers};
use crate::fixtures::golden_json;

/// What one loss gives on some points: the losses and the derivatives by the policy's two
/// log-probabilities.
struct Outcome {
    losses: Vec<f64>,
    d_chosen: Vec<f64>,
    d_rejected: Vec<f64>,
}

/// Columns of log-probabilities and lengths.
struct Points {
    logps: [Vec<f64>; 4],
    lengths: [Vec<usize>; 2],
}

impl Points {
    fn new(rows: &[[f64; 4]]) -> Self {
        let column = |i: usize| rows.iter().map(|row| row[i]).collect();
        Self {
            logps: [column(0), column(1), column(2), column(3)],
            lengths: [vec![10; rows.len()], vec![10; rows.len()]],
        }
    }

    fn golden(file: &Value) -> Self {
        let points = file["points"].as_array().unwrap();
        let column = |key: &str| points.iter().map(|p| p[key].as_f64().unwrap()).collect();
        let length = |key: &str| points.iter().map(|p| p[key].as_u64().unwrap() as usize).collect();
        Self {
            logps: [column("pi_w"), column("pi_l"), column("ref_w"), column("ref_l")],
            lengths: [length("Lw"), length("Ll")],
        }
    }

    fn evaluate(&self, loss: Loss, beta: f64, dtype: DType, of_the_mean: bool) -> Outcome {
        let tensor = |v: &[f64]| Tensor::new(v, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        let [chosen, rejected] = [0, 1].map(|i| Var::from_tensor(&tensor(&self.logps[i])).unwrap());
        let logps = PairLogps::new(PairValues {
            policy_chosen: Values::from_tensor(chosen.as_tensor().clone()),
            policy_rejected: Values::from_tensor(rejected.as_tensor().clone()),
            ref_chosen: Values::from_tensor(tensor(&self.logps[2])),
            ref_rejected: Values::from_tensor(tensor(&self.logps[3])),
            chosen_tokens: self.lengths[0].clone(),
            rejected_tokens: self.lengths[1].clone(),
        })
        .unwrap();
        let losses = loss.losses(&logps, beta).unwrap();
        assert_eq!(losses.dtype(), dtype, "{}: the loss keeps the type of its input", loss.name());
        let total = if of_the_mean { losses.mean_all() } else { losses.sum_all() }.unwrap();
        let gradients = total.backward().unwrap();
        let gradient = |var: &Var| match gradients.get(var.as_tensor()) {
            Some(gradient) => numbers(gradient),
            None => vec![0.0; self.logps[0].len()],
        };
        Outcome {
            losses: numbers(&losses),
            d_chosen: gradient(&chosen),
            d_rejected: gradient(&rejected),
        }
    }
}

/// The loss and beta that an entry of losses.json describes.
fn described(name: &str, params: &Value) -> (Loss, f64) {
    let p = |key: &str| params[key].as_f64().unwrap_or_else(|| panic!("{name} has no {key}"));
    let eps = || p("eps");
    let loss = match name {
        "cdpo" => Loss::Cdpo { label_smoothing: eps() },
        "robust" => Loss::Robust { label_smoothing: eps() },
        "exo_pair" => Loss::ExoPair { label_smoothing: eps() },
        "aot" => Loss::Aot { label_smoothing: eps() },
        "aot_unpaired" => Loss::AotUnpaired { label_smoothing: eps() },
        "discopop" => Loss::DiscoPop { tau: p("tau") },
        "alpha_divergence" => Loss::AlphaDivergence { alpha: p("alpha") },
        "simpo" => Loss::SimPo { gamma: p("gamma") },
        "cpo" => Loss::Cpo { alpha: p("alpha") },
        "orpo" => Loss::Orpo { lambda: p("lam") },
        "kto" => Loss::Kto { kl: p("kl") },
        _ => Loss::ALL
            .into_iter()
            .find(|l| l.name() == name)
            .unwrap_or_else(|| panic!("no loss is called {name}")),
    };
    assert_eq!(loss.name(), name);
    // ORPO has no beta of its own.
    (loss, params["beta"].as_f64().unwrap_or(0.1))
}

/// Largest error relative to the value, or to `floor` where the value is smaller; points left out
/// are skipped.
fn relative_error(ours: &[f64], wanted: &Value, floor: f64) -> f64 {
    let wanted = wanted.as_array().unwrap();
    assert_eq!(ours.len(), wanted.len());
    let pairs = ours.iter().zip(wanted).filter_map(|(o, w)| w.as_f64().map(|w| (o, w)));
    pairs
        .map(|(o, w)| {
            let error = (o - w).abs() / w.abs().max(floor);
            if error.is_nan() { f64::INFINITY } else { error }
        })
        .fold(0.0, f64::max)
}

/// Compares every entry's losses and gradients.
fn compare(dtype: DType, tolerance: f64, floor: f64, gradient_floor: f64) {
    let file = golden_json("losses.json");
    let points = Points::golden(&file);
    let mut seen = std::collections::BTreeSet::new();
    let mut worst = [(0.0, String::new()), (0.0, String::new())];
    for entry in file["losses"].as_array().unwrap() {
        let name = entry["name"].as_str().unwrap();
        if name == "kto" && entry["params"]["undesirable"] != 1.0 {
            continue; // unequal weights of the two sides: checked apart, since the library has none
        }
        let (loss, beta) = described(name, &entry["params"]);
        let ours = points.evaluate(loss, beta, dtype, name.starts_with("aot"));
        let gradients = relative_error(&ours.d_chosen, &entry["d_pi_w"], gradient_floor)
            .max(relative_error(&ours.d_rejected, &entry["d_pi_l"], floor));
        let errors = [relative_error(&ours.losses, &entry["loss"], floor), gradients];
        for (error, worst) in errors.iter().zip(&mut worst) {
            if *error > worst.0 {
                *worst = (*error, format!("{name} {}", entry["params"]));
            }
        }
        if let Some(batch) = entry["batch"].as_f64() {
            let mean = ours.losses.iter().sum::<f64>() / ours.losses.len() as f64;
            assert!(
                (mean / batch - 1.0).abs() < tolerance,
                "{name}: batch mean {mean} instead of {batch}"
            );
        }
        seen.insert(name.to_string());
    }
    println!(
        "{dtype:?}: losses {:.1e} ({}), gradients {:.1e} ({})",
        worst[0].0, worst[0].1, worst[1].0, worst[1].1
    );
    assert!(worst[0].0 < tolerance, "loss of {}: {}", worst[0].1, worst[0].0);
    assert!(worst[1].0 < tolerance, "gradient of {}: {}", worst[1].1, worst[1].0);
    let missing: Vec<_> =
        Loss::ALL.into_iter().map(|l| l.name().to_string()).filter(|n| !seen.contains(n)).collect();
    assert!(missing.is_empty(), "no golden values for {missing:?}");
}

#[test]
fn every_loss_and_gradient_equals_its_definition_in_f64() {
    compare(DType::F64, 1e-6, 1e-9, 1e-9);
}

#[test]
fn every_loss_and_gradient_equals_its_definition_in_f32() {
    // The floor: terms of size 1 to 10 cancel to something smaller, and f32 rounds each to about
    // 1e-7 of its size.
    compare(DType::F32, 1e-5, 0.1, 1e-3);
}

#[test]
fn kto_shifts_by_its_kl_estimate() {
    let file = golden_json("losses.json");
    let entry = file["losses"]
        .as_array()
        .unwrap()
        .iter()
        .find(|e| e["name"] == "kto" && e["params"]["kl"] == 1.5)
        .unwrap();
    let weight = entry["params"]["undesirable"].as_f64().unwrap();
    let ours = Points::golden(&file).evaluate(Loss::Kto { kl: 1.5 }, 0.1, DType::F64, false);
    // The fixture weights the undesirable half, and with it that half's whole gradient.
    let scaled: Vec<f64> = ours.d_rejected.iter().map(|g| g * weight).collect();
    assert!(relative_error(&ours.d_chosen, &entry["d_pi_w"], 1e-9) < 1e-6);
    assert!(relative_error(&scaled, &entry["d_pi_l"], 1e-9) < 1e-6);
}

/// The largest f32 logarithm is about 88: here exponents reach 200 on either side.
#[test]
fn every_loss_and_gradient_is_finite_at_two_hundred() {
    let beta = 0.1;
    for size in [2000.0, 200.0 / beta * 1.5] {
        let points = Points::new(&[
            [-100.0, -100.0 - size, -100.0, -100.0],
            [-100.0 - size, -100.0, -100.0, -100.0],
            [-100.0, -100.0 - size, -100.0 - size, -100.0],
            [-100.0 - size, -100.0, -100.0, -100.0 - size],
            [-100.0 - size, -100.0 - size, -100.0, -100.0],
            [-100.0, -100.0, -100.0 - size, -100.0 - size],
        ]);
        for loss in Loss::ALL
            .into_iter()
            .chain([Loss::AlphaDivergence { alpha: 2.0 }, Loss::AlphaDivergence { alpha: -1.0 }])
        {
            let ours = points.evaluate(loss, beta, DType::F32, false);
            for (what, values) in
                [("loss", ours.losses), ("d_w", ours.d_chosen), ("d_l", ours.d_rejected)]
            {
                assert!(
                    values.iter().all(|v| v.is_finite()),
                    "{loss:?} at {size}: {what} {values:?}"
                );
            }
        }
    }
}

#[test]
fn losses_at_the_reference_have_their_closed_values() {
    let ln2 = 2f64.ln();
    let known = |loss: Loss| match loss {
        Loss::Sigmoid
        | Loss::Cdpo { .. }
        | Loss::Robust { .. }
        | Loss::Aot { .. }
        | Loss::AotUnpaired { .. } => ln2,
        Loss::SigmoidNorm
        | Loss::ForwardKl
        | Loss::JensenShannon
        | Loss::AlphaDivergence { .. } => ln2,
        Loss::Hinge | Loss::ApoZero | Loss::ApoDown => 1.0,
        Loss::Ipo | Loss::IpoPerToken => 25.0,
        Loss::ExoPair { .. } => 2.76123071,
        Loss::NcaPair | Loss::BcoPair => 2.0 * ln2,
        Loss::SppoHard => 50.0,
        Loss::DiscoPop { .. } => 0.84657359,
        Loss::Kto { .. } => 0.5,
        // Without a reference, by hand: both replies have -2 nats a token, 10 tokens, margin 0.
        Loss::SimPo { gamma } => (1.0 + gamma.exp()).ln(),
        Loss::Cpo { alpha } => ln2 + alpha * 2.0,
        Loss::Orpo { lambda } => 2.0 + lambda * ln2,
    };
    let points = Points::new(&[[-20.0; 4], [-20.0; 4]]);
    for loss in Loss::ALL.into_iter() {
        for (dtype, tolerance) in [(DType::F64, 1e-8), (DType::F32, 1e-6)] {
            for value in points.evaluate(loss, 0.1, dtype, false).losses {
                let wanted = known(loss);
                assert!(
                    (value - wanted).abs() < tolerance * wanted.max(1.0),
                    "{loss:?}: {value}, not {wanted}"
                );
            }
        }
    }
}

#[test]
fn dpo_pulls_each_pair_by_beta_sigma_of_minus_beta_d() {
    let margins = [-2000.0, -30.0, -1.0, 0.0, 0.5, 20.0, 700.0];
    let rows: Vec<[f64; 4]> = margins.iter().map(|d| [-50.0 + d, -60.0, -50.0, -60.0]).collect();
    for beta in [0.01, 0.1, 0.5] {
        let ours = Points::new(&rows).evaluate(Loss::Sigmoid, beta, DType::F64, false);
        for (i, d) in margins.iter().enumerate() {
            let wanted = -beta / (1.0 + (beta * d).exp());
            assert!(
                (ours.d_chosen[i] - wanted).abs() <= 1e-12 * beta,
                "D = {d}: {} and {wanted}",
                ours.d_chosen[i]
            );
            assert_eq!(
                ours.d_rejected[i], -ours.d_chosen[i],
                "what lifts one reply lowers the other"
            );
        }
    }
}

#[test]
fn losses_without_a_reference_do_not_depend_on_it() {
    let with = |r: f64| Points::new(&[[-20.0, -25.0, r, -3.0 * r], [-31.0, -17.0, 2.0 * r, r]]);
    for loss in Loss::ALL.into_iter() {
        let (one, other) = (with(-10.0), with(-14.0));
        let same = one.evaluate(loss, 0.1, DType::F64, false).losses
            == other.evaluate(loss, 0.1, DType::F64, false).losses;
        assert_eq!(same, !loss.uses_reference(), "{loss:?}");
    }
}

/// serde names all variants of an enum when it meets a name that is none of them.
#[test]
fn all_lists_every_loss_once() {
    let refused = serde_json::from_str::<Loss>("\"no such loss\"").unwrap_err().to_string();
    let variants: Vec<&str> = refused.split('`').skip(3).step_by(2).collect();
    let listed = Loss::ALL.map(|loss| format!("{loss:?}").split(' ').next().unwrap().to_string());
    assert_eq!(listed.as_slice(), variants.as_slice(), "{refused}");
}

#[test]
fn names_are_distinct() {
    let mut names: Vec<_> = Loss::ALL.into_iter().map(|l| l.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Loss::ALL.into_iter().count());
}

#[test]
fn rewards_are_beta_times_the_log_ratio_and_ties_count_one_half() {
    let v = |x: &[f64]| Values::new(x);
    let logps = PairLogps::new(PairValues {
        policy_chosen: v(&[-10.0, -20.0, -5.0]),
        policy_rejected: v(&[-12.0, -20.0, -5.0]),
        ref_chosen: v(&[-12.0, -20.0, -4.0]),
        ref_rejected: v(&[-11.0, -20.0, -5.0]),
        chosen_tokens: vec![3; 3],
        rejected_tokens: vec![3; 3],
    })
    .unwrap();
    let rewards = logps.rewards(0.5);
    assert_eq!(rewards.chosen, [1.0, 0.0, -0.5]);
    assert_eq!(rewards.rejected, [-0.5, 0.0, 0.0]);
    assert_eq!(rewards.correct(), 1.5);
    assert_eq!(logps.margins().to_vec().unwrap(), [3.0, 0.0, -1.0]);
    assert_eq!(logps.widest(), 0);
}

#[test]
fn settings_out_of_range_are_named_with_their_value() {
    let nan = f64::NAN;
    for beta in [0.0, -0.1, nan, f64::INFINITY] {
        let error = error(Loss::Sigmoid.check(beta));
        assert!(error.what().contains("beta") && error.got() == beta.to_string(), "{error}");
    }
    let bad = [
        (Loss::Cdpo { label_smoothing: -0.1 }, "label_smoothing"),
        (Loss::Cdpo { label_smoothing: 0.5 }, "label_smoothing"),
        (Loss::Robust { label_smoothing: 0.5 }, "label_smoothing"),
        (Loss::Robust { label_smoothing: nan }, "label_smoothing"),
        (Loss::Aot { label_smoothing: 1.0 }, "label_smoothing"),
        (Loss::AotUnpaired { label_smoothing: -1.0 }, "label_smoothing"),
        (Loss::ExoPair { label_smoothing: 0.0 }, "label_smoothing"),
        (Loss::DiscoPop { tau: 0.0 }, "tau"),
        (Loss::DiscoPop { tau: -1.0 }, "tau"),
        (Loss::AlphaDivergence { alpha: 1.0 }, "alpha"),
        (Loss::AlphaDivergence { alpha: nan }, "alpha"),
        (Loss::SimPo { gamma: nan }, "gamma"),
        (Loss::Cpo { alpha: -1.0 }, "weight"),
        (Loss::Orpo { lambda: -0.1 }, "weight"),
        (Loss::Kto { kl: -1.0 }, "kl"),
    ];
    for (loss, setting) in bad {
        assert!(loss.check(0.1).is_err(), "{loss:?} must be refused");
        let error = error(loss.check(0.1));
        assert!(error.what().contains(setting), "{loss:?}: {error}");
    }
    for loss in Loss::ALL.into_iter() {
        loss.check(0.1).unwrap_or_else(|e| panic!("{loss:?}: {e}"));
    }
}

#[test]
fn log_probabilities_that_do_not_belong_together_are_refused() {
    let v = Values::new(&[-1.0, -2.0]);
    let good = PairValues {
        policy_chosen: v,
        policy_rejected: v,
        ref_chosen: v,
        ref_rejected: v,
        chosen_tokens: vec![1, 2],
        rejected_tokens: vec![2, 1],
    };
    assert_eq!(PairLogps::new(good.clone()).unwrap().len(), 2);
    let short = PairValues { ref_rejected: Values::new(&[-1.0]), ..good.clone() };
    assert!(error(PairLogps::new(short)).what().contains("one length"));
    let empty_reply = PairValues { chosen_tokens: vec![0, 2], ..good.clone() };
    assert!(error(PairLogps::new(empty_reply)).what().contains("without tokens"));
    let failed = PairValues { ref_chosen: v - Values::new(&[-1.0]), ..good };
    assert!(error(PairLogps::new(failed)).got().contains("2 and 1"));
}
