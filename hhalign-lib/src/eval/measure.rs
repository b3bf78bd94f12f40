//! A metric of one model, with its cases, so that two models can be compared on the same cases.

use std::ops::Range;

use serde::Serialize;

pub use super::instrument::{Better, Instrument};
use super::metrics::bleu::self_bleu;
use crate::base::error::{Error, Result};
use crate::stats::{
    EffectScale, Estimate, Test, auc, auc_difference, balanced_difference, binomial_test,
    bootstrap_mean, bootstrap_ratio, bootstrap_score, bootstrap_t, cohen_d_paired, cohen_h,
    jackknife, mcnemar, mean_of_shares, paired_share_difference, permutation_test, wilson,
    win_rate,
};

/// The outcomes of all cases, and how they are summarised.
#[derive(Debug, Clone)]
pub(super) enum Cases {
    /// A share of cases.
    Share(Vec<bool>),
    /// A mean over cases.
    Mean(Vec<f64>),
    /// The mean of scores in [0, 1], most of them low. Scores above the threshold, the second
    /// field, count as high.
    Scores(Vec<f64>, f64),
    /// Σ above / Σ below, or exp of it.
    Ratio { above: Vec<f64>, below: Vec<f64>, exp: bool },
    /// Balanced accuracy: the mean of the shares of right decisions on positive and negative cases.
    Balanced { right: Vec<bool>, positive: Vec<bool> },
    /// Area under the ROC curve: how often a positive case scores above a negative one.
    Area { scores: Vec<f64>, positive: Vec<bool> },
    /// The number of distinct n-grams divided by that of all n-grams. Each text is a list of n-gram
    /// ids.
    Distinct(Vec<Vec<u32>>),
    /// The similarity of some texts: BLEU-4 of each against all others.
    SelfBleu(Vec<String>),
    /// Wins, ties and losses; chance is one half.
    Won { wins: usize, ties: usize, losses: usize },
}

/// A metric of one model: its value, its cases, and its instrument.
///
/// Only the measuring functions create a `Measure`, so its value cannot be entered by hand.
#[derive(Debug, Clone)]
pub struct Measure {
    pub(super) name: String,
    pub(super) better: Better,
    pub(super) instrument: Instrument,
    pub(super) cases: Cases,
    pub(super) seed: u64,
    /// Whether this metric is part of another one. Such a metric is described but not tested.
    pub(super) detail: bool,
    estimate: Estimate,
}

/// Several metrics of one model that belong together.
pub trait Metrics {
    /// Returns the title for tables, with what a reader must know about the measurement.
    fn title(&self) -> String;
    /// The metrics in the order of tables.
    fn measures(&self) -> Vec<&Measure>;
}

/// The names of all perplexities. The perplexities of two models are compared by their ratio.
pub const PERPLEXITIES: [&str; 3] = [
    "perplexity of chosen replies",
    "perplexity of rejected replies",
    "perplexity under another model",
];

/// Returns whether `metric` is the name of a perplexity. Result files identify one only by its
/// name.
pub fn is_perplexity(metric: &str) -> bool {
    PERPLEXITIES.contains(&metric)
}

/// The difference between two models in a metric on the same cases.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Difference {
    /// Second - first, with its interval over cases; the ratio for a perplexity.
    pub estimate: Estimate,
    /// Probability of a difference that is at least as large if the models were alike; `None`
    /// without a test.
    pub p_value: Option<f64>,
    /// The test.
    pub test: Test,
    /// Size of the difference on a common scale; `None` without one.
    pub effect: Option<f64>,
    /// The scale.
    pub effect_name: EffectScale,
}

impl Difference {
    pub(super) fn untested(estimate: Estimate) -> Self {
        Self {
            estimate,
            p_value: None,
            test: Test::None,
            effect: None,
            effect_name: EffectScale::None,
        }
    }
}

impl Measure {
    pub(super) fn new(
        name: &str,
        better: Better,
        instrument: Instrument,
        cases: Cases,
        seed: u64,
    ) -> Self {
        let estimate = cases.estimate(seed);
        Self { name: name.into(), better, instrument, cases, seed, detail: false, estimate }
    }

    /// Creates a metric whose instrument is a formula.
    pub(super) fn plain(name: &str, better: Better, cases: Cases, seed: u64) -> Self {
        Self::new(name, better, Instrument::Formula, cases, seed)
    }

    /// Returns the metric as a part of another one: its difference is not tested, so that the
    /// family of tests does not grow with every view of one metric.
    pub(super) fn into_detail(self) -> Self {
        Self { detail: true, ..self }
    }

    /// The value with its interval.
    pub fn estimate(&self) -> &Estimate {
        &self.estimate
    }

    /// The value alone.
    pub fn value(&self) -> f64 {
        self.estimate.value
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The instrument.
    pub fn instrument(&self) -> &Instrument {
        &self.instrument
    }

    /// Returns whether the metric is a perplexity: the exponential of a ratio of sums. The values
    /// of two models are then compared by their quotient.
    pub fn is_perplexity(&self) -> bool {
        matches!(self.cases, Cases::Ratio { exp: true, .. })
    }

    /// Returns the metric under another name, for a table with several of its kind.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Compares a win rate with one half; `None` for any other metric.
    pub fn against_chance(&self) -> Option<Difference> {
        self.cases.against_chance(&self.estimate)
    }

    /// Compares with a second model on the same cases.
    ///
    /// # Errors The two measures have different names, instruments or cases, so they are not
    /// comparable.
    pub fn compare(&self, second: &Self) -> Result<Difference> {
        if self.instrument != second.instrument || self.name != second.name {
            let got = format!(
                "{} by {:?}, {} by {:?}",
                self.name, self.instrument, second.name, second.instrument
            );
            return Err(Error::new(
                "two values are comparable only if one instrument measured both",
                got,
                "measure both with the same instrument",
            ));
        }
        if self.estimate.n != second.estimate.n || self.seed != second.seed {
            let got = format!(
                "n = {} and {}, seeds {} and {}",
                self.estimate.n, second.estimate.n, self.seed, second.seed
            );
            return Err(Error::new(
                "two models are compared on the same cases",
                got,
                "measure both on the same prompts",
            ));
        }
        let difference = self.cases.compare(&second.cases, self.seed)?;
        Ok(if self.detail { Difference::untested(difference.estimate) } else { difference })
    }
}

/// The number of groups of texts that the jackknife of self-BLEU leaves out in turn. Leaving out
/// one text at a time would take too long.
const GROUPS: usize = 20;

/// Returns the mean self-BLEU-4 of the texts that are not left out.
fn mean_self_bleu(texts: &[String], left_out: Range<usize>) -> f64 {
    let kept: Vec<String> =
        texts[..left_out.start].iter().chain(&texts[left_out.end..]).cloned().collect();
    mean(&self_bleu(&kept, 4))
}

/// Returns the share of distinct ids among all ids of the texts that are not left out, or 0 if
/// there are no ids.
fn distinct_share(texts: &[Vec<u32>], left_out: Range<usize>) -> f64 {
    let largest = texts.iter().flatten().max().map_or(0, |g| *g as usize + 1);
    let (mut seen, mut total, mut different) = (vec![false; largest], 0usize, 0usize);
    for text in texts[..left_out.start].iter().chain(&texts[left_out.end..]) {
        for &gram in text {
            different += usize::from(!std::mem::replace(&mut seen[gram as usize], true));
        }
        total += text.len();
    }
    if total == 0 { 0.0 } else { different as f64 / total as f64 }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn of_kind<T: Copy>(values: &[T], kinds: &[bool], kind: bool) -> Vec<T> {
    values.iter().zip(kinds).filter(|(_, k)| **k == kind).map(|(v, _)| *v).collect()
}

fn share(cases: &[bool]) -> Estimate {
    wilson(cases.iter().filter(|c| **c).count() as f64, cases.len())
}

impl Cases {
    fn estimate(&self, seed: u64) -> Estimate {
        match self {
            Self::Share(cases) => share(cases),
            Self::Mean(values) => bootstrap_mean(values, seed),
            Self::Scores(scores, high) => bootstrap_score(scores, *high, seed),
            Self::Ratio { above, below, exp: false } => bootstrap_ratio(above, below, seed),
            Self::Ratio { above, below, exp: true } => {
                bootstrap_ratio(above, below, seed).map(f64::exp)
            }
            Self::Balanced { right, positive } => {
                let of = |kind: bool| share(&of_kind(right, positive, kind));
                mean_of_shares(&of(true), &of(false))
            }
            Self::Area { scores, positive } => auc(scores, positive),
            Self::Distinct(texts) => {
                let n = texts.len();
                jackknife(n, n, |left_out| distinct_share(texts, left_out))
                    .map(|x| x.clamp(0.0, 1.0))
            }
            Self::SelfBleu(texts) => {
                jackknife(texts.len(), GROUPS, |left_out| mean_self_bleu(texts, left_out))
            }
            Self::Won { wins, ties, losses } => win_rate(*wins, *ties, *losses),
        }
    }

    /// Returns the win rate minus one half, with the sign test.
    fn against_chance(&self, estimate: &Estimate) -> Option<Difference> {
        let Self::Won { wins, losses, .. } = self else { return None };
        let p = binomial_test(*wins, wins + losses);
        let apart = estimate.map(|rate| rate - 0.5);
        Some(tested(apart, p, Test::ExactSign, cohen_h(0.5, estimate.value), EffectScale::CohenH))
    }

    fn compare(&self, second: &Self, seed: u64) -> Result<Difference> {
        match (self, second) {
            (Self::Share(a), Self::Share(b)) => {
                let (effect, p) = (cohen_h(share(a).value, share(b).value), mcnemar(a, b).p_value);
                Ok(tested(
                    paired_share_difference(a, b),
                    p,
                    Test::ExactMcNemar,
                    effect,
                    EffectScale::CohenH,
                ))
            }
            (Self::Mean(a), Self::Mean(b)) | (Self::Scores(a, _), Self::Scores(b, _)) => {
                let gains: Vec<f64> = a.iter().zip(b).map(|(a, b)| b - a).collect();
                let of_signs = |swap: &[bool]| signed_sum(&gains, swap) / gains.len() as f64;
                let p = permutation_test(gains.len(), seed, of_signs);
                Ok(tested(
                    bootstrap_mean(&gains, seed),
                    p,
                    Test::PermutationOfSigns,
                    cohen_d_paired(&gains),
                    EffectScale::CohenDz,
                ))
            }
            (Self::Ratio { above: a, below: x, exp }, Self::Ratio { above: b, below: y, .. }) => {
                Ok(compare_ratios([a, x], [b, y], *exp, seed))
            }
            (
                Self::Balanced { right: a, positive },
                Self::Balanced { right: b, positive: other },
            ) if positive == other => {
                let of = |kind: bool| (of_kind(a, positive, kind), of_kind(b, positive, kind));
                let ((a1, b1), (a0, b0)) = (of(true), of(false));
                let e = balanced_difference([(&a1, &b1), (&a0, &b0)]);
                let (first, second) = (self.estimate(seed).value, second.estimate(seed).value);
                Ok(tested(
                    e,
                    balanced_p(&[(a1, b1), (a0, b0)], seed),
                    Test::Permutation,
                    cohen_h(first, second),
                    EffectScale::CohenH,
                ))
            }
            (Self::Area { scores: a, positive }, Self::Area { scores: b, positive: other })
                if positive == other =>
            {
                Ok(Difference::untested(auc_difference(a, b, positive)))
            }
            (Self::Distinct(a), Self::Distinct(b)) => {
                let gain = |left_out: Range<usize>| {
                    distinct_share(b, left_out.clone()) - distinct_share(a, left_out)
                };
                Ok(Difference::untested(jackknife(a.len(), a.len(), gain)))
            }
            (Self::SelfBleu(a), Self::SelfBleu(b)) => {
                let gain = |left_out: Range<usize>| {
                    mean_self_bleu(b, left_out.clone()) - mean_self_bleu(a, left_out)
                };
                Ok(Difference::untested(jackknife(a.len(), GROUPS, gain)))
            }
            _ => {
                let got = "cases of different kinds, or labels that differ";
                Err(Error::new(
                    "two models are compared on the same cases",
                    got,
                    "measure both on the same prompts",
                ))
            }
        }
    }
}

fn tested(
    estimate: Estimate,
    p: f64,
    test: Test,
    effect: f64,
    effect_name: EffectScale,
) -> Difference {
    // A test needs no interval: the p-value is valid even if the cases are too skewed for one.
    let effect = Some(effect).filter(|e| e.is_finite());
    let p_value = Some(p).filter(|_| estimate.n > 0);
    Difference { estimate, p_value, test, effect, effect_name }
}

fn signed_sum(gains: &[f64], swap: &[bool]) -> f64 {
    gains.iter().zip(swap).map(|(g, s)| if *s { -g } else { *g }).sum()
}

fn compare_ratios([a, x]: [&[f64]; 2], [b, y]: [&[f64]; 2], exp: bool, seed: u64) -> Difference {
    let rows: Vec<[f64; 4]> = (0..a.len()).map(|i| [a[i], x[i], b[i], y[i]]).collect();
    let e = bootstrap_t(&rows, seed, |[a, x, b, y]| b / y - a / x);
    let difference = |swap: &[bool]| {
        let mut sums = [0.0; 4];
        for (row, swap) in rows.iter().zip(swap) {
            let [a, x, b, y] = *row;
            let row = if *swap { [b, y, a, x] } else { *row };
            sums.iter_mut().zip(row).for_each(|(s, r)| *s += r);
        }
        sums[2] / sums[3] - sums[0] / sums[1]
    };
    let p = permutation_test(rows.len(), seed, difference);
    let (first, second) = (
        a.iter().sum::<f64>() / x.iter().sum::<f64>(),
        b.iter().sum::<f64>() / y.iter().sum::<f64>(),
    );
    let (per_first, per_second) = (mean(x), mean(y));
    let influence: Vec<f64> = rows
        .iter()
        .map(|[a, x, b, y]| (b - second * y) / per_second - (a - first * x) / per_first)
        .collect();
    let effect =
        (second - first) / mean(&influence.iter().map(|i| i * i).collect::<Vec<_>>()).sqrt();
    tested(
        if exp { e.map(f64::exp) } else { e },
        p,
        Test::Permutation,
        effect,
        EffectScale::CohenDz,
    )
}

/// Tests the difference of balanced accuracies by exchanging the outcomes of the models.
fn balanced_p(kinds: &[(Vec<bool>, Vec<bool>); 2], seed: u64) -> f64 {
    let gain = |a: &bool, b: &bool, n: usize| (f64::from(*b) - f64::from(*a)) / n as f64;
    let of_kind = |(a, b): &(Vec<bool>, Vec<bool>)| {
        a.iter().zip(b).map(|(x, y)| gain(x, y, a.len())).collect::<Vec<_>>()
    };
    let gains = kinds.iter().flat_map(of_kind).collect::<Vec<_>>();
    permutation_test(gains.len(), seed, |swap| signed_sum(&gains, swap))
}
