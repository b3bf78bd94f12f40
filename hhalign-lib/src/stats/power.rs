//! Effect sizes, and sample sizes to detect them.

use statrs::distribution::{ContinuousCDF, Normal};

use super::Z;

/// Returns Cohen's h of two shares: their difference on a scale on which equal differences are
/// equally easy to detect. 0.2 is small, 0.5 medium, 0.8 large.
///
/// # Source
/// Cohen 1988, chapter 6.
///
/// # Example
/// ```
/// assert!((hhalign::stats::cohen_h(0.74, 0.92) - 0.4966).abs() < 1e-4);
/// ```
pub fn cohen_h(first: f64, second: f64) -> f64 {
    2.0 * (second.sqrt().asin() - first.sqrt().asin())
}

/// Returns the mean of paired differences over their standard deviation (Cohen's d_z).
///
/// # Source
/// Cohen 1988, section 2.3.
///
/// # Example
/// ```
/// assert!((hhalign::stats::cohen_d_paired(&[1.0, 2.0, 3.0]) - 2.0).abs() < 1e-12);
/// ```
pub fn cohen_d_paired(differences: &[f64]) -> f64 {
    let n = differences.len() as f64;
    let mean = differences.iter().sum::<f64>() / n;
    let variance = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (n - 1.0);
    mean / variance.sqrt()
}

fn quantile(p: f64) -> f64 {
    Normal::standard().inverse_cdf(p)
}

/// Returns the number of prompts for each of two models, with separate prompts, to detect a
/// difference of their shares at 5% (two-sided) with probability `power`.
///
/// # Source
/// Cohen 1988, section 6.4: n = ((z(97.5%) + z(power)) / h)².
///
/// # Example
/// ```
/// // The refusal rates of the student project need 64 prompts for each model.
/// assert_eq!(hhalign::stats::prompts_for_shares(0.74, 0.92, 0.8), 64);
/// ```
pub fn prompts_for_shares(first: f64, second: f64, power: f64) -> usize {
    (2.0 * ((Z + quantile(power)) / cohen_h(first, second)).powi(2)).ceil() as usize
}

/// Returns the number of prompts, the same for both models, for McNemar's test to detect a
/// difference with probability `power`, given the shares of prompts on which only the first and
/// only the second is right.
///
/// # Source
/// Connor 1987, Biometrics 43, 207-211.
///
/// # Example
/// ```
/// assert_eq!(hhalign::stats::prompts_for_paired_shares(0.02, 0.10, 0.8), 145);
/// ```
pub fn prompts_for_paired_shares(only_first: f64, only_second: f64, power: f64) -> usize {
    let (differ, gain) = (only_first + only_second, only_second - only_first);
    ((Z * differ.sqrt() + quantile(power) * (differ - gain * gain).sqrt()) / gain).powi(2).ceil()
        as usize
}

/// Returns the number of judged pairs to distinguish a win rate from one half with probability
/// `power`, if no judgement is a tie.
///
/// # Source
/// The normal approximation of the sign test: n = ((z(97.5%)/2 + z(power) √(r(1 - r))) / (r -
/// 1/2))².
///
/// # Example
/// ```
/// assert_eq!(hhalign::stats::pairs_for_win_rate(0.68, 0.8), 59);
/// assert_eq!(hhalign::stats::pairs_for_win_rate(0.55, 0.8), 783);
/// ```
pub fn pairs_for_win_rate(rate: f64, power: f64) -> usize {
    ((Z / 2.0 + quantile(power) * (rate * (1.0 - rate)).sqrt()) / (rate - 0.5)).powi(2).ceil()
        as usize
}
