//! The abstract in sentences, and the key results above it.

use super::read::{Results, Row};
use super::words::{
    cases, change, class, difference, format_of, interval, sign, spelled, value, verdict,
};
use crate::eval::comparison::Verdict;
use crate::eval::metrics::ranking::REWARD_ACCURACY;
use crate::show::table::{escape, grouped};

/// The most metrics that the abstract describes for each verdict; the table has all of them.
const NAMED: usize = 4;

/// The most key results above the abstract.
const KEY_RESULTS: usize = 4;

/// The main metrics by verdict, the largest effects first.
struct Findings<'a> {
    /// The metric that the second model is trained for, which is no comparison with the first.
    objective: Option<&'a Row>,
    better: Vec<&'a Row>,
    worse: Vec<&'a Row>,
    different: Vec<&'a Row>,
    not_shown: Vec<&'a Row>,
    not_tested: Vec<&'a Row>,
    no_data: Vec<&'a Row>,
    tests: usize,
}

impl<'a> Findings<'a> {
    fn of(results: &'a Results) -> Self {
        let mut all: Vec<&Row> = results.main_rows().collect();
        let is_objective = |r: &&Row| r.first.is_none() && r.metric == REWARD_ACCURACY;
        let objective = all.iter().copied().find(is_objective);
        all.retain(|r| !is_objective(r));
        let size = |r: &Row| r.effect.map_or(0.0, f64::abs);
        all.sort_by(|a, b| size(b).total_cmp(&size(a)));
        let no_data =
            |r: &Row| r.lacks_data() && matches!(r.verdict, Verdict::NotShown | Verdict::NotTested);
        let found = |v: Verdict| {
            all.iter().filter(|r| r.verdict == v && !no_data(r)).copied().collect::<Vec<_>>()
        };
        Self {
            objective,
            better: found(Verdict::Better),
            worse: found(Verdict::Worse),
            different: found(Verdict::Different),
            not_shown: found(Verdict::NotShown),
            not_tested: found(Verdict::NotTested),
            no_data: all.iter().filter(|r| no_data(r)).copied().collect(),
            tests: results.rows.iter().filter(|r| r.p_corrected.is_some()).count(),
        }
    }
}

fn name(row: &Row) -> String {
    format!("<em>{}</em>", escape(&row.metric))
}

/// Writes a count: `three main metrics`.
fn metrics(n: usize) -> String {
    format!("{} main metric{}", spelled(n), if n == 1 { "" } else { "s" })
}

/// Describes the changes of the first metrics, and counts the others.
fn changes(rows: &[&Row]) -> String {
    let mut items: Vec<String> =
        rows.iter().take(NAMED).map(|r| format!("{}, {}", name(r), escape(&change(r)))).collect();
    if rows.len() > NAMED {
        items.push(format!("and {} more in the table of results", spelled(rows.len() - NAMED)));
    }
    items.join("; ")
}

/// Lists the names with semicolons, since a name may contain commas.
fn names(rows: &[&Row]) -> String {
    rows.iter().map(|r| name(r)).collect::<Vec<_>>().join("; ")
}

/// Describes the training, the data and the measurement.
fn what_was_done(results: &Results) -> String {
    let p = &results.provenance;
    let [first, second] = results.names().map(escape);
    let count =
        |name: &str, unit: &str| results.count(name).map(|n| format!("{} {unit}", grouped(n)));
    let model = count("parameters", "parameters")
        .map_or("A small GPT".into(), |n| format!("A small GPT of {n}"));
    let pairs = count("pairs_train", "preference pairs")
        .unwrap_or("preference pairs (number not recorded)".into());
    let steps = |name: &str| count(name, "steps").map_or(String::new(), |n| format!(", {n}"));
    let held_out = count("pairs_held_out", "held-out pairs").unwrap_or("held-out pairs".into());
    let origin = if results.is_synthetic() { ", which is synthetic" } else { "" };
    format!(
        "{model} was fine-tuned on the preferred replies of {pairs} ({first}{}) and then trained \
         on the preferences themselves by direct preference optimisation ({second}{}{}). The data set \
         is “{}”{origin}. Both models were measured on {held_out} and on the prompts of each \
         metric, always on the same cases. Brackets contain 95% intervals over prompts.",
        steps("sft_steps"),
        p.beta.map_or(String::new(), |beta| format!(", β\u{a0}=\u{a0}{beta}")),
        steps("dpo_steps"),
        escape(&p.data),
    )
}

/// Writes the abstract: what was done, what changed, and how certain that is.
pub(super) fn summary(results: &Results) -> String {
    let f = Findings::of(results);
    let [first, second] = results.names().map(escape);
    let mut s = vec![what_was_done(results)];
    if let Some(row) = f.objective {
        s.push(format!(
            "On these pairs the training reached its own objective, which does not compare with \
             {first}: {}, {}.",
            name(row),
            escape(&change(row))
        ));
    }
    s.push(match f.better.len() {
        0 => format!("{second} was not shown to be better than {first} in any main metric."),
        n => format!("{second} is better than {first} in {}: {}.", metrics(n), changes(&f.better)),
    });
    s.push(match f.worse.len() {
        0 => "None was shown to be worse, which does not prove that none is.".into(),
        n => format!("It is worse in {}: {}.", metrics(n), changes(&f.worse)),
    });
    if !f.different.is_empty() {
        s.push(format!(
            "They also differ in metrics in which neither direction is better: {}.",
            changes(&f.different)
        ));
    }
    if !f.not_shown.is_empty() {
        s.push(format!(
            "No difference was shown in these: {}. This is not evidence that the models are alike \
             there; these cases cannot distinguish them.",
            names(&f.not_shown)
        ));
    }
    if !f.not_tested.is_empty() {
        s.push(format!("Described but not tested: {}.", names(&f.not_tested)));
    }
    if !f.no_data.is_empty() {
        s.push(format!("Not enough data for a value with an interval: {}.", names(&f.no_data)));
    }
    s.push(format!(
        "The report claims a difference if a paired test on the same prompts gives p below 0.05 \
         after Holm’s correction for all {} tests of this report; another training seed would give \
         other models, which the intervals do not cover.",
        f.tests
    ));
    s.join(" ")
}

/// Chooses at most four results: the largest improvements and the metrics that became worse, then
/// the others.
fn key<'a>(f: &Findings<'a>) -> Vec<&'a Row> {
    // Metrics that became worse are never left out in favour of improvements.
    let worse =
        f.worse.len().min(if f.better.len() >= 2 { 2 } else { KEY_RESULTS - f.better.len() });
    let better = f.better.len().min(KEY_RESULTS - worse);
    let rest = f.different.iter().chain(&f.not_shown).chain(&f.not_tested);
    f.better[..better]
        .iter()
        .chain(&f.worse[..worse])
        .chain(rest)
        .take(KEY_RESULTS)
        .copied()
        .collect()
}

/// Writes the key results.
pub(super) fn strip(results: &Results) -> String {
    let card = |row: &Row| {
        let format = format_of(row);
        let of_second = value(&row.second, format);
        let [large, small] = match &row.first {
            None => [of_second, format!("{} where chance is 50%", interval(&row.second, format))],
            Some(first) => [format!("{} → {of_second}", value(first, format)), difference(row)],
        };
        format!(
            "<li class=\"{}\"><span class=\"metric\">{}</span><strong>{}</strong><span \
             class=\"interval\">{}</span><span class=\"verdict\">{} {} <span class=\"n\">{}</span>\
             </span></li>",
            class(row.verdict),
            escape(&row.metric),
            escape(&large),
            escape(&small),
            sign(row.verdict),
            verdict(row),
            cases(row)
        )
    };
    let cards: String = key(&Findings::of(results)).into_iter().map(card).collect();
    if cards.is_empty() { String::new() } else { format!("<ul class=\"findings\">{cards}</ul>") }
}
