//! Response quality without a judge: variety, repetition, length, and whether replies end.

use std::collections::HashSet;

use serde::Serialize;

use super::comparison::Metrics;
use super::stats::{Estimate, bootstrap_mean, wilson};
use crate::data::Pair;
use crate::sample::Reply;

/// Counts over the drawn replies of one model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Quality {
    /// Words in a reply, mean.
    pub words: Estimate,
    /// Different words over all words of all replies.
    pub distinct_1: Estimate,
    /// Different pairs of neighbouring words over all such pairs.
    pub distinct_2: Estimate,
    /// Share of a reply's 4-grams that it has already used, mean over replies.
    pub repetition_4: Estimate,
    /// Share of replies that ended by themselves.
    pub ended: Estimate,
    /// Share of replies with no word in them.
    pub empty: Estimate,
}

impl Metrics for Quality {
    fn title(&self) -> String {
        "Quality of the replies".into()
    }

    fn estimates(&self) -> Vec<(&'static str, &Estimate)> {
        vec![
            ("words in a reply", &self.words),
            ("distinct-1", &self.distinct_1),
            ("distinct-2", &self.distinct_2),
            ("repeated 4-grams", &self.repetition_4),
            ("ended by itself", &self.ended),
            ("empty", &self.empty),
        ]
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_lowercase).collect()
}

/// Different n-grams over all n-grams of some texts; 0 where there are none.
///
/// # Source
/// Li et al. 2016, arXiv 1510.03055, section 5.
///
/// # Example
/// ```
/// let texts = ["the cat the cat".to_string()];
/// assert_eq!(hhalign::eval::quality::distinct(&texts, 1), 0.5);
/// ```
pub fn distinct(texts: &[String], n: usize) -> f64 {
    let tokens: Vec<Vec<String>> = texts.iter().map(|t| words(t)).collect();
    distinct_of(tokens.iter(), n)
}

fn distinct_of<'a>(texts: impl Iterator<Item = &'a Vec<String>>, n: usize) -> f64 {
    let mut seen = HashSet::new();
    let mut total = 0usize;
    for text in texts {
        for gram in text.windows(n) {
            total += 1;
            seen.insert(gram);
        }
    }
    if total == 0 { 0.0 } else { seen.len() as f64 / total as f64 }
}

/// Share of a text's n-grams that stood earlier in it: 1 - different / all; 0 for a text shorter than n words.
///
/// # Source
/// rep-n of Welleck et al. 2020, arXiv 1908.04319, on words.
pub fn repetition(text: &str, n: usize) -> f64 {
    let tokens = words(text);
    let grams: Vec<&[String]> = tokens.windows(n).collect();
    if grams.is_empty() {
        return 0.0;
    }
    1.0 - grams.iter().collect::<HashSet<_>>().len() as f64 / grams.len() as f64
}

/// Share of replies that hold a word of three letters or more which no training text has: made-up words, mostly.
///
/// # Example
/// ```
/// use hhalign::{data::Dataset, eval::quality::novel_words, sample::Reply};
/// let pairs = Dataset::embedded(0, 50)?.pairs;
/// let reply = Reply { text: "xyzzy".into(), ids: vec![], ended: true };
/// assert_eq!(novel_words(&[reply], &pairs).value, 1.0);
/// # Ok::<(), hhalign::error::Error>(())
/// ```
pub fn novel_words(replies: &[Reply], training: &[Pair]) -> Estimate {
    let split = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_alphabetic()).filter(|w| w.chars().count() >= 3).map(str::to_lowercase).collect()
    };
    let known: HashSet<String> =
        training.iter().flat_map(|p| [&p.prompt, &p.chosen, &p.rejected]).flat_map(|t| split(t)).collect();
    let novel = replies.iter().filter(|r| split(&r.text).iter().any(|w| !known.contains(w))).count();
    wilson(novel as f64, replies.len())
}

/// All of [`Quality`] for the replies of one model. Intervals are bootstrapped over replies; those of distinct-n are for
/// the same number of replies, since the figure falls as there are more.
pub fn quality(replies: &[Reply], seed: u64) -> Quality {
    let tokens: Vec<Vec<String>> = replies.iter().map(|r| words(&r.text)).collect();
    let counts: Vec<f64> = tokens.iter().map(|t| t.len() as f64).collect();
    let repeated: Vec<f64> = replies.iter().map(|r| repetition(&r.text, 4)).collect();
    let share = |hits: usize| wilson(hits as f64, replies.len());
    Quality {
        words: bootstrap_mean(&counts, seed),
        distinct_1: subsampled_distinct(&tokens, 1, seed),
        distinct_2: subsampled_distinct(&tokens, 2, seed),
        repetition_4: bootstrap_mean(&repeated, seed),
        ended: share(replies.iter().filter(|r| r.ended).count()),
        empty: share(tokens.iter().filter(|t| t.is_empty()).count()),
    }
}

/// distinct-n with an interval.
///
/// A plain bootstrap would be biased: a resample repeats replies and so repeats n-grams. Halves drawn without
/// replacement do not; half of n cases so drawn varies about as n fresh cases do, relative to its level.
/// Source: delete-d jackknife with d = n/2, Efron and Tibshirani 1993, chapter 11.
fn subsampled_distinct(tokens: &[Vec<String>], n: usize, seed: u64) -> Estimate {
    use rand::seq::SliceRandom;
    if tokens.len() < 4 {
        return Estimate::not_enough_data(tokens.len());
    }
    let value = distinct_of(tokens.iter(), n);
    let mut rng = crate::rng::stream(seed, "halves", &[n as u64]);
    let mut order: Vec<usize> = (0..tokens.len()).collect();
    let halves: Vec<f64> = (0..200)
        .map(|_| {
            order.shuffle(&mut rng);
            distinct_of(order[..tokens.len() / 2].iter().map(|&i| &tokens[i]), n)
        })
        .collect();
    let mean = halves.iter().sum::<f64>() / halves.len() as f64;
    let deviation = (halves.iter().map(|h| (h - mean).powi(2)).sum::<f64>() / (halves.len() - 1) as f64).sqrt();
    let half_width = 1.96 * deviation * value / mean.max(1e-12);
    Estimate {
        value,
        low: (value - half_width).max(0.0),
        high: (value + half_width).min(1.0),
        n: tokens.len(),
        method: "half-sampling",
    }
}
