//! Figures as text: so many digits as their interval warrants, shares in percent.

use super::read::{Kind, Number, Row};
use crate::eval::comparison::Verdict;
use crate::eval::measure::{Better, Instrument};
use crate::stats::{EffectScale, Method, p_text, why_unknown};

/// A number with a true minus.
fn digits(x: f64, decimals: usize) -> String {
    let text = format!("{x:.decimals$}");
    let zero = text.trim_start_matches('-').trim_matches(['0', '.']).is_empty();
    text.replace('-', if zero { "" } else { "−" })
}

/// Decimals that show two digits of the interval's width.
fn decimals([_, low, high]: [f64; 3]) -> usize {
    let width = high - low;
    if width > 0.0 { (1.0 - width.log10().floor()).clamp(0.0, 6.0) as usize } else { 3 }
}

/// How the figures of a metric are written.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// In percent.
    Share,
    /// With so many decimals; what a figure's own interval warrants, if that is not given.
    Plain(Option<usize>),
}

impl Form {
    /// The same for both models: as many decimals as the wider interval warrants.
    pub fn of(row: &Row) -> Self {
        if row.is_share() {
            return Self::Share;
        }
        let both = row.first.iter().chain([&row.second]).filter_map(Number::known);
        Self::Plain(both.map(decimals).min())
    }

    fn decimals(self, at: [f64; 3]) -> usize {
        let own = decimals(at);
        match self {
            Self::Share => 1,
            // A figure far smaller than its neighbour would lose its digits.
            Self::Plain(given) => given.map_or(own, |d| d.max(own.saturating_sub(1))),
        }
    }
}

/// Value and interval, with a sign before and a unit behind the value.
fn with_interval(at: [f64; 3], form: Form, sign: &str, unit: &str) -> String {
    let at = if let Form::Share = form { at.map(|x| 100.0 * x) } else { at };
    let [value, low, high] = at.map(|x| digits(x, form.decimals(at)));
    format!("{sign}{value}{unit} [{low}, {high}]")
}

fn missing(number: &Number) -> String {
    why_unknown(number.method.unwrap_or(Method::NotEnoughData), number.n).replace(" = ", "\u{a0}=\u{a0}")
}

/// `95.6% [93.3, 97.0]`, `1.74 [1.71, 1.78]`, or that there is not enough data.
pub(super) fn figure(number: &Number, form: Form) -> String {
    match number.known() {
        None => missing(number),
        Some(_) if number.defined() => format!("{} by definition", value(number, form)),
        Some(at) => with_interval(at, form, "", if let Form::Share = form { "%" } else { "" }),
    }
}

/// The figure without its interval.
pub(super) fn value(number: &Number, form: Form) -> String {
    match (number.known(), form) {
        (None, _) => missing(number),
        (Some([v, ..]), Form::Share) => format!("{}%", digits(100.0 * v, 1)),
        (Some(at), form) => digits(at[0], form.decimals(at)),
    }
}

/// The interval without its figure.
pub(super) fn interval(number: &Number, form: Form) -> String {
    let whole = figure(number, form);
    whole.find('[').map_or(whole.clone(), |at| whole[at..].to_string())
}

/// `+7.6 points [4.9, 10.2]`, `× 1.086 [1.077, 1.099]`.
pub(super) fn difference(row: &Row) -> String {
    let Some(at) = row.difference.known() else { return missing(&row.difference) };
    let sign = if at[0] > 0.0 { "+" } else { "" };
    match row.kind {
        Kind::Ratio => with_interval(at, Form::Plain(None), "×\u{a0}", ""),
        _ if row.is_share() => with_interval(at, Form::Share, sign, " points"),
        _ => with_interval(at, Form::Plain(None), sign, ""),
    }
}

/// What changed, in one clause without the metric's name: `from 88.0% to 95.6% (+7.6 points [4.9, 10.2], n = 500)`.
pub(super) fn change(row: &Row) -> String {
    let (form, n) = (Form::of(row), n(row));
    match &row.first {
        None => format!("{} where chance is 50% (n\u{a0}=\u{a0}{n})", figure(&row.second, form)),
        Some(first) => {
            let [from, to] = [value(first, form), value(&row.second, form)];
            format!("from {from} to {to} ({}, n\u{a0}=\u{a0}{n})", difference(row))
        }
    }
}

/// Cases that a row's comparison rests on.
pub(super) fn n(row: &Row) -> usize {
    if row.first.is_some() { row.difference.n } else { row.second.n }
}

/// A small number as a word.
pub(super) fn spelled(n: usize) -> String {
    let words =
        ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];
    words.get(n).map_or_else(|| n.to_string(), |w| w.to_string())
}

/// A corrected p-value, or a dash.
pub(super) fn p(row: &Row) -> String {
    row.p_corrected.map_or("–".into(), p_text)
}

/// An effect with its letter, as HTML.
pub(super) fn effect(row: &Row) -> String {
    let letter = match row.effect_scale {
        Some(EffectScale::CohenH) => "<i>h</i>",
        Some(EffectScale::CohenDz) => "<i>d<sub>z</sub></i>",
        Some(EffectScale::None) | None => "",
    };
    row.effect.map_or("–".into(), |e| format!("{} {letter}", digits(e, 2)))
}

/// Three numbers of an effect scale.
pub(super) fn on_scale(at: [f64; 3]) -> String {
    let [value, low, high] = at.map(|x| digits(x, 2));
    format!("{value} [{low}, {high}]")
}

/// A sign for each verdict, so that colour is not the only one.
pub(super) fn sign(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "✓",
        Verdict::Worse => "✗",
        Verdict::Different => "≠",
        Verdict::NotShown => "○",
        Verdict::NotTested => "–",
    }
}

/// The name that the style sheet knows a verdict by.
pub(super) fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::Different => "different",
        Verdict::NotShown => "not-shown",
        Verdict::NotTested => "not-tested",
    }
}

/// What a row lets one say: a verdict says nothing where there was nothing to judge.
pub(super) fn verdict(row: &Row) -> &'static str {
    match row.verdict {
        Verdict::NotTested if row.lacks_data() => "not enough data",
        // A rate against one half says nothing of the first model's own figure.
        Verdict::Better if row.first.is_none() => "above chance",
        Verdict::Worse if row.first.is_none() => "below chance",
        verdict => verdict.words(),
    }
}

/// Which way is good, in words for those who cannot see the arrow.
pub(super) fn direction(better: Better) -> &'static str {
    match better {
        Better::Higher => "higher is better",
        Better::Lower => "lower is better",
        Better::Neither => "neither way is better",
    }
}

/// What kind of instrument, and which.
pub(super) fn instrument(instrument: &Instrument) -> (&'static str, &str) {
    match instrument {
        Instrument::Formula => ("Formula", "nothing but a formula"),
        Instrument::Classifier(who) => ("Classifier", who),
        Instrument::Judge(who) => ("Judge", who),
        Instrument::Rule(who) => ("Rule", who),
        Instrument::LanguageModel(who) => ("Language model", who),
    }
}

/// `a, b and c`.
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
    fn a_figure_has_the_digits_that_its_interval_warrants() {
        let plain = Form::Plain(None);
        assert_eq!(with_interval([0.000_266, 0.000_221, 0.000_334], plain, "", ""), "0.00027 [0.00022, 0.00033]");
        assert_eq!(with_interval([233.75, 162.1, 333.96], plain, "", ""), "234 [162, 334]");
        assert_eq!(with_interval([-0.0059, -0.0114, -0.0008], plain, "", ""), "−0.006 [−0.011, −0.001]");
        assert_eq!(with_interval([0.076, 0.049, 0.1024], Form::Share, "+", " points"), "+7.6 points [4.9, 10.2]");
        assert_eq!(digits(-0.0001, 2), "0.00");
        // Beside a figure that is known less well.
        assert_eq!(with_interval([1.741, 1.706, 1.781], Form::Plain(Some(2)), "", ""), "1.74 [1.71, 1.78]");
        assert_eq!(with_interval([1.741, 1.706, 1.781], Form::Plain(Some(0)), "", ""), "1.74 [1.71, 1.78]");
    }

    #[test]
    fn lists_read_as_sentences_do() {
        let words = |n: usize| list(&["a", "b", "c"][..n].iter().map(|s| s.to_string()).collect::<Vec<_>>());
        assert_eq!([words(0), words(1), words(2), words(3)], ["", "a", "a and b", "a, b and c"]);
    }
}
