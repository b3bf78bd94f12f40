//! Intervals and tests: no figure without its number of cases and its uncertainty.
//!
//! `share` counts, `bootstrap` resamples, `auc` ranks, `paired` compares two models on the same cases, `power` says how
//! many cases are needed. How often each interval covers the truth is measured by `examples/coverage`.

mod auc;
mod bootstrap;
mod logistic;
mod method;
mod paired;
mod power;
mod share;

use serde::Serialize;

pub use auc::{auc, auc_difference};
pub use bootstrap::{bootstrap_mean, bootstrap_ratio, bootstrap_score, bootstrap_t, jackknife};
pub use logistic::adjusted_rate;
pub use method::{EffectScale, Method, Test};
pub use paired::{
    McNemar, balanced_difference, binomial_test, holm, mcnemar, paired_share_difference, permutation_test,
};
pub use power::{cohen_d_paired, cohen_h, pairs_for_win_rate, prompts_for_paired_shares, prompts_for_shares};
pub use share::{mean_of_shares, wilson, win_rate};

/// A figure with its 95% interval, its number of cases and how the interval was made.
///
/// Only the functions of this module make one, so that none stands without its interval.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
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
    pub method: Method,
}

impl Estimate {
    /// What stands where nothing, or too little, was measured.
    pub fn not_enough_data(n: usize) -> Self {
        Self { value: f64::NAN, low: f64::NAN, high: f64::NAN, n, method: Method::NotEnoughData }
    }

    /// What stands where there are cases enough, but so uneven ones that no interval would hold.
    pub(crate) fn too_uneven(n: usize) -> Self {
        Self { method: Method::TooUneven, ..Self::not_enough_data(n) }
    }

    /// Why there is no figure, in words.
    pub fn why_unknown(&self) -> String {
        why_unknown(self.method, self.n)
    }

    /// A figure that follows from a definition, and was not measured.
    pub fn by_definition(value: f64, n: usize) -> Self {
        Self { value, low: value, high: value, n, method: Method::ByDefinition }
    }

    /// Whether there is a figure.
    pub fn is_known(&self) -> bool {
        self.value.is_finite() && self.low.is_finite() && self.high.is_finite()
    }

    /// The figure as text: `0.912 [0.870, 0.940], n = 150`.
    pub fn text(&self) -> String {
        if !self.is_known() {
            return self.why_unknown();
        }
        format!("{:.3} [{:.3}, {:.3}], n = {}", self.value, self.low, self.high, self.n)
    }

    /// The same figure on another scale; `to` must rise or fall throughout.
    #[must_use]
    pub fn map(&self, to: impl Fn(f64) -> f64) -> Self {
        let (a, b) = (to(self.low), to(self.high));
        Self { value: to(self.value), low: a.min(b), high: a.max(b), ..self.clone() }
    }
}

/// Why a figure is missing, from its method and its number of cases.
pub fn why_unknown(method: Method, n: usize) -> String {
    match method {
        Method::TooUneven => format!("cases too uneven for an interval, n = {n}"),
        _ => format!("not enough data, n = {n}"),
    }
}

/// A p-value as text.
pub fn p_text(p: f64) -> String {
    if p < 1e-4 { "< 0.0001".into() } else { format!("{p:.4}") }
}

/// The 97.5% point of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;
