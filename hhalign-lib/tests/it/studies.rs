//! Simulated studies of the lesson held to exact coverages, and its word tests to a count by hand.

use hhalign::notebook::lesson::studies::{Interval, Urn, frequent_words, word_tests};
use hhalign::prelude::*;

const STUDIES: usize = 4000;

/// Coverage by scipy: the sum of `binom.pmf(k, n, p)` over all k whose interval holds p; Wilson's
/// ends from statsmodels, the textbook's from numpy's `mean` and `std(ddof=1)`.
const EXACT: [(usize, usize, usize, f64, f64); 4] = [
    // ones, zeros, n, Wilson, textbook
    (68, 32, 50, 0.952_685_8, 0.929_590_6),
    (1, 49, 50, 0.921_571_7, 0.635_352_1),
    (9, 1, 50, 0.970_308_3, 0.878_916_6),
    (68, 32, 25, 0.949_345_4, 0.909_039_2),
];

fn assert_near(found: f64, exact: f64, what: &str) {
    let four_errors = 4.0 * (exact * (1.0 - exact) / STUDIES as f64).sqrt();
    assert!((found - exact).abs() < four_errors, "{what}: {found} simulated, {exact} exact");
}

#[test]
fn simulated_coverage_is_the_exact_one() {
    for (ones, zeros, n, by_wilson, by_textbook) in EXACT {
        let urn = Urn::balls(ones, zeros).unwrap();
        for (interval, exact) in [(Interval::Wilson, by_wilson), (Interval::Textbook, by_textbook)]
        {
            let covered = urn.studies(n, STUDIES, interval, 1).unwrap().covered();
            assert_eq!(covered.n, STUDIES, "each of them gives an interval");
            assert_near(
                covered.value,
                exact,
                &format!("{ones} and {zeros}, n = {n}, {}", interval.name()),
            );
        }
    }
}

#[test]
fn simulated_power_is_the_exact_one() {
    // Σ binom.pmf(k, n, 0.68) over all k whose Wilson interval lies above one half.
    let urn = Urn::balls(68, 32).unwrap();
    for (n, exact) in [(30, 0.493_954_1), (59, 0.769_955_2)] {
        let power = urn.studies(n, STUDIES, Interval::Wilson, 2).unwrap().above(0.5);
        assert_near(power.value, exact, &format!("n = {n}"));
    }
}

#[test]
fn misses_of_a_skewed_urn_lie_on_one_side() {
    let times = (0..1000).map(|i| -(1.0 - (f64::from(i) + 0.5) / 1000.0).ln()).collect();
    let studies = Urn::new("exponential", times)
        .unwrap()
        .studies(20, STUDIES, Interval::Textbook, 3)
        .unwrap();
    let share = |holds: fn([f64; 3], f64) -> bool| {
        studies.found.iter().flatten().filter(|e| holds(**e, studies.truth)).count() as f64
            / STUDIES as f64
    };
    // By numpy, of 20,000 studies of this urn.
    assert_near(studies.covered().value, 0.90615, "coverage");
    assert_near(share(|[_, _, high], truth| high < truth), 0.08585, "below");
    assert_near(share(|[_, low, _], truth| low > truth), 0.008, "above");
}

#[test]
fn scores_whose_high_ones_were_missed_keep_an_upper_end() {
    let urn = Urn::new("scores", (0..800).map(|i| if i % 40 == 0 { 0.8 } else { 0.02 }).collect())
        .unwrap();
    let of = |interval| urn.studies(50, 500, interval, 4).unwrap().covered();
    let (naive, careful) = (of(Interval::Textbook), of(Interval::Score(0.5)));
    assert!(
        naive.high < 0.95 && careful.low > 0.93,
        "naive {}, careful {}",
        naive.text(),
        careful.text()
    );
}

#[test]
fn what_cannot_be_studied_is_refused() {
    assert!(Urn::balls(0, 0).is_err());
    assert!(Urn::new("nothing", vec![f64::NAN]).is_err());
    let urn = Urn::new("halves", vec![0.5, 1.0]).unwrap();
    assert!(urn.studies(50, 10, Interval::Wilson, 0).is_err(), "Wilson's interval is for shares");
    assert!(urn.studies(1, 10, Interval::Textbook, 0).is_err());
    assert!(urn.studies(50, 0, Interval::Textbook, 0).is_err());
    assert!(word_tests(&[], &[Reply::from_text("one")], &[], 0).is_err());
}

#[test]
fn words_are_counted_and_tested_reply_by_reply() {
    let replies = |texts: &[&str]| texts.iter().map(|t| Reply::from_text(t)).collect::<Vec<_>>();
    let first = replies(&["Yes, yes!", "no", "no", "no", "yes", "no"]);
    let second = replies(&["no", "yes", "Yes.", "yes yes", "yes", "no yes"]);
    assert_eq!(frequent_words(&[first.clone(), second.clone()].concat(), 5), ["yes", "no"]);
    // "yes": gains -2, 1, 1, 2, 0, 1. Of the 32 signs of the five that are not 0, 16 give a sum of
    // 3 or more either way.
    let sums = (0..32).map(|signs| {
        [2, 1, 1, 2, 1]
            .iter()
            .enumerate()
            .map(|(i, g)| if signs >> i & 1 == 1 { -g } else { *g })
            .sum::<i32>()
    });
    let exact = sums.filter(|s| s.abs() >= 3).count() as f64 / 32.0;
    let p = word_tests(&["yes".into()], &first, &second, 0).unwrap()[0];
    assert!((p - exact).abs() < 0.02, "{p}, exact {exact}");
}
