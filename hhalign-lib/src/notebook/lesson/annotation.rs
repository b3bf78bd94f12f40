//! Exercises of notebook 05, on judging replies, and simulated annotators to try its numbers on.

use std::path::Path;

use rand::Rng as _;

use crate::base::error::Result;
use crate::base::rng::stream;
use crate::eval::preferences::annotation::{PAIRWISE, read_columns};
use crate::eval::preferences::judgements::{Preference, judge};
use crate::notebook::lesson::{Check, no, yes};
use crate::stats::wilson;

/// Fills a folder's file of `simulated-NAME` at random, and returns how many pairs it judged. No
/// person judges, and no reply is read: the file shows how measures of agreement behave, and says
/// nothing about any model.
///
/// Each pair has an opinion, which follows from `seed`: A, B or, one time in ten, a tie. The
/// simulated annotator gives that opinion with probability `care`, and otherwise A or B by a coin.
///
/// # Errors
/// A name or a folder that [`judge`] refuses.
///
/// # Example
/// ```
/// use hhalign::eval::preferences::agreement::Agreement;
/// use hhalign::eval::preferences::annotation::write_annotation_files;
/// use hhalign::notebook::lesson::annotation::simulate;
/// use hhalign::infer::sample::Reply;
/// let folder = std::env::temp_dir().join(format!("hhalign-simulate-{}", std::process::id()));
/// let prompts: Vec<String> = (0..80).map(|i| format!("question {i}")).collect();
/// let replies = |text: &str| vec![Reply { text: text.into(), ids: vec![1], ended: true }; 80];
/// let (yes, no) = (replies("yes"), replies("no"));
/// write_annotation_files(&folder, &prompts, ("one", &yes), ("two", &no), 1)?;
/// assert_eq!(simulate(&folder, "ann", 1.0, 7)?, 80);
/// simulate(&folder, "ben", 0.7, 7)?;
/// let alpha = Agreement::read(&folder)?.alpha();
/// assert!(alpha.n == 80 && alpha.value > 0.4 && alpha.low > 0.0, "{}", alpha.text());
/// # std::fs::remove_dir_all(folder).unwrap();
/// # Ok::<(), hhalign::base::error::Error>(())
/// ```
pub fn simulate(folder: &Path, name: &str, care: f64, seed: u64) -> Result<usize> {
    let name = format!("simulated-{name}");
    let mut opinions = stream(seed, "opinions", &[]);
    let mut mood = stream(seed, &name, &[]);
    let mut judged = 0;
    for row in read_columns(&folder.join(PAIRWISE), &["id"])? {
        let opinion = match opinions.random_range(0..20) {
            0..9 => Preference::A,
            9..18 => Preference::B,
            _ => Preference::Tie,
        };
        let coin = if mood.random::<bool>() { Preference::A } else { Preference::B };
        let said = if mood.random::<f64>() < care { opinion } else { coin };
        judged = judge(folder, &name, &row[0], Some(said))?;
    }
    Ok(judged)
}

/// Checks Cohen's kappa of two annotators who said A and A 50 times, A and B 10 times, B and A 20
/// times, and B and B 20 times.
///
/// # Example
/// ```
/// use hhalign::notebook::lesson::annotation::check_kappa;
/// assert!(check_kappa(0.348).right);
/// assert!(!check_kappa(0.7).right && check_kappa(0.7).because.contains("chance"));
/// ```
pub fn check_kappa(kappa: f64) -> Check {
    let near = |x: f64| (kappa - x).abs() < 0.005;
    if near(0.16 / 0.46) {
        return yes(
            "observed (50 + 20)/100 = 0.7; by chance 0.6 · 0.7 + 0.4 · 0.3 = 0.54; so (0.7 - \
             0.54)/(1 - 0.54) = 0.348",
        );
    }
    no(if near(0.0) {
        "put your number in, and run the cell again. First: on what share of the 100 pairs do \
         they agree?"
    } else if near(0.7) {
        "0.7 is the share on which they agree. How much would two coins with their rates reach \
         by chance?"
    } else if near(0.16) {
        "0.16 is their agreement beyond chance. Divide it by the largest agreement beyond chance"
    } else if near(0.54) {
        "0.54 is the agreement expected by chance. How far above it are they?"
    } else if !(-1.0..=1.0).contains(&kappa) {
        "kappa lies between -1 and 1"
    } else {
        "the first says A in 60 of 100 pairs, the second in 70. By chance both say A in 0.6 · \
         0.7 of the pairs, and both say B in … ?"
    })
}

/// Checks the win rate of a model with 12 wins, 6 losses and 12 ties, if a tie counts one half.
///
/// # Example
/// ```
/// use hhalign::notebook::lesson::annotation::check_win_rate;
/// assert!(check_win_rate(0.6).right);
/// assert!(check_win_rate(12.0 / 18.0).because.contains("left out"));
/// ```
pub fn check_win_rate(rate: f64) -> Check {
    let near = |x: f64| (rate - x).abs() < 0.005;
    if near(0.6) {
        return yes("(12 + 12/2)/30 = 0.6, and n is 30: a tie is a judgement too");
    }
    no(if rate == 0.0 {
        "put your number in, and run the cell again"
    } else if near(2.0 / 3.0) {
        "that is 12/18: the ties were left out. Then a model that is nearly always tied looks \
         decided"
    } else if near(0.4) {
        "that is 12/30: it counts ties as losses, which is unfair to one side"
    } else if near(0.8) {
        "that is 24/30: it counts ties as wins, which is unfair to the other side"
    } else {
        "add half a win for each tie, and divide by all judged pairs"
    })
}

/// Checks the smallest number of judged pairs that gives a win rate of one half to within ±0.1,
/// that is, a 95% Wilson interval at most 0.2 wide.
///
/// # Example
/// ```
/// use hhalign::notebook::lesson::annotation::check_width;
/// let right: Vec<usize> = (0..400).filter(|&n| check_width(n).right).collect();
/// assert_eq!(right, [93]);
/// ```
pub fn check_width(n: usize) -> Check {
    let width = |n: usize| {
        let e = wilson(n as f64 / 2.0, n);
        e.high - e.low
    };
    if n == 0 {
        return no("change the 0 to a number of pairs, and run the cell again");
    }
    if width(n) > 0.2 {
        return no(format!(
            "with n = {n} the interval is {:.3} wide: more pairs are needed",
            width(n)
        ));
    }
    if n > 1 && width(n - 1) <= 0.2 {
        let textbook = if n == 97 {
            " (97 is the textbook's answer, from ±1.96·√(p(1 - p)/n))"
        } else {
            ""
        };
        return no(format!("n = {n} is enough, but so is {}: find the smallest{textbook}", n - 1));
    }
    yes(format!(
        "with n = {n} the interval is {:.4} wide, with one pair fewer {:.4}",
        width(n),
        width(n - 1)
    ))
}
