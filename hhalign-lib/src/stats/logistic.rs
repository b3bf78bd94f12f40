//! Rates at equal lengths, by logistic regression.

use super::{Estimate, Method, Z};

/// Returns the rate of outcomes (1 won, 0 lost, 1/2 tied) at x = 0, by a logistic regression on
/// `x`.
///
/// logit P(win) = a + b · x; the value is σ(a). The interval is computed on the scale of a, with a
/// variance that is robust to a misspecified regression.
///
/// # Shapes
/// n outcomes, n values of x -> one value
///
/// # Source
/// The form of AlpacaEval's length-controlled win rate (Dubois et al. 2024, arXiv 2404.04475), for
/// one pair of models; Huber 1967 (the variance).
///
/// # Example
/// ```
/// // The longer one always wins; at equal length neither does.
/// let longer: Vec<f64> = (0..40).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
/// let outcome = |(i, x): (usize, &f64)| if i % 5 == 0 { 0.5 } else { (x + 1.0) / 2.0 };
/// let won: Vec<f64> = longer.iter().enumerate().map(outcome).collect();
/// let e = hhalign::stats::adjusted_rate(&won, &longer);
/// assert!(e.low < 0.5 && e.high > 0.5 && (e.value - 0.5).abs() < 0.05);
/// ```
pub fn adjusted_rate(outcomes: &[f64], x: &[f64]) -> Estimate {
    let n = outcomes.len();
    if n < 8 {
        return Estimate::not_enough_data(n);
    }
    let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
    let (mut a, mut b) = (0.0f64, 0.0f64);
    let mut inverse = [0.0; 3];
    for _ in 0..50 {
        // A weak ridge penalty keeps b finite if x decides every outcome, or never varies.
        let (mut g, mut h) = ([0.0, -RIDGE * b], [0.0, 0.0, RIDGE]);
        for (y, x) in outcomes.iter().zip(x) {
            let p = sigmoid(a + b * x);
            let w = p * (1.0 - p);
            g = [g[0] + y - p, g[1] + (y - p) * x];
            h = [h[0] + w, h[1] + w * x, h[2] + w * x * x];
        }
        let determinant = h[0] * h[2] - h[1] * h[1];
        inverse = [h[2] / determinant, -h[1] / determinant, h[0] / determinant];
        let step = [inverse[0] * g[0] + inverse[1] * g[1], inverse[1] * g[0] + inverse[2] * g[1]];
        // Shorter steps far from the optimum: a full Newton step may overshoot.
        let scale = 1.0 / (1.0 + (step[0].abs().max(step[1].abs()) / 4.0).floor());
        (a, b) = (a + scale * step[0], b + scale * step[1]);
        if step[0].abs() + step[1].abs() < 1e-10 {
            break;
        }
    }
    let mut middle = [0.0; 3];
    for (y, x) in outcomes.iter().zip(x) {
        let r = y - sigmoid(a + b * x);
        middle = [middle[0] + r * r, middle[1] + r * r * x, middle[2] + r * r * x * x];
    }
    let [i, j, _] = inverse;
    let variance = (i * i * middle[0] + 2.0 * i * j * middle[1] + j * j * middle[2]) * n as f64
        / (n as f64 - 2.0);
    // If all outcomes are equal, a diverges.
    if !(a.abs() < 8.0 && variance > 0.0 && variance.is_finite()) {
        return Estimate::not_enough_data(n);
    }
    let half = Z * variance.sqrt();
    Estimate {
        value: sigmoid(a),
        low: sigmoid(a - half),
        high: sigmoid(a + half),
        n,
        method: Method::LogisticRobust,
    }
}

/// The strength of the ridge penalty: half a pair.
const RIDGE: f64 = 0.125;
