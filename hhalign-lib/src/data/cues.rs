//! Surface cues: how well one surface feature predicts which reply was chosen.
//!
//! If the chosen reply were mostly the longer one, a model could learn "write more" and look
//! aligned. The table here shows for each cue how often the best rule on that cue alone is right.

use std::collections::HashMap;

use super::Split;
use crate::base::error::Result;
use crate::show::table::{Column, Table};

/// The accuracy of one surface cue.
#[derive(Debug, Clone, PartialEq)]
pub struct CueRow {
    /// The feature that the rule uses.
    pub cue: &'static str,
    /// The direction that is right more often on the training pairs, or how the weights were
    /// fitted.
    pub rule: String,
    /// The number of held-out pairs that the rule decides; on the others both replies have the same
    /// value.
    pub n: usize,
    /// The share of held-out pairs that the rule gets right; an undecided pair counts one half.
    pub accuracy: f64,
}

/// A cue that is one number for each reply.
struct NumberCue {
    name: &'static str,
    /// The rule's text when the chosen reply has the larger number, and when it has the smaller
    /// one.
    more: &'static str,
    fewer: &'static str,
    value: fn(&str) -> f64,
}

const NUMBER_CUES: &[NumberCue] = &[
    NumberCue {
        name: "words",
        more: "longer is chosen",
        fewer: "shorter is chosen",
        value: |reply| words(reply) as f64,
    },
    NumberCue {
        name: "letters",
        more: "longer is chosen",
        fewer: "shorter is chosen",
        value: |reply| reply.len() as f64,
    },
    NumberCue {
        name: "letters per word",
        more: "more is chosen",
        fewer: "fewer is chosen",
        value: letters_per_word,
    },
    NumberCue {
        name: "sentences",
        more: "more is chosen",
        fewer: "fewer is chosen",
        value: sentences,
    },
    NumberCue {
        name: "commas",
        more: "more is chosen",
        fewer: "fewer is chosen",
        value: |reply| count(reply, ','),
    },
    NumberCue {
        name: "has a comma",
        more: "with is chosen",
        fewer: "without is chosen",
        value: |reply| has(reply, ','),
    },
    NumberCue {
        name: "has a \"!\"",
        more: "with is chosen",
        fewer: "without is chosen",
        value: |reply| has(reply, '!'),
    },
    NumberCue {
        name: "has a \"?\"",
        more: "with is chosen",
        fewer: "without is chosen",
        value: |reply| has(reply, '?'),
    },
    NumberCue {
        name: "ends with \"?\"",
        more: "with is chosen",
        fewer: "without is chosen",
        value: |r| ends(r, '?'),
    },
    NumberCue {
        name: "ends with \"!\"",
        more: "with is chosen",
        fewer: "without is chosen",
        value: |r| ends(r, '!'),
    },
    NumberCue {
        name: "ends with \".\"",
        more: "with is chosen",
        fewer: "without is chosen",
        value: |r| ends(r, '.'),
    },
    NumberCue {
        name: "says \"I\"",
        more: "with is chosen",
        fewer: "without is chosen",
        value: says_i,
    },
    NumberCue {
        name: "says \"you\"",
        more: "with is chosen",
        fewer: "without is chosen",
        value: says_you,
    },
    NumberCue {
        name: "has an apostrophe",
        more: "with is chosen",
        fewer: "without is chosen",
        value: |r| has(r, '\''),
    },
];

/// A cue that is one piece of text for each reply, weighted by its frequency in chosen and in
/// rejected training replies.
struct TextCue {
    name: &'static str,
    value: fn(&str) -> String,
}

const TEXT_CUES: &[TextCue] = &[
    TextCue { name: "first word", value: |reply| first_words(reply, 1) },
    TextCue { name: "first two words", value: |reply| first_words(reply, 2) },
    TextCue {
        name: "last word",
        value: |reply| reply.split_whitespace().last().map(bare).unwrap_or_default(),
    },
];

/// Measures how well each surface cue tells chosen from rejected replies.
///
/// Both arguments hold pairs of a chosen and a rejected reply. Directions and log-odds are fitted
/// on `train`; the accuracy is measured on `held_out` and is one half if that is empty.
///
/// # Example
///
/// ```
/// use hhalign::data::cues::surface_cues;
///
/// let train = [("Yes, with pleasure, of course.", "No."), ("Here is a long reply.", "Go away.")];
/// let held_out = [("This one is long as well.", "Never."), ("Short.", "Not as short.")];
/// let rows = surface_cues(&train, &held_out);
/// assert_eq!(rows[0].cue, "words");
/// assert_eq!(rows[0].rule, "longer is chosen");
/// assert_eq!(rows[0].accuracy, 0.5);
/// ```
pub fn surface_cues(train: &[(&str, &str)], held_out: &[(&str, &str)]) -> Vec<CueRow> {
    let counts = NUMBER_CUES.iter().map(|cue| {
        let signs = train
            .iter()
            .map(|(chosen, rejected)| sign((cue.value)(chosen) - (cue.value)(rejected)));
        let more = signs.sum::<f64>() >= 0.0;
        let direction = if more { 1.0 } else { -1.0 };
        let rule = if more { cue.more } else { cue.fewer }.to_owned();
        evaluate(cue.name, rule, held_out, |reply| direction * (cue.value)(reply))
    });
    let pieces = TEXT_CUES.iter().map(|cue| {
        let odds = log_odds(train, cue.value);
        let weight = |reply: &str| odds.get(&(cue.value)(reply)).copied().unwrap_or(0.0);
        evaluate(cue.name, "log-odds fitted on train".to_owned(), held_out, weight)
    });
    counts.chain(pieces).collect()
}

/// Evaluates the rule that the reply with the larger score is the chosen one.
fn evaluate(
    cue: &'static str,
    rule: String,
    held_out: &[(&str, &str)],
    score: impl Fn(&str) -> f64,
) -> CueRow {
    let signs: Vec<f64> =
        held_out.iter().map(|(chosen, rejected)| sign(score(chosen) - score(rejected))).collect();
    let n = signs.iter().filter(|&&sign| sign != 0.0).count();
    let right: f64 = signs.iter().map(|sign| (sign + 1.0) / 2.0).sum();
    let accuracy = if signs.is_empty() { 0.5 } else { right / signs.len() as f64 };
    CueRow { cue, rule, n, accuracy }
}

/// Returns the log-odds of each piece of text: ln of its count in chosen over its count in rejected
/// replies. One is added to each count, which keeps the weights of rare pieces finite.
fn log_odds(train: &[(&str, &str)], piece: fn(&str) -> String) -> HashMap<String, f64> {
    let mut counts: HashMap<String, (f64, f64)> = HashMap::new();
    for (chosen, rejected) in train {
        counts.entry(piece(chosen)).or_default().0 += 1.0;
        counts.entry(piece(rejected)).or_default().1 += 1.0;
    }
    counts
        .into_iter()
        .map(|(piece, (chosen, rejected))| (piece, ((chosen + 1.0) / (rejected + 1.0)).ln()))
        .collect()
}

/// Returns -1, 0 or 1. `f64::signum` returns 1 for zero, which would decide a tie.
fn sign(difference: f64) -> f64 {
    if difference > 0.0 {
        1.0
    } else if difference < 0.0 {
        -1.0
    } else {
        0.0
    }
}

fn words(reply: &str) -> usize {
    reply.split_whitespace().count()
}

fn letters_per_word(reply: &str) -> f64 {
    let letters = reply.chars().filter(|letter| letter.is_alphanumeric()).count();
    letters as f64 / words(reply).max(1) as f64
}

fn sentences(reply: &str) -> f64 {
    reply.chars().filter(|mark| matches!(mark, '.' | '!' | '?')).count() as f64
}

fn count(reply: &str, mark: char) -> f64 {
    reply.matches(mark).count() as f64
}

fn has(reply: &str, mark: char) -> f64 {
    f64::from(u8::from(reply.contains(mark)))
}

fn ends(reply: &str, mark: char) -> f64 {
    f64::from(u8::from(reply.trim_end().ends_with(mark)))
}

fn says_i(reply: &str) -> f64 {
    let says = reply.split_whitespace().any(|word| word.split('\'').next() == Some("I"));
    f64::from(u8::from(says))
}

fn says_you(reply: &str) -> f64 {
    let says = reply
        .split_whitespace()
        .any(|word| matches!(bare(word).as_str(), "you" | "your" | "yourself"));
    f64::from(u8::from(says))
}

/// Returns a word in lower case without the punctuation around it.
fn bare(word: &str) -> String {
    word.trim_matches(|letter: char| !letter.is_alphanumeric()).to_lowercase()
}

fn first_words(reply: &str, n: usize) -> String {
    reply.split_whitespace().take(n).map(bare).collect::<Vec<_>>().join(" ")
}

/// Returns [`surface_cues`] of a split as a table; an accuracy near one half means that the cue
/// says nothing about the preference.
///
/// # Errors
/// A failure of the table library.
pub fn cue_table(split: &Split) -> Result<Table> {
    let train: Vec<(&str, &str)> =
        split.train.iter().map(|p| (p.chosen.as_str(), p.rejected.as_str())).collect();
    let held_out: Vec<(&str, &str)> =
        split.held_out.iter().map(|p| (p.chosen.as_str(), p.rejected.as_str())).collect();
    let rows = surface_cues(&train, &held_out);
    Table::new(
        format!(
            "Does a surface cue predict the preferred reply? ({} held-out pairs)",
            held_out.len()
        ),
        vec![
            Column::text("cue", rows.iter().map(|r| r.cue.to_string()).collect()),
            Column::text(
                "rule learnt on training pairs",
                rows.iter().map(|r| r.rule.clone()).collect(),
            ),
            Column::int("pairs decided", rows.iter().map(|r| r.n as i64).collect()),
            Column::float("accuracy (chance 0.5)", 3, rows.iter().map(|r| r.accuracy).collect()),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row<'a>(rows: &'a [CueRow], cue: &str) -> &'a CueRow {
        rows.iter().find(|row| row.cue == cue).expect("a known cue")
    }

    #[test]
    fn a_direction_is_fitted_on_train_and_measured_on_held_out() {
        let train = [("Short.", "This one is longer."), ("Ok then.", "This one is longer.")];
        let held_out = [
            ("Short again.", "Not quite as short."),
            ("A longer one here.", "Short."),
            ("Same.", "Equal."),
        ];
        let rows = surface_cues(&train, &held_out);
        let words = row(&rows, "words");
        assert_eq!(words.rule, "shorter is chosen");
        assert_eq!(words.n, 2);
        assert!((words.accuracy - 0.5).abs() < 1e-12);
    }

    #[test]
    fn a_telling_first_word_is_found() {
        let train = [("Yes, it is.", "No, it is not."), ("Yes, I do.", "No, I do not.")];
        let held_out = [("Yes, again.", "No, again.")];
        let rows = surface_cues(&train, &held_out);
        assert_eq!(row(&rows, "first word").accuracy, 1.0);
        assert_eq!(row(&rows, "has a \"!\"").accuracy, 0.5);
        assert_eq!(row(&rows, "has a \"!\"").n, 0);
    }

    #[test]
    fn no_held_out_pairs_give_one_half() {
        assert!(surface_cues(&[], &[]).iter().all(|row| row.n == 0 && row.accuracy == 0.5));
    }
}
