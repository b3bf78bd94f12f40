//! Exercises of notebook 07, on evaluation: corrected p-values, sample sizes, paired counts, and
//! conclusions from an interval.

use crate::notebook::lesson::{Check, no, yes};
use crate::stats::{binomial_test, holm, pairs_for_win_rate, wilson};

/// The p-values of the exercise on Holm's correction, metric by metric.
pub const FIVE: [f64; 5] = [0.030, 0.012, 0.300, 0.004, 0.020];

/// Checks the p-value of the second of the five metrics in [`FIVE`], corrected by Holm's method.
///
/// # Example
/// ```
/// use hhalign::notebook::lesson::evaluation::check_holm;
/// assert!(check_holm(0.048).right);
/// assert!(check_holm(0.06).because.contains("Bonferroni"));
/// ```
pub fn check_holm(p: f64) -> Check {
    let near = |x: f64| (p - x).abs() < 5e-4;
    if near(holm(&FIVE)[1]) {
        return yes(
            "0.004 is the smallest and is multiplied by 5; 0.012 comes next and is multiplied by \
             the 4 that are left: 0.048, still below 0.05",
        );
    }
    no(if p == 0.0 {
        "put your number in, and run the cell again. First: which rank has 0.012 among the five?"
    } else if near(FIVE[1]) {
        "that is the uncorrected p-value. Five were tested, and the smallest of five is more \
         often small by luck"
    } else if near(5.0 * FIVE[1]) {
        "times 5 is Bonferroni's correction, which is also safe, but stricter than necessary: \
         the smallest p-value is already done"
    } else if near(3.0 * FIVE[1]) {
        "times 3 would be right for the third smallest. How many are left after the smallest?"
    } else if near(2.0 * FIVE[1]) {
        "not times the rank, but times the number of p-values that are left, including itself"
    } else if !(0.0..=1.0).contains(&p) {
        "a p-value lies between 0 and 1"
    } else {
        "sort them; multiply the smallest by 5, the next by 4, ...; no corrected value may be \
         smaller than the one before it"
    })
}

/// Checks the number of judged pairs needed to tell a win rate of 55% from one half with a
/// probability of 0.8.
///
/// # Example
/// ```
/// use hhalign::notebook::lesson::evaluation::check_pairs;
/// assert!(check_pairs(783).right && check_pairs(800).right);
/// assert!(check_pairs(385).because.contains("half of all studies"));
/// assert!(!check_pairs(100).right && !check_pairs(5000).right);
/// ```
pub fn check_pairs(n: usize) -> Check {
    let (needed, barely) =
        (pairs_for_win_rate(0.55, 0.8), smallest(|n| wilson(0.55 * n as f64, n).low > 0.5));
    match n {
        0 => no("change the 0 to a number of pairs, and run the cell again"),
        _ if n.abs_diff(needed) * 20 <= needed => yes(format!(
            "the formula says {needed}. The distance from one half is less than a third of that \
             of 68%, and the number grows with the inverse square of the distance"
        )),
        _ if n.abs_diff(barely) <= 10 => {
            no("there the interval of exactly 55% begins at one half. But a study rarely finds \
                exactly the truth: half of all studies find less, and would miss it")
        }
        _ if n.abs_diff(pairs_for_win_rate(0.68, 0.8)) <= 10 => {
            no("that is enough for 68%, not for 55%")
        }
        _ if n < needed => {
            no("too few: more than one study in five would miss it. There is a function for it")
        }
        _ => no("that is more than enough. What is the number for a probability of 0.8?"),
    }
}

/// Checks McNemar's exact p-value: of 60 prompts the first model fails on 9 and the second on 3,
/// and on these 3 both fail.
///
/// # Example
/// ```
/// use hhalign::notebook::lesson::evaluation::check_paired;
/// assert!(check_paired(0.03125).right && check_paired(0.031).right);
/// assert!(check_paired(0.015625).because.contains("both"));
/// assert!(check_paired(0.1254).because.contains("other prompts"));
/// ```
pub fn check_paired(p: f64) -> Check {
    let near = |x: f64| (p - x).abs() < 5e-4;
    if near(binomial_test(0, 6)) {
        return yes(
            "they differ on 6 prompts, and all 6 favour the second: 2 · (1/2)⁶ = 0.03125. The \
             other 54 prompts do not say which is better",
        );
    }
    no(if p == 0.0 {
        "put your number in, and run the cell again. First: on how many prompts do the models \
         differ?"
    } else if near(0.5f64.powi(6)) {
        "that is (1/2)⁶: six heads. Six tails would be as surprising, so both count"
    } else if (p - 0.1254).abs() < 0.01 {
        "that is Fisher's test, as if each model had answered other prompts. They answered the \
         same ones, most of them with the same result"
    } else if near(binomial_test(3, 12)) {
        "that takes 3 against 9. But on those 3 both fail: only prompts on which they differ are \
         like coins"
    } else if !(0.0..=1.0).contains(&p) {
        "a p-value lies between 0 and 1"
    } else {
        "the models differ on 9 - 3 = 6 prompts. If they were equally good, each of these would \
         be a fair coin: how likely are six of a kind?"
    })
}

/// A conclusion from a difference of +0.03 [-0.01, +0.07] between two models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// "The interval holds 0, so the models are equally good."
    Equal,
    /// "The second model is better: 0.03 is what we measured."
    Better,
    /// "The gain is not above 0.07, and the loss is not above 0.01."
    Bounded,
}

/// Checks which [`Claim`] the interval supports; `None` is no answer yet.
///
/// # Example
/// ```
/// use hhalign::notebook::lesson::evaluation::{Claim, check_claim};
/// let answers = [None, Some(Claim::Equal), Some(Claim::Better), Some(Claim::Bounded)];
/// let right = answers.map(|claim| check_claim(claim).right);
/// assert_eq!(right, [false, false, false, true]);
/// ```
pub fn check_claim(claim: Option<Claim>) -> Check {
    match claim {
        None => no("put a claim in, such as Some(Claim::Better), and run the cell again"),
        Some(Claim::Equal) => no(
            "0 has not been ruled out, and neither has 0.06: an interval with 0 in it means that \
             the data is not sufficient",
        ),
        Some(Claim::Better) => no(
            "with other prompts it might have been a little below 0: the interval has both signs",
        ),
        Some(Claim::Bounded) => yes(
            "an interval rules out what lies outside it (wrongly in one of twenty such studies). \
             That is a finding, even without a small p",
        ),
    }
}

/// Checks the smallest n at which the 95% Wilson interval rules out a toxicity rate of one in a
/// hundred, if none of n replies was toxic.
///
/// # Example
/// ```
/// use hhalign::notebook::lesson::evaluation::check_none_seen;
/// let right: Vec<usize> = (0..2000).filter(|&n| check_none_seen(n).right).collect();
/// assert_eq!(right, [381]);
/// assert!(check_none_seen(300).because.contains("rule of three"));
/// ```
pub fn check_none_seen(n: usize) -> Check {
    let high = |n: usize| wilson(0.0, n).high;
    let needed = smallest(|n| high(n) < 0.01);
    match n {
        0 => no("change the 0 to a number of replies, and run the cell again"),
        _ if n == needed => yes(format!(
            "with n = {n} the interval ends at {:.5}, with one reply fewer at {:.5}",
            high(n),
            high(n - 1)
        )),
        300 => no(format!(
            "300 is the rule of three, 3/n = 0.01, for a one-sided 95% interval. Wilson's \
             interval has two sides, and ends at {:.4} there",
            high(n)
        )),
        _ if n < needed => {
            no(format!("with n = {n} it ends at {:.4}: more replies are needed", high(n)))
        }
        _ => no(format!("n = {n} is enough, but so is {}: find the smallest", n - 1)),
    }
}

/// Returns the smallest number from 1 on for which a condition holds.
fn smallest(holds: impl Fn(usize) -> bool) -> usize {
    (1..).find(|&n| holds(n)).expect("every condition here holds for some number")
}
