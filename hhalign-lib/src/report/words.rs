//! The numbers and names of a summary as text.

use super::read::{Kind, Row};
use crate::eval::comparison::Verdict;
use crate::eval::measure::{Better, Instrument};
use crate::eval::summary::file::{Number, Provenance};
use crate::stats::EffectScale;
use crate::stats::format::{Decimals, Format, Unit, decimals_by_width, p_value};

/// Shares on the page.
pub(super) const SHARE: Format = Format { typographic: true, ..Format::PERCENT };

/// Effect sizes on the page.
const EFFECT: Format = Format::PAGE.decimals(Decimals::Fixed(2));

/// The format of a metric, the same for both models: percent for shares, otherwise as many decimals
/// as the wider interval warrants.
pub(super) fn format_of(row: &Row) -> Format {
    if row.is_share() {
        return SHARE;
    }
    let decimals = row.values().filter_map(Number::known).map(decimals_by_width).min();
    Format::PAGE.decimals(decimals.map_or(Decimals::ByWidth, Decimals::Aligned))
}

/// Writes the value without its interval.
pub(super) fn value(number: &Number, format: Format) -> String {
    match number.known() {
        Some(at) => format.value(at),
        None => number.format(&format),
    }
}

/// Writes the interval without its value, or why there is none.
pub(super) fn interval(number: &Number, format: Format) -> String {
    match number.known() {
        Some(at) if !number.is_by_definition() => format.bounds(at),
        _ => number.format(&format),
    }
}

/// Writes a difference: `+7.6 points [4.9, 10.2]`, `× 1.086 [1.077, 1.099]`.
pub(super) fn difference(row: &Row) -> String {
    let format = match row.kind {
        Kind::Ratio => Format::PAGE.unit(Unit::Ratio),
        _ if row.is_share() => SHARE.unit(Unit::Points).signed(),
        _ => Format::PAGE.signed(),
    };
    match row.difference.known() {
        Some(at) => format.interval(at),
        None => row.difference.format(&format),
    }
}

/// Writes the change in a metric without its name: `from 88.0% to 95.6% (+7.6 points [4.9, 10.2],
/// n = 500)`.
pub(super) fn change(row: &Row) -> String {
    let (format, cases) = (format_of(row), cases(row));
    match &row.first {
        None => format!("{} where chance is 50% ({cases})", row.second.format(&format)),
        Some(first) => {
            let [from, to] = [value(first, format), value(&row.second, format)];
            format!("from {from} to {to} ({}, {cases})", difference(row))
        }
    }
}

/// Writes the number of cases of a row's comparison: `n = 500`.
pub(super) fn cases(row: &Row) -> String {
    Format::PAGE.cases(n(row))
}

/// The number of cases of a row's comparison.
pub(super) fn n(row: &Row) -> usize {
    if row.first.is_some() { row.difference.n } else { row.second.n }
}

/// Writes a small number as a word.
pub(super) fn spelled(n: usize) -> String {
    let words = [
        "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
        "eleven", "twelve",
    ];
    words.get(n).map_or_else(|| n.to_string(), |w| w.to_string())
}

/// Writes a corrected p-value, or a dash.
pub(super) fn p(row: &Row) -> String {
    row.p_corrected.map_or("–".into(), p_value)
}

/// Writes an effect with its symbol, as HTML.
pub(super) fn effect(row: &Row) -> String {
    let symbol = match row.effect_scale {
        Some(EffectScale::CohenH) => "<i>h</i>",
        Some(EffectScale::CohenDz) => "<i>d<sub>z</sub></i>",
        Some(EffectScale::None) | None => "",
    };
    row.effect.map_or("–".into(), |e| format!("{} {symbol}", EFFECT.number(e, 2)))
}

/// Writes an effect with its interval.
pub(super) fn on_scale(at: [f64; 3]) -> String {
    EFFECT.interval(at)
}

/// Writes the β of the second model's training.
pub(super) fn beta(provenance: &Provenance) -> String {
    provenance.beta.map_or("not recorded".into(), |beta| beta.to_string())
}

/// The sign of a verdict, so that colour is not the only distinction.
pub(super) fn sign(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "✓",
        Verdict::Worse => "✗",
        Verdict::Different => "≠",
        Verdict::NotShown => "○",
        Verdict::NotTested => "–",
    }
}

/// The class of a verdict in the style sheet.
pub(super) fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::Different => "different",
        Verdict::NotShown => "not-shown",
        Verdict::NotTested => "not-tested",
    }
}

/// The verdict of a row in words, or that there was not enough data for one.
pub(super) fn verdict(row: &Row) -> &'static str {
    match row.verdict {
        Verdict::NotTested if row.lacks_data() => "not enough data",
        // A rate against one half says nothing about the first model's own value.
        Verdict::Better if row.first.is_none() => "above chance",
        Verdict::Worse if row.first.is_none() => "below chance",
        verdict => verdict.words(),
    }
}

/// The better direction in words, for readers who cannot see the arrow.
pub(super) fn direction(better: Better) -> &'static str {
    match better {
        Better::Higher => "higher is better",
        Better::Lower => "lower is better",
        Better::Neither => "neither direction is better",
    }
}

/// The kind of an instrument, and its identity.
pub(super) fn instrument(instrument: &Instrument) -> (&'static str, &str) {
    match instrument {
        Instrument::Formula => ("Formula", "nothing but a formula"),
        Instrument::Classifier(who) => ("Classifier", who),
        Instrument::Judge(who) => ("Judge", who),
        Instrument::Rule(who) => ("Rule", who),
        Instrument::LanguageModel(who) => ("Language model", who),
    }
}

/// Writes a list: `a, b and c`.
pub(super) fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [all @ .., last] => format!("{} and {last}", all.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_read_as_sentences_do() {
        let words = |n: usize| {
            list(&["a", "b", "c"][..n].iter().map(|s| s.to_string()).collect::<Vec<_>>())
        };
        assert_eq!([words(0), words(1), words(2), words(3)], ["", "a", "a and b", "a, b and c"]);
    }
}
