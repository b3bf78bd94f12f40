//! The tables of a report, each with its caption.

use super::read::{Results, Row};
use super::words::{Form, class, difference, direction, effect, figure, instrument, n, p, sign, verdict};
use crate::eval::measure::Instrument;
use crate::table::{escape, grouped};

/// The settings that have a row of their own, in order; whatever else a run wrote follows them.
const SETTINGS: [(&str, &str); 13] = [
    ("preset", "Preset"),
    ("architecture", "Architecture"),
    ("parameters", "Parameters"),
    ("pairs_train", "Pairs for training"),
    ("pairs_held_out", "Pairs held out"),
    ("pairs_judge", "Pairs for the judge, none of them among the others"),
    ("sft_steps", "Steps of supervised fine-tuning"),
    ("dpo_steps", "Steps of preference optimisation"),
    ("temperature", "Sampling temperature"),
    ("samples", "Replies drawn for each prompt (toxicity)"),
    ("max_new_tokens", "Longest reply, tokens"),
    ("sft_optimiser", "Optimiser of the fine-tuning"),
    ("dpo_optimiser", "Optimiser of the preferences"),
];

/// A heading and a value to each row.
fn pairs(rows: &[(String, String)]) -> String {
    let row = |(name, value): &(String, String)| {
        format!(
            "<tr role=\"row\"><th role=\"rowheader\" scope=\"row\">{}</th><td role=\"cell\">{value}</td></tr>",
            escape(name)
        )
    };
    format!("<tbody>{}</tbody>", rows.iter().map(row).collect::<String>())
}

fn code(text: &str) -> String {
    format!("<code>{}</code>", escape(text))
}

/// A setting as a reader wants it.
pub(super) fn setting(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(s) => s.clone(),
        serde_json::Value::Number(n) => n.as_i64().map_or_else(|| n.to_string(), grouped),
        other => other.to_string(),
    }
}

/// Data, model and training.
pub(super) fn setup(results: &Results) -> String {
    let p = &results.provenance;
    let mut rows: Vec<(String, String)> = vec![
        ("Data".into(), escape(&p.data)),
        ("Data hash".into(), code(&p.data_hash)),
        ("Tokenizer hash".into(), code(&p.tokenizer_hash)),
    ];
    for (key, name) in SETTINGS {
        if let Some(value) = results.settings.get(key) {
            rows.push((name.into(), escape(&setting(value))));
        }
    }
    for (key, value) in results.settings.iter().filter(|(k, _)| !SETTINGS.iter().any(|s| s.0 == k.as_str())) {
        rows.push((key.replace('_', " "), escape(&setting(value))));
    }
    rows.push(("β".into(), p.beta_text()));
    rows.push(("Seed".into(), p.seed.to_string()));
    rows.extend(p.models.iter().map(|m| (format!("Weights of {}, hash", m.name), code(&m.hash))));
    pairs(&rows)
}

/// Every metric of both models.
pub(super) fn results(results: &Results) -> String {
    let [first, second] = results.names();
    let heads = ["metric", first, second, "difference", "effect", "n", "p", &format!("{second} is")]
        .map(|h| format!("<th scope=\"col\">{}</th>", escape(h)));
    let row = |r: &Row| {
        let form = Form::of(r);
        let (of_first, apart) = match &r.first {
            Some(number) => (escape(&figure(number, form)), escape(&difference(r))),
            None => ("<span class=\"aside\">joint</span>".into(), "<span class=\"aside\">against 50%</span>".into()),
        };
        let cell = |class: &str, head: &str, body: &str| {
            format!("<td role=\"cell\" class=\"{class}\" data-head=\"{}\">{body}</td>", escape(head))
        };
        let said = format!("<span class=\"verdict {}\">{} {}</span>", class(r.verdict), sign(r.verdict), verdict(r));
        [
            format!(
                "<tr role=\"row\" class=\"{}\"><th role=\"rowheader\" scope=\"row\">{}\u{a0}<span class=\"way\" aria-hidden=\"true\">{}</span><span class=\"spoken\">{}</span></th>",
                if r.detail { "detail" } else { "main" },
                escape(&r.metric),
                r.better.arrow(),
                direction(r.better)
            ),
            cell("figure", first, &of_first),
            cell("figure", second, &escape(&figure(&r.second, form))),
            cell("figure", "difference", &apart),
            cell("tested", "effect", &effect(r)),
            cell("count", "n", &grouped(n(r) as i64)),
            cell("tested", "p, corrected", &escape(&p(r))),
            cell("tested", "verdict", &said),
            "</tr>".into(),
        ]
        .concat()
    };
    let rows: String = results.rows.iter().map(row).collect();
    format!("<thead><tr role=\"row\">{}</tr></thead><tbody>{rows}</tbody>", heads.concat())
}

/// What stands under the table of results.
pub(super) fn results_caption(results: &Results) -> String {
    let mut tests: Vec<String> = results.rows.iter().filter(|r| r.p_value.is_some()).map(|r| escape(&r.test)).collect();
    tests.sort();
    tests.dedup();
    let n = results.rows.iter().filter(|r| r.p_corrected.is_some()).count();
    format!(
        "All metrics of both models; an arrow points the good way where there is one. Brackets hold 95% intervals over prompts. A joint figure is about both models and is set against chance, 50%. Indented lines are parts of the metric above them; they describe and are not tested. The difference of a perplexity is a ratio (×), that of a share is in percentage points. <i>p</i> is that of a paired test on the same cases ({}), corrected for {n} tests by Holm’s method; “no difference shown” means that it is not below 0.05, and is no evidence that there is none.",
        tests.join(", ")
    )
}

/// What one kind of instrument cannot say.
fn limit(kind: &Instrument) -> &'static str {
    match kind {
        Instrument::Formula => {
            "Counts and likelihoods; says nothing about whether a reply is right, relevant or helpful."
        }
        Instrument::Classifier(_) => {
            "Finds what it was trained to find, mostly rude and obscene words. Polite help with something dangerous scores low. Its scores compare only with its own."
        }
        Instrument::Judge(who) if who.contains("annotators") => {
            "People judge content and length together, and on few pairs their agreement is uncertain. Wins over the other model do not make a reply good."
        }
        Instrument::Judge(_) => {
            "A model stands in for people: what it rewards by mistake counts as a win. No more to be trusted than its accuracy on preferences that it has not seen."
        }
        Instrument::Rule(_) => {
            "Reads words, not sense: it misses what is said in other words, and takes a mention for the thing itself."
        }
        Instrument::LanguageModel(_) => "Finds likely what resembles its own training text; that is not quality.",
    }
}

/// Every instrument with what it measured and what it cannot say.
pub(super) fn instruments(results: &Results) -> String {
    let mut found: Vec<(&Instrument, Vec<&str>)> = vec![];
    for row in &results.rows {
        match found.iter_mut().find(|(i, _)| *i == &row.instrument) {
            Some((_, metrics)) => metrics.push(&row.metric),
            None => found.push((&row.instrument, vec![&row.metric])),
        }
    }
    let row = |(kind, metrics): &(&Instrument, Vec<&str>)| {
        let (word, identity) = instrument(kind);
        format!(
            "<tr><th scope=\"row\">{word}<span class=\"identity\">{}</span></th><td>{}</td><td>{}</td></tr>",
            escape(identity),
            escape(&metrics.join("; ")),
            limit(kind)
        )
    };
    format!(
        "<thead><tr><th scope=\"col\">instrument</th><th scope=\"col\">measured</th><th scope=\"col\">what it cannot say</th></tr></thead><tbody>{}</tbody>",
        found.iter().map(row).collect::<String>()
    )
}

/// How far each judge is to be trusted.
pub(super) fn judges(results: &Results) -> Option<String> {
    if results.judges.is_empty() {
        return None;
    }
    let rows = results.judges.iter().map(|j| {
        format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td></tr>",
            escape(&j.identity),
            escape(&figure(&j.accuracy, Form::Share)),
            grouped(j.accuracy.n as i64)
        )
    });
    Some(format!(
        "<thead><tr><th scope=\"col\">judge</th><th scope=\"col\">agrees with held-out preferences</th><th scope=\"col\">n</th></tr></thead><tbody>{}</tbody>",
        rows.collect::<String>()
    ))
}

/// Every hash and version, for the foot of the page.
pub(super) fn provenance(results: &Results) -> String {
    let p = &results.provenance;
    let mut items = vec![
        ("library".to_string(), format!("hhalign {}", results.version)),
        ("data".into(), p.data_hash.clone()),
        ("tokenizer".into(), p.tokenizer_hash.clone()),
    ];
    items.extend(p.models.iter().map(|m| (m.name.clone(), m.hash.clone())));
    items.push(("seed".into(), p.seed.to_string()));
    let mut identities: Vec<&str> = vec![];
    let of_rows = results.rows.iter().map(|r| &r.instrument).filter(|i| **i != Instrument::Formula);
    for identity in of_rows.map(|i| instrument(i).1) {
        if !identities.contains(&identity) {
            identities.push(identity);
        }
    }
    items.extend(identities.into_iter().map(|i| ("instrument".into(), i.into())));
    let item =
        |(name, value): &(String, String)| format!("<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value));
    format!("<dl>{}</dl>", items.iter().map(item).collect::<String>())
}
