//! A page with a beta lab over many invented pairs, and what this library says of some of them, for
//! `scripts/tests/test_browser.py`.

use std::collections::BTreeMap;
use std::path::Path;

use hhalign::base::error::Result;
use hhalign::base::rng::stream;
use hhalign::loss::{PairLogps, PairValues, PreferenceLoss, Values};
use hhalign::notebook::lab::beta_lab;
use rand::Rng as _;
use serde_json::json;

/// Pairs of the page where no other number is asked for.
pub const PAIRS: usize = 10_000;

/// Pairs whose losses are compared, and the values of beta.
const COMPARED: usize = 300;
const BETAS: [f64; 4] = [0.01, 0.1, 0.7, 5.0];

fn pairs(n: usize, seed: u64) -> Result<PairLogps> {
    let mut rng = stream(seed, "lab page", &[]);
    let mut reply = |length: usize, reach: f64| {
        let reference = -(length as f64) * rng.random_range(0.4..4.0);
        // A policy's log-probability stays below 0.
        (reference, (reference + rng.random_range(-reach..reach)).min(-1e-3))
    };
    let lengths = |seed: u64| {
        let mut rng = stream(seed, "lab page lengths", &[]);
        (0..n).map(|_| rng.random_range(1..90)).collect::<Vec<usize>>()
    };
    let (chosen_tokens, rejected_tokens) = (lengths(seed), lengths(seed + 1));
    let mut side = |tokens: &[usize]| {
        let both: Vec<(f64, f64)> = tokens
            .iter()
            .enumerate()
            .map(|(i, &t)| reply(t, if i % 50 == 0 { 300.0 } else { 8.0 }))
            .collect();
        let (reference, policy): (Vec<f64>, Vec<f64>) = both.into_iter().unzip();
        (Values::new(&reference), Values::new(&policy))
    };
    let ((ref_chosen, policy_chosen), (ref_rejected, policy_rejected)) =
        (side(&chosen_tokens), side(&rejected_tokens));
    PairLogps::new(PairValues {
        policy_chosen,
        policy_rejected,
        ref_chosen,
        ref_rejected,
        chosen_tokens,
        rejected_tokens,
    })
}

/// Writes page.html with `n` pairs, and expected.json.
pub fn write(folder: &str, n: usize) -> Result<()> {
    let folder = Path::new(folder);
    let shown = beta_lab(
        &pairs(n, 7)?,
        PreferenceLoss::Sigmoid,
        0.1,
        &format!("{n} invented pairs, seed 7"),
    )?;
    let page = format!(
        "<!doctype html><meta charset=\"utf-8\"><title>beta lab</title><body style=\"font-family:sans-serif\">{}</body>",
        shown.html()
    );
    hhalign::base::files::write_atomic(&folder.join("page.html"), page.as_bytes())?;

    let some = pairs(COMPARED, 11)?;
    let mut losses = PreferenceLoss::ALL.to_vec();
    losses.extend([PreferenceLoss::Aot { label_smoothing: 0.2 }, PreferenceLoss::Kto { kl: 1.5 }]);
    let mut expected = vec![];
    for loss in &losses {
        // `{"Cdpo": {"label_smoothing": 0.1}}` or `"Sigmoid"`.
        let settings =
            serde_json::to_value(loss)?.as_object().and_then(|o| o.values().next().cloned());
        for beta in BETAS {
            let values = Values::from_tensor(loss.losses(&some, beta)?).to_vec()?;
            expected.push(json!({ "name": loss.name(), "settings": settings.clone().unwrap_or(json!({})), "beta": beta, "losses": values }));
        }
    }
    let data: BTreeMap<&str, Vec<f64>> = [
        ("a", some.chosen_logratios().to_vec()?),
        ("b", some.rejected_logratios().to_vec()?),
        ("pc", some.policy_chosen().to_vec()?),
        ("pr", some.policy_rejected().to_vec()?),
        ("lw", some.chosen_tokens().iter().map(|&n| n as f64).collect()),
        ("ll", some.rejected_tokens().iter().map(|&n| n as f64).collect()),
    ]
    .into();
    hhalign::base::files::write_atomic(
        &folder.join("expected.json"),
        json!({ "data": data, "expected": expected }).to_string().as_bytes(),
    )
}
