//! Methods of intervals, tests and scales of effects as types, with the names that files hold.

use std::fmt;

use serde::{Serialize, Serializer};

/// The method of a 95% interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// [`wilson`](super::wilson), for a share.
    Wilson,
    /// [`win_rate`](super::win_rate), for a rate in which a tie counts one half.
    WilsonTies,
    /// [`mean_of_shares`](super::mean_of_shares), for the mean of two independent shares.
    WilsonSquareAndAdd,
    /// [`bootstrap_t`](super::bootstrap_t) and the functions that use it.
    BootstrapT,
    /// [`bootstrap_score`](super::bootstrap_score), for scores of which none is high.
    BootstrapTMissed,
    /// [`jackknife`](super::jackknife).
    Jackknife,
    /// [`auc`](super::auc).
    DeLongLogit,
    /// [`auc_difference`](super::auc_difference).
    DeLongPaired,
    /// [`adjusted_rate`](super::adjusted_rate).
    LogisticRobust,
    /// [`paired_share_difference`](super::paired_share_difference) and
    /// [`balanced_difference`](super::balanced_difference).
    BonettPrice,
    /// No interval: the value follows from a definition.
    ByDefinition,
    /// No value: there are too few cases.
    NotEnoughData,
    /// No value: there are enough cases, but they are too uneven for an interval.
    TooUneven,
}

impl Method {
    /// All variants.
    pub const ALL: [Self; 13] = [
        Self::Wilson,
        Self::WilsonTies,
        Self::WilsonSquareAndAdd,
        Self::BootstrapT,
        Self::BootstrapTMissed,
        Self::Jackknife,
        Self::DeLongLogit,
        Self::DeLongPaired,
        Self::LogisticRobust,
        Self::BonettPrice,
        Self::ByDefinition,
        Self::NotEnoughData,
        Self::TooUneven,
    ];

    /// The name in tables and files.
    pub fn words(self) -> &'static str {
        match self {
            Self::Wilson => "Wilson",
            Self::WilsonTies => "Wilson, ties one half",
            Self::WilsonSquareAndAdd => "Wilson, square-and-add",
            Self::BootstrapT => "bootstrap-t",
            Self::BootstrapTMissed => "bootstrap-t, and what may be missed",
            Self::Jackknife => "jackknife",
            Self::DeLongLogit => "DeLong, logit",
            Self::DeLongPaired => "DeLong, paired",
            Self::LogisticRobust => "logistic, robust",
            Self::BonettPrice => "Bonett-Price",
            Self::ByDefinition => "by definition",
            Self::NotEnoughData => "not enough data",
            Self::TooUneven => "too uneven",
        }
    }

    /// Returns the method of this name; `None` for any other, such as one of a later version.
    pub fn from_words(words: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.words() == words)
    }

    /// Whether the value is a share of cases, which reports show in percent.
    pub fn is_share(self) -> bool {
        matches!(self, Self::Wilson | Self::WilsonTies | Self::WilsonSquareAndAdd)
    }
}

/// The test of a p-value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// [`mcnemar`](super::mcnemar), on shares of the same cases.
    ExactMcNemar,
    /// [`permutation_test`](super::permutation_test) on the signs of paired differences.
    PermutationOfSigns,
    /// [`permutation_test`](super::permutation_test) on which model gave which outcome.
    Permutation,
    /// [`binomial_test`](super::binomial_test) of wins against losses.
    ExactSign,
    /// No test.
    None,
}

impl Test {
    /// The name in tables and files.
    pub fn words(self) -> &'static str {
        match self {
            Self::ExactMcNemar => "exact McNemar",
            Self::PermutationOfSigns => "permutation of signs",
            Self::Permutation => "permutation",
            Self::ExactSign => "exact sign test",
            Self::None => "none",
        }
    }
}

/// The scale of an effect size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EffectScale {
    /// [`cohen_h`](super::cohen_h), for shares.
    CohenH,
    /// [`cohen_d_paired`](super::cohen_d_paired): mean difference over its standard deviation from
    /// case to case.
    CohenDz,
    /// No effect size.
    None,
}

impl EffectScale {
    /// All variants.
    pub const ALL: [Self; 3] = [Self::CohenH, Self::CohenDz, Self::None];

    /// The name in tables and files.
    pub fn words(self) -> &'static str {
        match self {
            Self::CohenH => "Cohen's h",
            Self::CohenDz => "Cohen's d_z",
            Self::None => "none",
        }
    }

    /// Returns the scale of this name; `None` for any other, such as one of a later version.
    pub fn from_words(words: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scale| scale.words() == words)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

impl fmt::Display for EffectScale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

impl Serialize for Method {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.words())
    }
}

impl Serialize for Test {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.words())
    }
}

impl Serialize for EffectScale {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.words())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{
        Estimate, adjusted_rate, auc, auc_difference, balanced_difference, bootstrap_mean,
        bootstrap_score, jackknife, mean_of_shares, paired_share_difference, wilson, win_rate,
    };

    #[test]
    fn names_lead_back_to_the_method_and_files_hold_them() {
        for method in Method::ALL {
            assert_eq!(Method::from_words(method.words()), Some(method));
            assert_eq!(serde_json::to_value(method).unwrap(), method.to_string());
        }
        for scale in EffectScale::ALL {
            assert_eq!(EffectScale::from_words(scale.words()), Some(scale));
            assert_eq!(serde_json::to_value(scale).unwrap(), scale.words());
        }
        assert_eq!(
            (Method::from_words("Wilson's"), EffectScale::from_words("Cohen's")),
            (None, None)
        );
        assert_eq!(serde_json::to_value(Test::ExactSign).unwrap(), "exact sign test");
    }

    #[test]
    fn every_interval_names_its_method() {
        let (right, wrong) = ([true, true, true, false].repeat(10), [false, true].repeat(20));
        let scores: Vec<f64> = (0..40).map(|i| f64::from(i % 7) / 10.0).collect();
        let share = wilson(3.0, 4);
        let made: [(Estimate, Method); 11] = [
            (share.clone(), Method::Wilson),
            (win_rate(1, 1, 1), Method::WilsonTies),
            (mean_of_shares(&share, &share), Method::WilsonSquareAndAdd),
            (bootstrap_mean(&scores, 0), Method::BootstrapT),
            (bootstrap_score(&scores, 0.9, 0), Method::BootstrapTMissed),
            (jackknife(40, 40, |out| (40 - out.len() + out.start % 3) as f64), Method::Jackknife),
            (auc(&scores, &wrong), Method::DeLongLogit),
            (auc_difference(&scores, &scores, &wrong), Method::DeLongPaired),
            (adjusted_rate(&[1.0, 0.0].repeat(20), &scores), Method::LogisticRobust),
            (paired_share_difference(&right, &wrong), Method::BonettPrice),
            (balanced_difference([(&right, &wrong), (&right, &wrong)]), Method::BonettPrice),
        ];
        for (estimate, method) in made {
            assert_eq!(estimate.method, method, "{}", estimate.text());
        }
        assert_eq!(wilson(0.0, 0).method, Method::NotEnoughData);
        let shares: Vec<Method> = Method::ALL.into_iter().filter(|m| m.is_share()).collect();
        assert_eq!(shares, [Method::Wilson, Method::WilsonTies, Method::WilsonSquareAndAdd]);
    }
}
