//! How large a difference is, and how many cases it takes to see it.

use statrs::distribution::{ContinuousCDF, Normal};

use super::Z;

/// Cohen's h of two shares: their difference on a scale on which it is equally easy to see everywhere. 0.2 is small, 0.5
/// medium, 0.8 large.
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

/// Mean of some paired differences over their standard deviation (Cohen's d_z).
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

/// Prompts that each of two models must answer, each prompts of its own, for their shares to be told apart at 5% (two-sided)
/// with probability `power`.
///
/// # Source
/// Cohen 1988, section 6.4: n = ((z(97.5%) + z(power)) / h)².
///
/// # Example
/// ```
/// // The student project's refusal figures would take 64 prompts for each model.
/// assert_eq!(hhalign::stats::prompts_for_shares(0.74, 0.92, 0.8), 64);
/// ```
pub fn prompts_for_shares(first: f64, second: f64, power: f64) -> usize {
    (2.0 * ((Z + quantile(power)) / cohen_h(first, second)).powi(2)).ceil() as usize
}

/// Prompts that both models must answer for McNemar's test to see a difference with probability `power`, where the first
/// alone is right on a share of them, and the second alone on another.
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
    ((Z * differ.sqrt() + quantile(power) * (differ - gain * gain).sqrt()) / gain).powi(2).ceil() as usize
}

/// Judged pairs for a win rate to be told from one half with probability `power`, where no judgement is a tie.
///
/// # Source
/// The normal approximation of the sign test: n = ((z(97.5%)/2 + z(power) √(r(1 - r))) / (r - 1/2))².
///
/// # Example
/// ```
/// assert_eq!(hhalign::stats::pairs_for_win_rate(0.68, 0.8), 59);
/// assert_eq!(hhalign::stats::pairs_for_win_rate(0.55, 0.8), 783);
/// ```
pub fn pairs_for_win_rate(rate: f64, power: f64) -> usize {
    ((Z / 2.0 + quantile(power) * (rate * (1.0 - rate)).sqrt()) / (rate - 0.5)).powi(2).ceil() as usize
}
