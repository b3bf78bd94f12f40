//! Response quality without a judge: variety, repetition, length, and whether replies end.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::comparison::Metrics;
use super::measure::{Better, Cases, Instrument, Measure};
use crate::data::Pair;
use crate::rng::sha256_hex;
use crate::sample::Reply;

/// Counts over the drawn replies of one model.
#[derive(Debug, Clone)]
pub struct Quality {
    /// Words in a reply, mean.
    pub words: Measure,
    /// Different words over all words of all replies.
    pub distinct_1: Measure,
    /// Different pairs of neighbouring words over all such pairs.
    pub distinct_2: Measure,
    /// BLEU-4 of a reply against all others, mean over replies: how alike they are.
    pub self_bleu_4: Measure,
    /// Share of a reply's 4-grams that it has already used, mean over replies.
    pub repetition_4: Measure,
    /// Share of replies that ended by themselves.
    pub ended: Measure,
    /// Share of replies with no word in them.
    pub empty: Measure,
}

impl Metrics for Quality {
    fn title(&self) -> String {
        "Quality of the replies".into()
    }

    fn measures(&self) -> Vec<&Measure> {
        vec![
            &self.words,
            &self.distinct_1,
            &self.distinct_2,
            &self.self_bleu_4,
            &self.repetition_4,
            &self.ended,
            &self.empty,
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

/// BLEU of each text against all the others as references: high where texts say the same thing in the same words.
///
/// BP · exp((1/n) Σₖ ln pₖ), where pₖ is the share of a text's k-grams that another text has too, each counted at most as
/// often as in that other text; a pₖ of 0 over m k-grams becomes 0.1 / m. BP = exp(1 - r/c) for a text of c words that is
/// shorter than r, the length nearest to its own among the others. A text that shares no word with another has 0; NaN
/// where there is no other text.
///
/// The time grows with the number of words, not with the number of pairs of texts: the two highest counts of a k-gram
/// tell for every text the highest among the others.
///
/// # Source
/// Zhu et al. 2018, arXiv 1802.01886, section 4.2; BLEU as Papineni et al. 2002, smoothing 1 of Chen and Cherry 2014.
///
/// # Example
/// ```
/// let texts = ["I can help with that today", "I can help with that now", "no"].map(String::from);
/// let scores = hhalign::eval::quality::self_bleu(&texts, 4);
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

/// BLEU's factor for a text of `length` words among texts of such `lengths`, itself one of them.
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

/// For each text the n-grams that another text has as well, clipped to the highest count there, and all its n-grams.
fn shared_grams(texts: &[Vec<String>], n: usize) -> Vec<(usize, usize)> {
    let counts: Vec<HashMap<&[String], usize>> = texts
        .iter()
        .map(|text| {
            let mut counts = HashMap::new();
            text.windows(n).for_each(|gram| *counts.entry(gram).or_default() += 1);
            counts
        })
        .collect();
    // Of each gram: the highest count, the text that has it, and the highest count of any other text.
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
        (counts.iter().map(|(gram, &count)| count.min(elsewhere(*gram))).sum(), counts.values().sum())
    };
    counts.iter().enumerate().map(shared).collect()
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
/// assert_eq!(novel_words(&[reply], &pairs, 0).value(), 1.0);
/// # Ok::<(), hhalign::error::Error>(())
/// ```
pub fn novel_words(replies: &[Reply], training: &[Pair], seed: u64) -> Measure {
    KnownWords::of(training).novel(replies, seed)
}

/// The words of three letters or more that training texts have, for [`novel_words`] of several models.
pub(super) struct KnownWords {
    words: HashSet<String>,
    /// Their number and their hash.
    pub(super) rule: String,
}

impl KnownWords {
    pub(super) fn of(training: &[Pair]) -> Self {
        let texts = training.iter().flat_map(|p| [&p.prompt, &p.chosen, &p.rejected]);
        let words: HashSet<String> = texts.flat_map(|text| long_words(text)).collect();
        let mut sorted: Vec<&str> = words.iter().map(String::as_str).collect();
        sorted.sort_unstable();
        let hash = sha256_hex(sorted.iter().map(|w| w.as_bytes()), 8);
        let rule = format!("{} words of the training texts, sha256 {hash}", sorted.len());
        Self { words, rule }
    }

    /// Share of replies that hold another word.
    pub(super) fn novel(&self, replies: &[Reply], seed: u64) -> Measure {
        let novel = replies.iter().map(|r| long_words(&r.text).any(|w| !self.words.contains(&w))).collect();
        let rule = Instrument::Rule(self.rule.clone());
        Measure::new("replies with a made-up word", Better::Lower, rule, Cases::Share(novel), seed)
    }
}

fn long_words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphabetic()).filter(|w| w.chars().count() >= 3).map(str::to_lowercase)
}

/// The n-grams of each text as numbers.
fn numbered(texts: &[Vec<String>], n: usize) -> Vec<Vec<u32>> {
    let mut numbers: HashMap<&[String], u32> = HashMap::new();
    let mut number = |gram| {
        let next = numbers.len() as u32;
        *numbers.entry(gram).or_insert(next)
    };
    texts.iter().map(|text| text.windows(n).map(&mut number).collect()).collect()
}

/// All of [`Quality`] for the replies of one model. Intervals are over replies; those of distinct-n are for the same number of
/// replies, since the figure falls as there are more.
pub fn quality(replies: &[Reply], seed: u64) -> Quality {
    let tokens: Vec<Vec<String>> = replies.iter().map(|r| words(&r.text)).collect();
    let of = |name, better, cases| Measure::plain(name, better, cases, seed);
    let share = |holds: &dyn Fn(usize) -> bool| Cases::Share((0..replies.len()).map(holds).collect());
    let counts = tokens.iter().map(|t| t.len() as f64).collect();
    let repeated = replies.iter().map(|r| repetition(&r.text, 4)).collect();
    Quality {
        words: of("words in a reply", Better::Neither, Cases::Mean(counts)),
        repetition_4: of("repeated 4-grams", Better::Lower, Cases::Mean(repeated)),
        ended: of("replies that end by themselves", Better::Higher, share(&|i| replies[i].ended)),
        empty: of("replies without a word", Better::Lower, share(&|i| tokens[i].is_empty())),
        self_bleu_4: of(
            "self-BLEU-4",
            Better::Neither,
            Cases::SelfBleu(replies.iter().map(|r| r.text.clone()).collect()),
        ),
        distinct_1: of("distinct-1", Better::Neither, Cases::Distinct(numbered(&tokens, 1))),
        distinct_2: of("distinct-2", Better::Neither, Cases::Distinct(numbered(&tokens, 2))),
    }
}
