//! Shares of cases, and rates computed from them.

use super::{Estimate, Method, Z};

/// Returns a share with its Wilson interval.
///
/// # Source
/// Wilson 1927, JASA 22, 209-212.
///
/// # Example
/// ```
/// let e = hhalign::stats::wilson(7.0, 50);
/// assert!((e.low - 0.0695083).abs() < 1e-6 && (e.high - 0.2618619).abs() < 1e-6);
/// ```
pub fn wilson(successes: f64, n: usize) -> Estimate {
    score_interval(successes, 0.0, n, Method::Wilson)
}

/// Returns (wins + ties / 2) / judged, with a score interval that takes into account that a tie
/// varies less than a win or a loss.
///
/// The interval is the set of rates p with |p̂ - p| <= z √((p(1 - p) - t/4)/n), where t is the
/// share of ties, shrunk to ties / (n + z²) so that the interval has a width even if all judgements
/// are ties. Without ties it is Wilson's.
///
/// # Source
/// Wilson 1927 for the form; the variance is that of a variable with the values 1, 1/2 and 0.
///
/// # Example
/// ```
/// use hhalign::stats::{win_rate, wilson};
/// let (with_ties, without) = (win_rate(20, 20, 10), wilson(30.0, 50));
/// assert_eq!(with_ties.value, 0.6);
/// assert!(with_ties.low > without.low && with_ties.high < without.high);
/// ```
pub fn win_rate(wins: usize, ties: usize, losses: usize) -> Estimate {
    let n = wins + ties + losses;
    score_interval(
        wins as f64 + ties as f64 / 2.0,
        ties as f64 / (n as f64 + Z * Z),
        n,
        Method::WilsonTies,
    )
}

fn score_interval(successes: f64, tied: f64, n: usize, method: Method) -> Estimate {
    if n == 0 {
        return Estimate::not_enough_data(0);
    }
    let (p, a) = (successes / n as f64, Z * Z / n as f64);
    let centre = (p + a / 2.0) / (1.0 + a);
    let half = (a * (p * (1.0 - p) + a / 4.0 - tied * (1.0 + a) / 4.0)).max(0.0).sqrt() / (1.0 + a);
    // At 0 and 1 the formula gives the end up to rounding.
    let low = if successes == 0.0 { 0.0 } else { (centre - half).max(0.0) };
    let high = if successes == n as f64 { 1.0 } else { (centre + half).min(1.0) };
    Estimate { value: p, low, high, n, method }
}

/// Returns the mean of two independent shares; its interval is combined from theirs.
///
/// # Source
/// The square-and-add method: Newcombe 1998, Statistics in Medicine 17, 873-890.
///
/// # Example
/// ```
/// use hhalign::stats::{mean_of_shares, wilson};
/// let e = mean_of_shares(&wilson(45.0, 50), &wilson(35.0, 50));
/// assert!((e.value - 0.8).abs() < 1e-12 && e.n == 100 && e.low < 0.8 && e.high > 0.8);
/// ```
pub fn mean_of_shares(a: &Estimate, b: &Estimate) -> Estimate {
    if !a.is_known() || !b.is_known() {
        return Estimate::not_enough_data(a.n + b.n);
    }
    let value = (a.value + b.value) / 2.0;
    let down = (a.value - a.low).hypot(b.value - b.low) / 2.0;
    let up = (a.high - a.value).hypot(b.high - b.value) / 2.0;
    Estimate {
        value,
        low: value - down,
        high: value + up,
        n: a.n + b.n,
        method: Method::WilsonSquareAndAdd,
    }
}
