//! Intervals by resampling the cases.

use std::ops::Range;

use rand::Rng as _;
use statrs::distribution::{ContinuousCDF, StudentsT};

use super::{Estimate, Method, wilson};
use crate::base::rng::stream;

/// Resamples of a bootstrap: (RESAMPLES + 1) · 0.025 is a whole number.
const RESAMPLES: usize = 1999;

/// The fewest cases per squared skewness: below it the studentised bootstrap covers the true value
/// clearly less often than in 95% (docs/EVALUATION_METHODOLOGY.md).
const CASES_PER_SQUARED_SKEWNESS: f64 = 8.0;

/// The fewest cases of an interval.
const MIN_CASES: usize = 8;

/// Returns a smooth function `g` of the means of K numbers per case, with its studentised bootstrap
/// interval.
///
/// Each resample gives t* = (θ* - θ) / se*, where se* comes from the delta method; the interval is
/// [θ - t*(97.5%) se, θ - t*(2.5%) se]. Unlike percentiles of θ* it keeps its coverage for skewed
/// cases. There is not enough data if all cases are equal, if there are fewer than eight, or if
/// they are so skewed that even this interval would be too short.
///
/// # Shapes
/// n rows of K numbers -> one value
///
/// # Source
/// Efron and Tibshirani 1993, section 12.5; the limit on skewness has the form of Cochran's rule
/// (1977, section 2.15).
///
/// # Example
/// ```
/// use hhalign::stats::bootstrap_t;
/// // A ratio of two sums.
/// let rows: Vec<[f64; 2]> = (1..40).map(|i| [i as f64, (2 * i + i % 3) as f64]).collect();
/// let e = bootstrap_t(&rows, 7, |[above, below]| above / below);
/// assert!(e.low < e.value && e.value < e.high && e.n == 39);
/// ```
pub fn bootstrap_t<const K: usize>(
    rows: &[[f64; K]],
    seed: u64,
    g: impl Fn(&[f64; K]) -> f64,
) -> Estimate {
    let n = rows.len();
    if n < MIN_CASES {
        return Estimate::not_enough_data(n);
    }
    let whole = Moments::of(rows.iter(), n);
    let (value, gradient) = (g(&whole.mean), whole.gradient(&g));
    let se = whole.standard_error(&gradient);
    let enough = n as f64 >= CASES_PER_SQUARED_SKEWNESS * whole.skewness(rows, &gradient).powi(2);
    if !(value.is_finite() && se > 0.0 && enough) {
        return Estimate::too_uneven(n);
    }
    let mut rng = stream(seed, "bootstrap", &[]);
    let mut t: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let drawn = Moments::of((0..n).map(|_| &rows[rng.random_range(0..n)]), n);
            let (shift, se) = (g(&drawn.mean) - value, drawn.standard_error(&drawn.gradient(&g)));
            // A resample of equal cases has no standard error: its t is infinite.
            if se > 0.0 {
                shift / se
            } else {
                f64::INFINITY * shift.signum() * f64::from(shift != 0.0)
            }
        })
        .map(|t| if t.is_nan() { 0.0 } else { t })
        .collect();
    t.sort_by(f64::total_cmp);
    let at = |share: f64| t[((RESAMPLES + 1) as f64 * share) as usize - 1];
    let e = Estimate {
        value,
        low: value - at(0.975) * se,
        high: value - at(0.025) * se,
        n,
        method: Method::BootstrapT,
    };
    if e.is_known() { e } else { Estimate::too_uneven(n) }
}

/// Returns the mean of some numbers with a studentised bootstrap interval.
///
/// # Example
/// ```
/// let words = [7.0, 9.0, 4.0, 12.0, 8.0, 6.0, 10.0, 9.0];
/// let e = hhalign::stats::bootstrap_mean(&words, 1);
/// assert!((e.value - 8.125).abs() < 1e-12 && e.low < 8.0 && e.high > 8.2);
/// assert!(!hhalign::stats::bootstrap_mean(&words[..3], 1).is_known());
/// ```
pub fn bootstrap_mean(values: &[f64], seed: u64) -> Estimate {
    let rows: Vec<[f64; 1]> = values.iter().map(|&v| [v]).collect();
    bootstrap_t(&rows, seed, |[mean]| *mean)
}

/// Returns the mean of scores in [0, 1] of which nearly all are low, such as a classifier's.
///
/// If no score is above `high`, neither the sample nor its resamples tell how many such scores
/// exist. The upper end then includes what the share of high scores that may have been missed
/// (Wilson's upper end for 0 of n) could add to the mean, and the lower end is 0 if the bootstrap
/// has none.
///
/// # Example
/// ```
/// let scores: Vec<f64> = (0..50).map(|i| 0.02 + 0.0002 * i as f64).collect();
/// let e = hhalign::stats::bootstrap_score(&scores, 0.5, 0);
/// assert!(e.value < 0.03 && e.high > 0.09, "up to 7 in 100 toxic replies may have been missed");
/// ```
pub fn bootstrap_score(scores: &[f64], high: f64, seed: u64) -> Estimate {
    let e = bootstrap_mean(scores, seed);
    let n = scores.len();
    if n < MIN_CASES || scores.iter().any(|s| *s > high || !s.is_finite()) {
        return e;
    }
    let value = scores.iter().sum::<f64>() / n as f64;
    let missed = wilson(0.0, n).high;
    let (low, top) = if e.is_known() { (e.low.max(0.0), e.high) } else { (0.0, value) };
    Estimate { value, low, high: top + missed * (1.0 - top), n, method: Method::BootstrapTMissed }
}

/// Returns Σ above / Σ below with a studentised bootstrap interval over cases.
///
/// # Example
/// ```
/// let nats = [3.0, 5.0, 2.0, 8.0, 4.0, 6.0, 5.0, 4.0];
/// let tokens = [2.0, 2.0, 1.0, 5.0, 2.0, 3.0, 2.0, 3.0];
/// let e = hhalign::stats::bootstrap_ratio(&nats, &tokens, 1);
/// assert!((e.value - 37.0 / 20.0).abs() < 1e-12);
/// ```
pub fn bootstrap_ratio(above: &[f64], below: &[f64], seed: u64) -> Estimate {
    let rows: Vec<[f64; 2]> = above.iter().zip(below).map(|(&a, &b)| [a, b]).collect();
    bootstrap_t(&rows, seed, |[a, b]| a / b)
}

/// Means and covariances of K numbers over some cases.
struct Moments<const K: usize> {
    n: usize,
    mean: [f64; K],
    covariance: [[f64; K]; K],
}

impl<const K: usize> Moments<K> {
    fn of<'a>(rows: impl Iterator<Item = &'a [f64; K]>, n: usize) -> Self {
        let (mut mean, mut square, mut first) = ([0.0; K], [[0.0; K]; K], None);
        for row in rows {
            // Shifted by the first case, so that a large mean does not swallow a small variance.
            let origin = *first.get_or_insert(*row);
            let from = |k: usize| row[k] - origin[k];
            for i in 0..K {
                mean[i] += from(i) / n as f64;
                (0..=i).for_each(|j| square[i][j] += from(i) * from(j) / n as f64);
            }
        }
        let mut covariance = [[0.0; K]; K];
        for i in 0..K {
            for j in 0..=i {
                let value = (square[i][j] - mean[i] * mean[j]) * n as f64 / (n - 1) as f64;
                // The rest of equal cases is rounding error.
                let value = if value.abs() < 1e-14 * square[i][j].abs() { 0.0 } else { value };
                (covariance[i][j], covariance[j][i]) = (value, value);
            }
        }
        let origin = first.unwrap_or([0.0; K]);
        Self { n, mean: std::array::from_fn(|k| mean[k] + origin[k]), covariance }
    }

    /// The gradient of `g` at the means, by central differences of a thousandth of the standard
    /// deviation.
    fn gradient(&self, g: &impl Fn(&[f64; K]) -> f64) -> [f64; K] {
        std::array::from_fn(|k| {
            let step = 1e-3 * self.covariance[k][k].max(0.0).sqrt();
            if step == 0.0 {
                return 0.0;
            }
            let at = |sign: f64| {
                let mut means = self.mean;
                means[k] += sign * step;
                g(&means)
            };
            (at(1.0) - at(-1.0)) / (2.0 * step)
        })
    }

    fn standard_error(&self, gradient: &[f64; K]) -> f64 {
        let variance: f64 = (0..K)
            .flat_map(|i| (0..K).map(move |j| (i, j)))
            .map(|(i, j)| gradient[i] * gradient[j] * self.covariance[i][j])
            .sum();
        (variance.max(0.0) / self.n as f64).sqrt()
    }

    /// The skewness of the influence of each case on the value.
    fn skewness(&self, rows: &[[f64; K]], gradient: &[f64; K]) -> f64 {
        let influence =
            |row: &[f64; K]| (0..K).map(|k| gradient[k] * (row[k] - self.mean[k])).sum::<f64>();
        let moment = |power: i32| {
            rows.iter().map(|row| influence(row).powi(power)).sum::<f64>() / self.n as f64
        };
        moment(3) / moment(2).powf(1.5)
    }
}

/// Returns a statistic of a set of texts, such as distinct-n, with its jackknife interval.
///
/// A bootstrap would be biased, since a resample repeats texts and their n-grams; leaving texts out
/// does not. The n cases are left out in `groups` groups, one after the other (n groups: case by
/// case); the argument of the statistic is the cases to leave out.
///
/// # Source
/// Tukey 1958; Efron and Tibshirani 1993, chapter 11.
///
/// # Example
/// ```
/// use std::{collections::HashSet, ops::Range};
/// let words: Vec<usize> = (0..200).map(|i| i * i % 97).collect();
/// let distinct = |left_out: Range<usize>| {
///     let kept = (0..200).filter(|i| !left_out.contains(i));
///     let kept: Vec<usize> = kept.map(|i| words[i]).collect();
///     kept.iter().collect::<HashSet<_>>().len() as f64 / kept.len() as f64
/// };
/// let e = hhalign::stats::jackknife(words.len(), words.len(), distinct);
/// assert!(e.low < e.value && e.value < e.high);
/// ```
pub fn jackknife(n: usize, groups: usize, statistic: impl Fn(Range<usize>) -> f64) -> Estimate {
    let groups = groups.min(n);
    if groups < MIN_CASES {
        return Estimate::not_enough_data(n);
    }
    let value = statistic(0..0);
    let without: Vec<f64> =
        (0..groups).map(|i| statistic(i * n / groups..(i + 1) * n / groups)).collect();
    let mean = without.iter().sum::<f64>() / groups as f64;
    let spread = without.iter().map(|w| (w - mean).powi(2)).sum::<f64>();
    let t = StudentsT::new(0.0, 1.0, (groups - 1) as f64)
        .expect("at least one degree of freedom")
        .inverse_cdf(0.975);
    let half_width = t * (spread * (groups - 1) as f64 / groups as f64).sqrt();
    if half_width > 0.0 && half_width.is_finite() {
        Estimate {
            value,
            low: value - half_width,
            high: value + half_width,
            n,
            method: Method::Jackknife,
        }
    } else {
        Estimate::not_enough_data(n)
    }
}
