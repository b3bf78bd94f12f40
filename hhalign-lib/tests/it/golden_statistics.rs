//! Statistics held to scipy, statsmodels, scikit-learn, krippendorff and NLTK
//! (scripts/golden/make_statistics.py).

use hhalign::eval::preferences::agreement::{cohen_kappa, krippendorff_alpha};
use hhalign::stats::*;
use serde_json::Value;

use crate::fixtures::golden_json;

fn golden() -> Value {
    golden_json("statistics.json")
}

fn close(ours: f64, theirs: &Value, tolerance: f64, what: &str) {
    let theirs = theirs.as_f64().unwrap_or_else(|| panic!("{what}: no golden value"));
    assert!((ours - theirs).abs() <= tolerance, "{what}: {ours} here, {theirs} there");
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn flags(value: &Value) -> Vec<bool> {
    value.as_array().unwrap().iter().map(|v| v.as_bool().unwrap()).collect()
}

#[test]
fn wilson_and_the_sign_test_are_those_of_statsmodels_and_scipy() {
    let golden = golden();
    for case in golden["wilson"].as_array().unwrap() {
        let e = wilson(case["k"].as_f64().unwrap(), case["n"].as_u64().unwrap() as usize);
        close(e.low, &case["interval"][0], 1e-9, "low end");
        close(e.high, &case["interval"][1], 1e-9, "high end");
    }
    for case in golden["binomial"].as_array().unwrap() {
        let of = |name: &str| case[name].as_u64().unwrap() as usize;
        close(binomial_test(of("k"), of("n")), &case["p"], 1e-9, "p");
    }
}

#[test]
fn paired_shares_are_compared_as_statsmodels_does() {
    let golden = &golden()["paired"];
    let (first, second) = (flags(&golden["first"]), flags(&golden["second"]));
    close(mcnemar(&first, &second).p_value, &golden["mcnemar_p"], 1e-9, "McNemar");
    let e = paired_share_difference(&first, &second);
    close(e.low, &golden["low"], 1e-9, "low end");
    close(e.high, &golden["high"], 1e-9, "high end");
}

#[test]
fn corrections_effects_and_sizes_are_those_of_statsmodels() {
    let golden = golden();
    let corrected = holm(&numbers(&golden["holm"]["p"]));
    corrected
        .iter()
        .zip(golden["holm"]["corrected"].as_array().unwrap())
        .for_each(|(a, b)| close(*a, b, 1e-12, "Holm"));
    for case in golden["power"].as_array().unwrap() {
        let (a, b) = (case["first"].as_f64().unwrap(), case["second"].as_f64().unwrap());
        close(cohen_h(a, b), &case["h"], 1e-12, "h");
        assert_eq!(
            prompts_for_shares(a, b, 0.8) as u64,
            case["n"].as_u64().unwrap(),
            "{a} against {b}"
        );
    }
}

#[test]
fn kappa_and_alpha_are_those_of_statsmodels_nltk_and_krippendorff() {
    let golden = &golden()["agreement"];
    let rows: Vec<Vec<u64>> = golden["labels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r.as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect())
        .collect();
    let of = |j: usize| rows.iter().map(|r| r[j]).collect::<Vec<_>>();
    close(cohen_kappa(&of(0), &of(1)), &golden["kappa"], 1e-12, "kappa");
    let gaps: Vec<Vec<u64>> = golden["gaps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r.as_array().unwrap().iter().filter_map(Value::as_u64).collect())
        .collect();
    close(krippendorff_alpha(&gaps), &golden["alpha"], 1e-12, "alpha");
}

#[test]
fn areas_and_their_variances_are_those_of_all_pairs() {
    let golden = &golden()["auc"];
    let (positive, first, second) =
        (flags(&golden["positive"]), numbers(&golden["first"]), numbers(&golden["second"]));
    let e = auc(&first, &positive);
    close(e.value, &golden["area"], 1e-12, "area");
    let logit = |p: f64| (p / (1.0 - p)).ln();
    let se = golden["variance"].as_f64().unwrap().sqrt();
    let half = 1.959_963_984_540_054 * se / (e.value * (1.0 - e.value));
    assert!(
        (logit(e.high) - logit(e.value) - half).abs() < 1e-9
            && (logit(e.value) - logit(e.low) - half).abs() < 1e-9
    );
    let d = auc_difference(&first, &second, &positive);
    close(d.value, &golden["difference"], 1e-12, "difference");
    let half = 1.959_963_984_540_054 * golden["variance_of_difference"].as_f64().unwrap().sqrt();
    assert!((d.high - d.value - half).abs() < 1e-12);
}

#[test]
fn the_bootstrap_agrees_with_one_that_uses_the_jackknife_within_its_noise() {
    let golden = &golden()["bootstrap"];
    let (x, y) = (numbers(&golden["x"]), numbers(&golden["y"]));
    for (name, e) in [("mean", bootstrap_mean(&x, 0)), ("ratio", bootstrap_ratio(&x, &y, 0))] {
        let theirs = &golden[name];
        close(e.value, &theirs["value"], 1e-12, name);
        let width = e.high - e.low;
        // A 2.5% point of 1,999 draws is off by about 3% of the width.
        close(e.low, &theirs["low"], 0.08 * width, name);
        close(e.high, &theirs["high"], 0.08 * width, name);
    }
    let (e, bca) = (bootstrap_mean(&x, 0), numbers(&golden["mean_bca"]));
    assert!(
        (e.low - bca[0]).abs() < 0.15 * (bca[1] - bca[0])
            && (e.high - bca[1]).abs() < 0.25 * (bca[1] - bca[0])
    );
    let golden = &self::golden()["permutation"];
    let gain = numbers(&golden["gain"]);
    let p = permutation_test(gain.len(), 0, |swap| {
        gain.iter().zip(swap).map(|(g, s)| if *s { -g } else { *g }).sum::<f64>()
    });
    let theirs = golden["p"].as_f64().unwrap();
    // Four standard errors of 9,999 draws.
    assert!(
        (p - theirs).abs() < 4.0 * (theirs * (1.0 - theirs) / 9999.0).sqrt(),
        "{p} here, {theirs} there"
    );
}

#[test]
fn the_rate_at_equal_lengths_is_that_of_a_general_optimiser() {
    let golden = &golden()["adjusted"];
    let e = adjusted_rate(&numbers(&golden["won"]), &numbers(&golden["x"]));
    close(e.value, &golden["value"], 1e-6, "value");
    close(e.low, &golden["low"], 1e-6, "low end");
    close(e.high, &golden["high"], 1e-6, "high end");
}
