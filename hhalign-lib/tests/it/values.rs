//! Values: formulas by value, copies, failed operations, and the gradients behind them.

use std::process::Command;

use candle_core::{DType, Device, Tensor, Var};
use hhalign::base::error::Result;
use hhalign::loss::{PairLogps, PairValues, PreferenceLoss, Values};
use hhalign::model::ops;

use crate::common::{error, numbers, tensor_bits};

fn vec(values: Values) -> Vec<f64> {
    values.to_vec().unwrap()
}

#[test]
fn formulas_take_values_and_numbers_on_either_side() {
    let (a, b) = (Values::new(&[1.0, -2.0, 8.0]), Values::new(&[4.0, 0.5, -2.0]));
    assert_eq!(vec(a + b), [5.0, -1.5, 6.0]);
    assert_eq!(vec(a - b), [-3.0, -2.5, 10.0]);
    assert_eq!(vec(a * b), [4.0, -1.0, -16.0]);
    assert_eq!(vec(a / b), [0.25, -4.0, -4.0]);
    assert_eq!((vec(a + 1.0), vec(1.0 + a)), (vec![2.0, -1.0, 9.0], vec![2.0, -1.0, 9.0]));
    assert_eq!((vec(a - 1.0), vec(1.0 - a)), (vec![0.0, -3.0, 7.0], vec![0.0, 3.0, -7.0]));
    assert_eq!((vec(a * 0.5), vec(0.5 * a)), (vec![0.5, -1.0, 4.0], vec![0.5, -1.0, 4.0]));
    assert_eq!((vec(a / 2.0), vec(2.0 / a)), (vec![0.5, -1.0, 4.0], vec![2.0, -1.0, 0.25]));
    assert_eq!(vec(-a), [-1.0, 2.0, -8.0]);
    // A division is a division, not a product with a rounded inverse.
    assert_eq!(vec(a / 3.0), [1.0 / 3.0, -2.0 / 3.0, 8.0 / 3.0]);
    assert_eq!(vec(1.0 / Values::new(&[0.0])), [f64::INFINITY]);
    assert_eq!((a.len().unwrap(), a.is_empty().unwrap(), a.mean().unwrap()), (3, false, 7.0 / 3.0));
    assert!(Values::new(&[]).is_empty().unwrap() && Values::new(&[]).mean().unwrap().is_nan());
}

#[test]
fn the_formula_of_the_lesson_is_the_loss_and_leaves_its_variables() {
    let beta = 0.1;
    let (a, b) = (Values::new(&[1.0, 30.0, -900.0]), Values::new(&[4.0, 0.5, 20.0]));
    let by_hand = -(beta * (a - b)).log_sigmoid().unwrap();
    let again = -((a - b) * beta).log_sigmoid().unwrap();
    assert_eq!(vec(by_hand), vec(again));
    let zero = Values::new(&[0.0; 3]);
    let pairs = PairLogps::new(PairValues {
        policy_chosen: a,
        policy_rejected: b,
        ref_chosen: zero,
        ref_rejected: zero,
        chosen_tokens: vec![3; 3],
        rejected_tokens: vec![4; 3],
    })
    .unwrap();
    let by_library = PreferenceLoss::Sigmoid.losses(&pairs, beta).unwrap();
    assert_eq!(vec(by_hand), numbers(&by_library));
    // A copy of a copy that was moved into a function is the same vector.
    fn moved_here(values: Values) -> Values {
        values
    }
    let copy = a;
    assert_eq!(vec(moved_here(copy)), vec(copy));
    assert_eq!(vec(a), [1.0, 30.0, -900.0]);
    let sigmoid = (a - b).sigmoid().unwrap();
    assert!((vec(sigmoid)[0] - 1.0 / (1.0 + 3f64.exp())).abs() < 1e-15);
}

#[test]
fn values_of_two_lengths_give_an_error_at_the_question_mark() {
    let (two, three) = (Values::new(&[1.0, 2.0]), Values::new(&[1.0, 2.0, 3.0]));
    for (failed, done) in [
        (two - three, "subtracted"),
        (two + three, "added"),
        (two * three, "multiplied"),
        (two / three, "divided"),
        // One number for all pairs is a number, not a vector of one.
        (two - Values::new(&[1.0]), "subtracted"),
        // The first error is kept through everything that follows.
        (1.0 - -(0.1 * (two - three)) / 3.0 + three, "subtracted"),
        (three - (two + three) * two, "added"),
    ] {
        let refused = error(failed.to_vec());
        assert_eq!(refused.what(), format!("values of two lengths cannot be {done}"));
        assert!(
            refused.got().contains("2 and ") && refused.fix().contains("one number for each pair")
        );
        for also in [
            error(failed.log_sigmoid().map(|_| ())),
            error(failed.sigmoid().map(|_| ())),
            error(failed.mean().map(|_| ())),
            error(failed.len().map(|_| ())),
            error(failed.is_empty().map(|_| ())),
            error(failed.tensor().map(|_| ())),
        ] {
            assert_eq!(also, refused);
        }
        assert_eq!(format!("{failed:?}"), refused.to_string());
    }
    assert_eq!(format!("{two:?}"), "Values([1.0, 2.0])");
    let matrix = Values::from_tensor(Tensor::zeros((2, 3), DType::F64, &Device::Cpu).unwrap());
    assert!(error((matrix + two).to_vec()).got().contains("[2, 3]"));
}

/// Prints what a cell shows; only the test below runs it, in a process of its own.
#[test]
#[ignore = "its output is read by failed_values_show_their_error_in_a_cell"]
fn cell_output() {
    (Values::new(&[1.0, 2.0]) - Values::new(&[1.0])).evcxr_display();
    (Values::new(&[1.5, 2.0]) - Values::new(&[1.0, 2.0])).evcxr_display();
}

#[test]
fn failed_values_show_their_error_in_a_cell() {
    let program = std::env::current_exe().unwrap();
    let run = Command::new(program)
        .args(["--ignored", "--exact", "values::cell_output", "--nocapture"])
        .output()
        .unwrap();
    let shown = String::from_utf8(run.stdout).unwrap();
    assert!(run.status.success(), "{shown}");
    assert!(
        shown.contains("values of two lengths cannot be subtracted\n  got: 2 and 1\n  fix: "),
        "{shown}"
    );
    assert!(shown.contains("Values\n value\n0.5000\n0.0000"), "{shown}");
}

#[test]
fn numbers_of_a_model_and_of_a_lesson_meet_in_f64() {
    let single = Values::from_tensor(Tensor::new(&[0.1f32, 0.2], &Device::Cpu).unwrap());
    let double = Values::new(&[0.1, 0.2]);
    assert_eq!(vec(single - double), [f64::from(0.1f32) - 0.1, f64::from(0.2f32) - 0.2]);
    assert_eq!(
        (single * 2.0).tensor().unwrap().dtype(),
        DType::F32,
        "a number takes the vector's dtype"
    );
    let whole = Values::from_tensor(Tensor::new(&[1u32, 2], &Device::Cpu).unwrap());
    assert_eq!(vec(whole / 2.0), [0.5, 1.0]);
    let pairs = PairLogps::new(PairValues {
        policy_chosen: single,
        policy_rejected: single,
        ref_chosen: double,
        ref_rejected: double,
        chosen_tokens: vec![1; 2],
        rejected_tokens: vec![1; 2],
    })
    .unwrap();
    assert_eq!(vec(pairs.chosen_logratios()), vec(single - double));
    assert_eq!(pairs.rewards(2.0).chosen, vec(2.0 * (single - double)));
}

/// Gradients of the DPO loss of some pairs by the policy's two log-probabilities.
fn gradients(of: impl Fn([&Tensor; 4]) -> Result<Tensor>) -> [Vec<u32>; 2] {
    let var = |v: &[f32]| Var::from_tensor(&Tensor::new(v, &Device::Cpu).unwrap()).unwrap();
    let policy = [var(&[-20.0, -26.5, -52.0, -380.0]), var(&[-20.0, -24.0, -58.1, -53.0])];
    let reference = [var(&[-20.0, -30.0, -44.2, -50.0]), var(&[-20.0, -18.7, -36.0, -30.0])]
        .map(|v| v.detach());
    let losses =
        of([policy[0].as_tensor(), policy[1].as_tensor(), &reference[0], &reference[1]]).unwrap();
    let store = losses.mean_all().unwrap().backward().unwrap();
    [0, 1].map(|i| tensor_bits(store.get(policy[i].as_tensor()).unwrap()))
}

#[test]
fn gradients_through_handles_equal_those_of_plain_tensors_to_the_bit() {
    let plain = gradients(|[pw, pl, rw, rl]| {
        let d = ((pw - rw)? - (pl - rl)?)?;
        Ok(ops::log_sigmoid(&(d * 0.1)?)?.neg()?)
    });
    let by_hand = gradients(|logps| {
        let [pw, pl, rw, rl] = logps.map(|t| Values::from_tensor(t.clone()));
        let (a, b) = (pw - rw, pl - rl);
        (-(0.1 * (a - b)).log_sigmoid()?).tensor()
    });
    assert_eq!(by_hand, plain);
    let by_library = gradients(|logps| {
        let [policy_chosen, policy_rejected, ref_chosen, ref_rejected] =
            logps.map(|t| Values::from_tensor(t.clone()));
        let (chosen_tokens, rejected_tokens) = (vec![9; 4], vec![7; 4]);
        let pairs = PairLogps::new(PairValues {
            policy_chosen,
            policy_rejected,
            ref_chosen,
            ref_rejected,
            chosen_tokens,
            rejected_tokens,
        })?;
        // Out into handles and back in: the graph is still the same one.
        PreferenceLoss::Sigmoid.losses(&PairLogps::new(pairs.values())?, 0.1)
    });
    assert_eq!(by_library, plain);
    assert!(plain[0].iter().any(|&bits| f32::from_bits(bits) != 0.0));
}

#[test]
fn detached_pairs_have_the_same_numbers_and_no_gradient() {
    let var = Var::from_tensor(&Tensor::new(&[-3.0, -4.0], &Device::Cpu).unwrap()).unwrap();
    let (policy, zero) = (Values::from_tensor(var.as_tensor().clone()), Values::new(&[0.0; 2]));
    let pairs = PairLogps::new(PairValues {
        policy_chosen: policy,
        policy_rejected: 2.0 * policy,
        ref_chosen: zero,
        ref_rejected: zero,
        chosen_tokens: vec![1; 2],
        rejected_tokens: vec![1; 2],
    })
    .unwrap();
    assert!(pairs.margins().tensor().unwrap().track_op());
    assert!(!pairs.detach().margins().tensor().unwrap().track_op());
    assert_eq!(vec(pairs.detach().margins()), vec(pairs.margins()));
}
