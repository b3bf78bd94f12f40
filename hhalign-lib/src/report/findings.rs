//! The abstract in sentences, and the few figures that a reader should take away.

use super::read::{Results, Row};
use super::words::{Form, change, class, difference, interval, n, sign, spelled, value, verdict};
use crate::eval::comparison::Verdict;
use crate::eval::ranking::REWARD_ACCURACY;
use crate::table::{escape, grouped};

/// Metrics that the abstract names in full for each verdict; the table has them all.
const NAMED: usize = 4;

/// Key figures above the text.
const KEY_FIGURES: usize = 4;

/// The main metrics by what was found, the largest effects first.
struct Findings<'a> {
    /// What the second model is trained for: no comparison with the first.
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
        let no_data = |r: &Row| r.lacks_data() && matches!(r.verdict, Verdict::NotShown | Verdict::NotTested);
        let found = |v: Verdict| all.iter().filter(|r| r.verdict == v && !no_data(r)).copied().collect::<Vec<_>>();
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

/// `three main metrics`.
fn metrics(n: usize) -> String {
    format!("{} main metric{}", spelled(n), if n == 1 { "" } else { "s" })
}

/// The changes of some metrics, and how many more there are.
fn changes(rows: &[&Row]) -> String {
    let mut items: Vec<String> =
        rows.iter().take(NAMED).map(|r| format!("{}, {}", name(r), escape(&change(r)))).collect();
    if rows.len() > NAMED {
        items.push(format!("and {} more in the table of results", spelled(rows.len() - NAMED)));
    }
    items.join("; ")
}

/// Names of metrics hold commas, so semicolons stand between them.
fn names(rows: &[&Row]) -> String {
    rows.iter().map(|r| name(r)).collect::<Vec<_>>().join("; ")
}

/// What was trained, on what, and on what it was measured.
fn what_was_done(results: &Results) -> String {
    let p = &results.provenance;
    let [first, second] = results.names().map(escape);
    let count = |name: &str, unit: &str| results.count(name).map(|n| format!("{} {unit}", grouped(n)));
    let model = count("parameters", "parameters").map_or("A small GPT".into(), |n| format!("A small GPT of {n}"));
    let pairs = count("pairs_train", "pairs").unwrap_or("pairs, whose number was not recorded,".into());
    let steps = |name: &str| count(name, "steps").map_or(String::new(), |n| format!(", {n}"));
    let held_out = count("pairs_held_out", "held-out pairs").unwrap_or("held-out pairs".into());
    let origin = if results.is_synthetic() { ", which is synthetic" } else { "" };
    format!(
        "{model} was fine-tuned on the preferred replies of {pairs} of preferences ({first}{}) and then trained on the preferences themselves by direct preference optimisation ({second}{}{}). The data set is “{}”{origin}. Both models were measured on {held_out} and on the prompts of each metric, always on the same cases. Brackets hold 95% intervals over prompts.",
        steps("sft_steps"),
        p.beta.map_or(String::new(), |beta| format!(", β\u{a0}=\u{a0}{beta}")),
        steps("dpo_steps"),
        escape(&p.data),
    )
}

/// One paragraph that says what was done, what changed, and how sure that is.
pub(super) fn summary(results: &Results) -> String {
    let f = Findings::of(results);
    let [first, second] = results.names().map(escape);
    let mut s = vec![what_was_done(results)];
    if let Some(row) = f.objective {
        s.push(format!(
            "The training reached its own objective on them: {}, {}, which is no comparison with {first}.",
            name(row),
            escape(&change(row))
        ));
    }
    s.push(match f.better.len() {
        0 => format!("In none of the main metrics was {second} shown to be better than {first}."),
        n => format!("{second} is better than {first} in {}: {}.", metrics(n), changes(&f.better)),
    });
    s.push(match f.worse.len() {
        0 => "None was shown to be worse, which is no proof that none is.".into(),
        n => format!("It is worse in {}: {}.", metrics(n), changes(&f.worse)),
    });
    if !f.different.is_empty() {
        s.push(format!("Without one way being the better one, they differ in {}.", changes(&f.different)));
    }
    if !f.not_shown.is_empty() {
        s.push(format!(
            "No difference was shown in these: {}. That is not evidence that the models are alike there; these cases do not tell them apart.",
            names(&f.not_shown)
        ));
    }
    if !f.not_tested.is_empty() {
        s.push(format!("Described but not tested: {}.", names(&f.not_tested)));
    }
    if !f.no_data.is_empty() {
        s.push(format!("Not enough data for a figure with an interval: {}.", names(&f.no_data)));
    }
    s.push(format!(
        "A difference is claimed where a paired test on the same prompts gives p below 0.05 after Holm’s correction for all {} tests of this report; another training seed would give other models, which the intervals do not cover.",
        f.tests
    ));
    s.join(" ")
}

/// At most four figures: the largest improvements and what got worse, then whatever else was shown.
fn key<'a>(f: &Findings<'a>) -> Vec<&'a Row> {
    // What got worse never falls off the end.
    let worse = f.worse.len().min(if f.better.len() >= 2 { 2 } else { KEY_FIGURES - f.better.len() });
    let better = f.better.len().min(KEY_FIGURES - worse);
    let rest = f.different.iter().chain(&f.not_shown).chain(&f.not_tested);
    f.better[..better].iter().chain(&f.worse[..worse]).chain(rest).take(KEY_FIGURES).copied().collect()
}

/// The strip of key figures.
pub(super) fn strip(results: &Results) -> String {
    let card = |row: &Row| {
        let form = Form::of(row);
        let of_second = value(&row.second, form);
        let [large, small] = match &row.first {
            None => [of_second, format!("{} where chance is 50%", interval(&row.second, form))],
            Some(first) => [format!("{} → {of_second}", value(first, form)), difference(row)],
        };
        format!(
            "<li class=\"{}\"><span class=\"metric\">{}</span><strong>{}</strong><span class=\"interval\">{}</span><span class=\"verdict\">{} {} <span class=\"n\">n\u{a0}=\u{a0}{}</span></span></li>",
            class(row.verdict),
            escape(&row.metric),
            escape(&large),
            escape(&small),
            sign(row.verdict),
            verdict(row),
            n(row)
        )
    };
    let cards: String = key(&Findings::of(results)).into_iter().map(card).collect();
    if cards.is_empty() { String::new() } else { format!("<ul class=\"findings\">{cards}</ul>") }
}
