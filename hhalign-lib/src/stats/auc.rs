//! The area under the ROC curve, with DeLong's variance.

use super::{Estimate, Method, Z};

/// Returns how often a positive case scores higher than a negative one, with ties counted one half;
/// the interval is computed on the logit scale.
///
/// # Shapes
/// n scores, n labels -> one value
///
/// # Source
/// Mann and Whitney 1947 (the statistic); DeLong, DeLong and Clarke-Pearson 1988 (its variance).
///
/// # Example
/// ```
/// let scores = [0.1, 0.4, 0.35, 0.8];
/// let e = hhalign::stats::auc(&scores, &[false, false, true, true]);
/// assert_eq!(e.value, 0.75);
/// ```
pub fn auc(scores: &[f64], positive: &[bool]) -> Estimate {
    let n = scores.len();
    let Some(placements) = Placements::of(scores, positive) else {
        return Estimate::not_enough_data(n);
    };
    let (value, se) = (placements.auc(), placements.variance().sqrt());
    // At 0 or 1 the variance is unknown; half a wrong pair is the smallest observable deviation.
    let least = 0.5 / (placements.positive.len() * placements.negative.len()) as f64;
    let inside = value.clamp(least, 1.0 - least);
    let logit = |p: f64| (p / (1.0 - p)).ln();
    let smallest = (inside * (1.0 - inside)
        / placements.positive.len().min(placements.negative.len()) as f64)
        .sqrt();
    let half = Z * (if se > 0.0 { se } else { smallest }) / (inside * (1.0 - inside));
    let back = |x: f64| 1.0 / (1.0 + (-x).exp());
    let (low, high) = (back(logit(inside) - half), back(logit(inside) + half));
    Estimate { value, low: low.min(value), high: high.max(value), n, method: Method::DeLongLogit }
}

/// Returns the difference of two areas, second - first, on the same cases.
///
/// # Source
/// DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44, 837-845.
pub fn auc_difference(first: &[f64], second: &[f64], positive: &[bool]) -> Estimate {
    let n = first.len();
    let (Some(a), Some(b)) = (Placements::of(first, positive), Placements::of(second, positive))
    else {
        return Estimate::not_enough_data(n);
    };
    let between = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| y - x).collect::<Vec<_>>();
    let differences = Placements {
        positive: between(&a.positive, &b.positive),
        negative: between(&a.negative, &b.negative),
    };
    let (value, half) = (b.auc() - a.auc(), Z * differences.variance().sqrt());
    Estimate { value, low: value - half, high: value + half, n, method: Method::DeLongPaired }
}

/// The placement values: for each positive case the share of negative ones below it, for each
/// negative case the share of positive ones above it.
struct Placements {
    positive: Vec<f64>,
    negative: Vec<f64>,
}

impl Placements {
    fn of(scores: &[f64], positive: &[bool]) -> Option<Self> {
        let of_kind = |kind: bool| -> Vec<f64> {
            let mut chosen: Vec<f64> =
                scores.iter().zip(positive).filter(|(_, p)| **p == kind).map(|(s, _)| *s).collect();
            chosen.sort_by(f64::total_cmp);
            chosen
        };
        let (above, below) = (of_kind(true), of_kind(false));
        if above.len() < 2 || below.len() < 2 || scores.iter().any(|s| s.is_nan()) {
            return None;
        }
        let lower = |sorted: &[f64], x: f64| {
            let (less, not_more) =
                (sorted.partition_point(|&y| y < x), sorted.partition_point(|&y| y <= x));
            (less + not_more) as f64 / (2 * sorted.len()) as f64
        };
        // In the order of the cases, so that the two scores of a case stay together.
        let of = |kind: bool, placement: &dyn Fn(f64) -> f64| {
            scores
                .iter()
                .zip(positive)
                .filter(|(_, p)| **p == kind)
                .map(|(s, _)| placement(*s))
                .collect()
        };
        Some(Self {
            positive: of(true, &|s| lower(&below, s)),
            negative: of(false, &|s| 1.0 - lower(&above, s)),
        })
    }

    fn auc(&self) -> f64 {
        self.positive.iter().sum::<f64>() / self.positive.len() as f64
    }

    fn variance(&self) -> f64 {
        let part = |values: &[f64]| {
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0) / n
        };
        part(&self.positive) + part(&self.negative)
    }
}
