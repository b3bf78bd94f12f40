//! The variety of texts: distinct-n, self-BLEU, repeated n-grams.

use std::collections::{BTreeMap, HashMap, HashSet};

pub(super) fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_lowercase).collect()
}

/// Returns different n-grams over all n-grams of some texts; 0 if there are none.
///
/// # Source
/// Li et al. 2016, arXiv 1510.03055, section 5.
///
/// # Example
/// ```
/// let texts = ["the cat the cat".to_string()];
/// assert_eq!(hhalign::eval::metrics::bleu::distinct(&texts, 1), 0.5);
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

/// Returns BLEU of each text against all others as references: high if texts say the same in the
/// same words.
///
/// BP · exp((1/n) Σₖ ln pₖ), where pₖ is the share of a text's k-grams that another text has too,
/// each counted at most as often as in that other text; a pₖ of 0 over m k-grams becomes 0.1 / m.
/// BP = exp(1 - r/c) for a text of c words that is shorter than r, the length of the others that is
/// nearest to its own. A text that shares no word with another has 0; NaN if there is no other
/// text.
///
/// The time grows with the number of words, not with the number of pairs of texts: the two highest
/// counts of a k-gram give, for every text, the highest among the others.
///
/// # Source
/// Zhu et al. 2018, arXiv 1802.01886, section 4.2; BLEU as Papineni et al. 2002, smoothing 1 of
/// Chen and Cherry 2014.
///
/// # Example
/// ```
/// let texts = ["I can help with that today", "I can help with that now", "no"].map(String::from);
/// let scores = hhalign::eval::metrics::bleu::self_bleu(&texts, 4);
/// assert!(scores[0] > 0.7 && scores[0] == scores[1] && scores[2] == 0.0);
/// ```
pub fn self_bleu(texts: &[String], n: usize) -> Vec<f64> {
    let tokens: Vec<Vec<String>> = texts.iter().map(|t| words(t)).collect();
    if texts.len() < 2 {
        return vec![f64::NAN; texts.len()];
    }
    let mut lengths: BTreeMap<usize, usize> = BTreeMap::new();
    tokens.iter().for_each(|t| *lengths.entry(t.len()).or_default() += 1);
    let mut scores: Vec<f64> = tokens.iter().map(|t| brevity_penalty(t.len(), &lengths)).collect();
    for k in 1..=n {
        for (score, (shared, all)) in scores.iter_mut().zip(shared_grams(&tokens, k)) {
            let share = match shared {
                0 if k == 1 => 0.0,
                0 => 0.1 / all.max(1) as f64,
                _ => shared as f64 / all as f64,
            };
            *score *= share.powf(1.0 / n as f64);
        }
    }
    scores
}

/// Returns the brevity penalty of a text of `length` words; `lengths` are those of all texts.
fn brevity_penalty(length: usize, lengths: &BTreeMap<usize, usize>) -> f64 {
    let shorter = lengths.range(..length).next_back().map(|(l, _)| *l);
    let longer = lengths.range(length + 1..).next().map(|(l, _)| *l);
    let nearest = match (shorter, longer) {
        _ if lengths[&length] > 1 => length,
        (Some(below), Some(above)) if length - below <= above - length => below,
        (below, above) => above.or(below).unwrap_or(length),
    };
    match length {
        0 => 0.0,
        _ if length >= nearest => 1.0,
        _ => (1.0 - nearest as f64 / length as f64).exp(),
    }
}

/// Returns, for each text, the number of n-grams that another text has too, clipped to the highest
/// count there, and the number of all its n-grams.
fn shared_grams(texts: &[Vec<String>], n: usize) -> Vec<(usize, usize)> {
    let counts: Vec<HashMap<&[String], usize>> = texts
        .iter()
        .map(|text| {
            let mut counts = HashMap::new();
            text.windows(n).for_each(|gram| *counts.entry(gram).or_default() += 1);
            counts
        })
        .collect();
    // Of each n-gram: the highest count, the text that has it, and the highest count of any other
    // text.
    let mut highest: HashMap<&[String], (usize, usize, usize)> = HashMap::new();
    for (text, counts) in counts.iter().enumerate() {
        for (gram, &count) in counts {
            let (first, owner, second) = highest.entry(gram).or_default();
            if count > *first {
                (*first, *owner, *second) = (count, text, *first);
            } else {
                *second = count.max(*second);
            }
        }
    }
    let shared = |(text, counts): (usize, &HashMap<&[String], usize>)| {
        let elsewhere = |gram| {
            let (first, owner, second) = highest[gram];
            if owner == text { second } else { first }
        };
        (
            counts.iter().map(|(gram, &count)| count.min(elsewhere(*gram))).sum(),
            counts.values().sum(),
        )
    };
    counts.iter().enumerate().map(shared).collect()
}

/// Returns the share of a text's n-grams that occurred earlier in it: 1 - different / all; 0 for a
/// text shorter than n words.
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
