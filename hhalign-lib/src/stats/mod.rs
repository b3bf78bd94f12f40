//! Intervals and tests: no number without its cases and its uncertainty.
//!
//! `share` counts, `bootstrap` resamples, `auc` ranks, `paired` compares two models on the same
//! cases, `power` gives sample sizes, and [`mod@format`] writes numbers. `tests/it/coverage.rs`
//! measures how often each interval covers the true value.

mod auc;
mod bootstrap;
pub mod format;
mod logistic;
mod method;
mod paired;
mod power;
mod share;

use serde::Serialize;

use self::format::Format;
pub use auc::{auc, auc_difference};
pub use bootstrap::{bootstrap_mean, bootstrap_ratio, bootstrap_score, bootstrap_t, jackknife};
pub use logistic::adjusted_rate;
pub use method::{EffectScale, Method, Test};
pub use paired::{
    McNemar, balanced_difference, binomial_test, holm, mcnemar, paired_share_difference,
    permutation_test,
};
pub use power::{
    cohen_d_paired, cohen_h, pairs_for_win_rate, prompts_for_paired_shares, prompts_for_shares,
};
pub use share::{mean_of_shares, wilson, win_rate};

/// A value with its 95% interval, its number of cases and the method of the interval.
///
/// Only the functions of this module create one, so no estimate lacks its interval.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Estimate {
    /// The value; not a number if there is not enough data.
    pub value: f64,
    /// Lower end of the 95% interval.
    pub low: f64,
    /// Upper end of the 95% interval.
    pub high: f64,
    /// Number of cases.
    pub n: usize,
    /// The method of the interval.
    pub method: Method,
}

impl Estimate {
    /// Returns an estimate without a value: nothing, or too little, was measured.
    pub fn not_enough_data(n: usize) -> Self {
        Self { value: f64::NAN, low: f64::NAN, high: f64::NAN, n, method: Method::NotEnoughData }
    }

    /// Returns an estimate without a value: the cases are too uneven for an interval.
    pub(crate) fn too_uneven(n: usize) -> Self {
        Self { method: Method::TooUneven, ..Self::not_enough_data(n) }
    }

    /// Returns a value that follows from a definition, and was not measured.
    pub fn by_definition(value: f64, n: usize) -> Self {
        Self { value, low: value, high: value, n, method: Method::ByDefinition }
    }

    /// Whether there is a value.
    pub fn is_known(&self) -> bool {
        self.value.is_finite() && self.low.is_finite() && self.high.is_finite()
    }

    /// The value and the ends of its interval, if there is one.
    pub fn known(&self) -> Option<[f64; 3]> {
        self.is_known().then_some([self.value, self.low, self.high])
    }

    /// Writes the value with its interval, or why there is none.
    pub fn format(&self, format: &Format) -> String {
        format.estimate(self.known(), self.n, self.method)
    }

    /// Writes the value with its interval and its cases: `0.912 [0.870, 0.940], n = 150`.
    pub fn text(&self) -> String {
        let cell = self.cell();
        if self.is_known() { format!("{cell}, {}", Format::TABLE.cases(self.n)) } else { cell }
    }

    /// Writes the value with its interval as a cell of a table: `0.912 [0.870, 0.940]`.
    pub fn cell(&self) -> String {
        self.format(&Format::TABLE)
    }

    /// Writes why there is no value.
    pub fn why_unknown(&self) -> String {
        Format::TABLE.unknown(self.n, self.method)
    }

    /// Returns the estimate on another scale; `to` must be monotonic.
    #[must_use]
    pub fn map(&self, to: impl Fn(f64) -> f64) -> Self {
        let (a, b) = (to(self.low), to(self.high));
        Self { value: to(self.value), low: a.min(b), high: a.max(b), ..self.clone() }
    }
}

#[doc(hidden)]
#[deprecated(since = "0.2.0", note = "use Estimate::why_unknown")]
pub fn why_unknown(method: Method, n: usize) -> String {
    Format::TABLE.unknown(n, method)
}

#[doc(hidden)]
#[deprecated(since = "0.2.0", note = "renamed to format::p_value")]
pub fn p_text(p: f64) -> String {
    format::p_value(p)
}

/// The 97.5% point of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;
