//! Intervals and tests: no figure without its number of cases and its uncertainty.

use rand::Rng as _;
use serde::Serialize;

use crate::rng::stream;

/// A figure with its 95% interval, its number of cases and how the interval was made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Estimate {
    /// The figure; not a number where there is not enough data.
    pub value: f64,
    /// Lower end of the 95% interval.
    pub low: f64,
    /// Upper end of the 95% interval.
    pub high: f64,
    /// Cases it rests on.
    pub n: usize,
    /// How the interval was made.
    pub method: &'static str,
}

impl Estimate {
    /// What stands where nothing was measured.
    pub fn not_enough_data(n: usize) -> Self {
        Self { value: f64::NAN, low: f64::NAN, high: f64::NAN, n, method: "not enough data" }
    }

    /// A figure that follows from a definition, and was not measured.
    pub fn by_definition(value: f64, n: usize) -> Self {
        Self { value, low: value, high: value, n, method: "by definition" }
    }

    /// The figure as text: `0.912 [0.87, 0.94], n = 150`.
    pub fn text(&self) -> String {
        if self.value.is_nan() {
            return format!("not enough data, n = {}", self.n);
        }
        format!("{:.3} [{:.3}, {:.3}], n = {}", self.value, self.low, self.high, self.n)
    }
}

/// The 97.5% point of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// Draws of a bootstrap.
const RESAMPLES: usize = 2000;

/// A share with its Wilson interval; half successes (ties) are allowed.
///
/// # Source
/// Wilson 1927, JASA 22, 209-212.
///
/// # Example
/// ```
/// let e = hhalign::eval::stats::wilson(7.0, 50);
/// assert!((e.low - 0.0695083).abs() < 1e-6 && (e.high - 0.2618619).abs() < 1e-6);
/// ```
pub fn wilson(successes: f64, n: usize) -> Estimate {
    if n == 0 {
        return Estimate::not_enough_data(0);
    }
    let (p, n_f) = (successes / n as f64, n as f64);
    let z2 = Z * Z / n_f;
    let centre = (p + z2 / 2.0) / (1.0 + z2);
    let half = Z / (1.0 + z2) * (p * (1.0 - p) / n_f + z2 / (4.0 * n_f)).sqrt();
    // At the ends the formula gives the end but for rounding.
    let low = if successes == 0.0 { 0.0 } else { (centre - half).max(0.0) };
    let high = if successes == n_f { 1.0 } else { (centre + half).min(1.0) };
    Estimate { value: p, low, high, n, method: "Wilson" }
}

/// A statistic of n cases with its bootstrap percentile interval; the statistic is given the indices of a resample.
///
/// # Source
/// Efron and Tibshirani 1993, chapter 13.
///
/// # Example
/// ```
/// use hhalign::eval::stats::bootstrap;
/// let x = [1.0, 2.0, 3.0, 4.0];
/// let e = bootstrap(x.len(), 7, |rows| rows.iter().map(|&i| x[i]).sum::<f64>() / rows.len() as f64);
/// assert_eq!(e.value, 2.5);
/// assert!(e.low < 2.5 && e.high > 2.5);
/// ```
pub fn bootstrap(n: usize, seed: u64, statistic: impl Fn(&[usize]) -> f64) -> Estimate {
    bootstrap_strata([n], seed, |[rows]| statistic(rows))
}

/// A statistic of several groups of cases, each resampled by itself so that its size stays what it is.
pub fn bootstrap_strata<const K: usize>(
    sizes: [usize; K],
    seed: u64,
    statistic: impl Fn([&[usize]; K]) -> f64,
) -> Estimate {
    let n = sizes.iter().sum();
    if sizes.iter().any(|&size| size < 2) {
        return Estimate::not_enough_data(n);
    }
    let all = sizes.map(|size| (0..size).collect::<Vec<usize>>());
    let mut rng = stream(seed, "bootstrap", &[]);
    let mut draw = all.clone();
    let mut values: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            for stratum in &mut draw {
                let size = stratum.len();
                stratum.iter_mut().for_each(|d| *d = rng.random_range(0..size));
            }
            statistic(draw.each_ref().map(Vec::as_slice))
        })
        .collect();
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((RESAMPLES - 1) as f64 * share).round() as usize];
    let value = statistic(all.each_ref().map(Vec::as_slice));
    Estimate { value, low: at(0.025), high: at(0.975), n, method: "bootstrap" }
}

/// The mean of some numbers with a bootstrap interval.
pub fn bootstrap_mean(values: &[f64], seed: u64) -> Estimate {
    bootstrap(values.len(), seed, |rows| rows.iter().map(|&i| values[i]).sum::<f64>() / rows.len() as f64)
}

/// McNemar's exact test on paired yes/no outcomes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct McNemar {
    /// Cases that only the first got right.
    pub only_first: usize,
    /// Cases that only the second got right.
    pub only_second: usize,
    /// Two-sided probability of a split at least so uneven by chance.
    pub p_value: f64,
}

/// Compares two models on the same cases: only the cases on which they differ count.
///
/// # Source
/// McNemar 1947; the exact form is a two-sided binomial test with probability one half.
///
/// # Example
/// ```
/// use hhalign::eval::stats::mcnemar;
/// let first = [true, false, false, false, false, false];
/// let second = [true, true, true, true, true, true];
/// let test = mcnemar(&first, &second);
/// assert_eq!((test.only_first, test.only_second), (0, 5));
/// assert!((test.p_value - 0.0625).abs() < 1e-12);
/// ```
pub fn mcnemar(first: &[bool], second: &[bool]) -> McNemar {
    assert_eq!(first.len(), second.len(), "paired outcomes of the same cases");
    let only_first = first.iter().zip(second).filter(|(a, b)| **a && !**b).count();
    let only_second = first.iter().zip(second).filter(|(a, b)| !**a && **b).count();
    let (n, k) = (only_first + only_second, only_first.min(only_second));
    let ln_half_n = n as f64 * 0.5f64.ln();
    let mut ln_choose = 0.0;
    let mut tail = 0.0;
    for i in 0..=k {
        if i > 0 {
            ln_choose += ((n - i + 1) as f64 / i as f64).ln();
        }
        tail += (ln_choose + ln_half_n).exp();
    }
    McNemar { only_first, only_second, p_value: (2.0 * tail).min(1.0) }
}
