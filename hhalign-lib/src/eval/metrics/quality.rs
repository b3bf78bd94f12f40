//! Reply quality without a judge: variety, repetition, length, and whether replies end.

use std::collections::{HashMap, HashSet};

use super::bleu::words;
pub use super::bleu::{distinct, repetition, self_bleu};
use crate::base::rng::sha256_hex;
use crate::data::Pair;
use crate::eval::measure::Metrics;
use crate::eval::measure::{Better, Cases, Instrument, Measure};
use crate::infer::sample::Reply;

/// Statistics of the sampled replies of one model.
#[derive(Debug, Clone)]
pub struct Quality {
    /// Words in a reply, mean.
    pub words: Measure,
    /// Different words over all words of all replies.
    pub distinct_1: Measure,
    /// Different pairs of neighbouring words over all such pairs.
    pub distinct_2: Measure,
    /// BLEU-4 of a reply against all others, mean over replies: their similarity.
    pub self_bleu_4: Measure,
    /// Share of a reply's 4-grams that occurred earlier in it, mean over replies.
    pub repetition_4: Measure,
    /// Share of replies that ended with the end of text.
    pub ended: Measure,
    /// Share of replies without a word.
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

/// Returns the share of replies with a word of three letters or more that no training text has,
/// mostly invented words.
///
/// # Example
/// ```
/// use hhalign::data::Dataset;
/// use hhalign::eval::metrics::quality::novel_words;
/// use hhalign::infer::sample::Reply;
/// let pairs = Dataset::embedded(0, 50)?.pairs;
/// let reply = Reply { text: "xyzzy".into(), ids: vec![], ended: true };
/// assert_eq!(novel_words(&[reply], &pairs, 0).value(), 1.0);
/// # Ok::<(), hhalign::base::error::Error>(())
/// ```
pub fn novel_words(replies: &[Reply], training: &[Pair], seed: u64) -> Measure {
    KnownWords::of(training).novel(replies, seed)
}

/// The words of three letters or more of the training texts, for [`novel_words`] of several models.
pub(in crate::eval) struct KnownWords {
    words: HashSet<String>,
    /// Their number and their hash.
    pub(in crate::eval) rule: String,
}

impl KnownWords {
    pub(in crate::eval) fn of(training: &[Pair]) -> Self {
        let texts = training.iter().flat_map(|p| [&p.prompt, &p.chosen, &p.rejected]);
        let words: HashSet<String> = texts.flat_map(|text| long_words(text)).collect();
        let mut sorted: Vec<&str> = words.iter().map(String::as_str).collect();
        sorted.sort_unstable();
        let hash = sha256_hex(sorted.iter().map(|w| w.as_bytes()), 8);
        let rule = format!("{} words of the training texts, sha256 {hash}", sorted.len());
        Self { words, rule }
    }

    /// Returns the share of replies that have another word.
    pub(in crate::eval) fn novel(&self, replies: &[Reply], seed: u64) -> Measure {
        let novel =
            replies.iter().map(|r| long_words(&r.text).any(|w| !self.words.contains(&w))).collect();
        let rule = Instrument::Rule(self.rule.clone());
        Measure::new("replies with a made-up word", Better::Lower, rule, Cases::Share(novel), seed)
    }
}

fn long_words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphabetic())
        .filter(|w| w.chars().count() >= 3)
        .map(str::to_lowercase)
}

/// Returns the n-grams of each text as ids.
fn numbered(texts: &[Vec<String>], n: usize) -> Vec<Vec<u32>> {
    let mut numbers: HashMap<&[String], u32> = HashMap::new();
    let mut number = |gram| {
        let next = numbers.len() as u32;
        *numbers.entry(gram).or_insert(next)
    };
    texts.iter().map(|text| text.windows(n).map(&mut number).collect()).collect()
}

/// Returns [`Quality`] of the replies of one model. Intervals are over replies; those of distinct-n
/// hold for the same number of replies, since the value falls with it.
pub fn quality(replies: &[Reply], seed: u64) -> Quality {
    let tokens: Vec<Vec<String>> = replies.iter().map(|r| words(&r.text)).collect();
    let of = |name, better, cases| Measure::plain(name, better, cases, seed);
    let share =
        |holds: &dyn Fn(usize) -> bool| Cases::Share((0..replies.len()).map(holds).collect());
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
