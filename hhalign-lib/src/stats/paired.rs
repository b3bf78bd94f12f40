//! Tests of two models on the same cases, and correction for many tests.

use rand::Rng as _;
use serde::Serialize;
use statrs::distribution::{Binomial, Discrete, DiscreteCDF};

use super::format::p_value;
use super::{Estimate, Method, Z};
use crate::base::error::Result;
use crate::base::rng::stream;
use crate::show::table::{Column, Table};

/// McNemar's exact test on paired yes/no outcomes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct McNemar {
    /// Number of cases that only the first got right.
    pub only_first: usize,
    /// Number of cases that only the second got right.
    pub only_second: usize,
    /// Two-sided probability of a split that is at least as uneven, by chance.
    pub p_value: f64,
}

impl McNemar {
    /// Returns the test as a table of one row, under the names of the two models.
    ///
    /// # Errors
    /// A failure of the table library.
    ///
    /// # Example
    /// ```
    /// let test = hhalign::stats::mcnemar(&[true, false], &[true, true]);
    /// assert_eq!(test.table("old", "new")?.value("only new right", 0)?, "1");
    /// # Ok::<(), hhalign::base::error::Error>(())
    /// ```
    pub fn table(&self, first: &str, second: &str) -> Result<Table> {
        Table::new(
            "Same prompts, both models (exact McNemar test)",
            vec![
                Column::int(format!("only {first} right"), vec![self.only_first as i64]),
                Column::int(format!("only {second} right"), vec![self.only_second as i64]),
                Column::text("p", vec![p_value(self.p_value)]),
            ],
        )
    }
}

/// Compares two models on the same cases; only the cases on which they differ count.
///
/// # Source
/// McNemar 1947; the exact form is a two-sided binomial test with probability one half.
///
/// # Example
/// ```
/// use hhalign::stats::mcnemar;
/// let first = [true, false, false, false, false, false];
/// let second = [true, true, true, true, true, true];
/// let test = mcnemar(&first, &second);
/// assert_eq!((test.only_first, test.only_second), (0, 5));
/// assert!((test.p_value - 0.0625).abs() < 1e-12);
/// ```
pub fn mcnemar(first: &[bool], second: &[bool]) -> McNemar {
    let (only_first, only_second) = discordant(first, second);
    McNemar {
        only_first,
        only_second,
        p_value: binomial_test(only_second, only_first + only_second),
    }
}

fn discordant(first: &[bool], second: &[bool]) -> (usize, usize) {
    assert_eq!(first.len(), second.len(), "paired outcomes of the same cases");
    let only = |a: &[bool], b: &[bool]| a.iter().zip(b).filter(|(a, b)| **a && !**b).count();
    (only(first, second), only(second, first))
}

/// Returns the p-value of the two-sided exact test of `k` successes in `n` against one half.
///
/// # Source
/// Clopper and Pearson 1934; with probability one half, twice the smaller tail.
///
/// # Example
/// ```
/// assert!((hhalign::stats::binomial_test(9, 10) - 0.021484375).abs() < 1e-12);
/// ```
pub fn binomial_test(k: usize, n: usize) -> f64 {
    if n == 0 {
        return 1.0;
    }
    let coin = Binomial::new(0.5, n as u64).expect("one half is a probability");
    let tail = k.min(n - k) as u64;
    // Few terms are summed, which is exact; many use the distribution function.
    let below =
        if tail < 1000 { (0..=tail).map(|i| coin.ln_pmf(i).exp()).sum() } else { coin.cdf(tail) };
    (2.0 * below).min(1.0)
}

/// Returns the share of the second - the share of the first on the same cases, with Bonett and
/// Price's interval.
///
/// For the interval only, one case is added to each of the two counts on which the models differ.
///
/// # Source
/// Bonett and Price 2012, Journal of Educational and Behavioral Statistics 37, 479-488.
///
/// # Example
/// ```
/// let (first, second) = ([true, false].repeat(8), vec![true; 16]);
/// let e = hhalign::stats::paired_share_difference(&first, &second);
/// assert!((e.value - 0.5).abs() < 1e-12 && e.low > 0.1 && e.high < 0.8);
/// ```
pub fn paired_share_difference(first: &[bool], second: &[bool]) -> Estimate {
    match bonett_price(first, second, 1.0) {
        Some(gain) => gain.estimate(first.len()),
        None => Estimate::not_enough_data(0),
    }
}

/// Returns the difference of two balanced accuracies: the mean of [`paired_share_difference`] over
/// two kinds of cases. Half a case is added to each count, since there are two kinds.
///
/// # Shapes
/// For each kind, the outcomes of the first and of the second model
///
/// # Source
/// As [`paired_share_difference`].
///
/// # Example
/// ```
/// let (all, none) = (vec![true; 20], vec![false; 20]);
/// let e = hhalign::stats::balanced_difference([(&none, &all), (&all, &all)]);
/// assert!((e.value - 0.5).abs() < 1e-12 && e.n == 40 && e.low > 0.3 && e.high < 0.6);
/// ```
pub fn balanced_difference(kinds: [(&[bool], &[bool]); 2]) -> Estimate {
    let n = kinds[0].0.len() + kinds[1].0.len();
    let [Some(a), Some(b)] = kinds.map(|(first, second)| bonett_price(first, second, 0.5)) else {
        return Estimate::not_enough_data(n);
    };
    let mean = |a: f64, b: f64| (a + b) / 2.0;
    let (value, centre) = (mean(a.value, b.value), mean(a.centre, b.centre));
    Gain { value, centre, variance: (a.variance + b.variance) / 4.0 }.estimate(n)
}

/// A difference of shares, with the centre and the variance of its interval.
struct Gain {
    value: f64,
    centre: f64,
    variance: f64,
}

/// Returns the difference of two shares, with `added` cases added to each count for its interval.
fn bonett_price(first: &[bool], second: &[bool], added: f64) -> Option<Gain> {
    let (n, (only_first, only_second)) = (first.len() as f64, discordant(first, second));
    let share = |count: usize| (count as f64 + added) / (n + 2.0 * added);
    let (a, b) = (share(only_first), share(only_second));
    let variance = (a + b - (b - a).powi(2)) / (n + 2.0 * added);
    let value = (only_second as f64 - only_first as f64) / n;
    (n > 0.0).then_some(Gain { value, centre: b - a, variance })
}

impl Gain {
    fn estimate(&self, n: usize) -> Estimate {
        let &Self { value, centre, variance } = self;
        let half = Z * variance.sqrt();
        let (low, high) =
            ((centre - half).max(-1.0).min(value), (centre + half).min(1.0).max(value));
        Estimate { value, low, high, n, method: Method::BonettPrice }
    }
}

/// Returns the probability of a difference that is at least as large, if each case's two outcomes
/// were assigned to the models at random.
///
/// The argument of `difference` says, case by case, whether the outcomes are exchanged. The test is
/// exact up to the number of draws: 9,999 and the observed one.
///
/// # Source
/// Fisher 1935; with random draws Phipson and Smyth 2010, arXiv 1603.05766.
///
/// # Example
/// ```
/// let gain = [0.3, 0.1, 0.4, 0.2, 0.5, 0.1, 0.3, 0.2];
/// let signed = |(g, swap): (&f64, &bool)| if *swap { -g } else { *g };
/// let difference = |swap: &[bool]| gain.iter().zip(swap).map(signed).sum::<f64>();
/// let p = hhalign::stats::permutation_test(gain.len(), 1, difference);
/// assert!(p > 0.004 && p < 0.013, "all eight signs alike: 2 in 256, but {p}");
/// ```
pub fn permutation_test(n: usize, seed: u64, difference: impl Fn(&[bool]) -> f64) -> f64 {
    const DRAWS: usize = 9999;
    let mut swap = vec![false; n];
    let observed = difference(&swap).abs();
    // Sums in another order differ in the last digits.
    let limit = observed * (1.0 - 1e-9);
    let mut rng = stream(seed, "permutation", &[]);
    let mut as_large = 0;
    for _ in 0..DRAWS {
        for chunk in swap.chunks_mut(64) {
            let bits: u64 = rng.random();
            chunk.iter_mut().enumerate().for_each(|(i, s)| *s = bits >> i & 1 == 1);
        }
        as_large += usize::from(difference(&swap).abs() >= limit);
    }
    (as_large + 1) as f64 / (DRAWS + 1) as f64
}

/// Returns p-values corrected for their number: rejecting those below 0.05 keeps the family-wise
/// error rate at 5%.
///
/// # Source
/// Holm 1979, Scandinavian Journal of Statistics 6, 65-70.
///
/// # Example
/// ```
/// let corrected = hhalign::stats::holm(&[0.01, 0.04, 0.03]);
/// assert!(corrected.iter().zip([0.03, 0.06, 0.06]).all(|(a, b)| (a - b).abs() < 1e-12));
/// ```
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let (mut corrected, mut largest) = (vec![0.0; p_values.len()], 0.0f64);
    for (rank, &i) in order.iter().enumerate() {
        largest = largest.max((p_values.len() - rank) as f64 * p_values[i]).min(1.0);
        corrected[i] = largest;
    }
    corrected
}
