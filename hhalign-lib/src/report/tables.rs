//! The tables of a report, each with its caption.

use super::read::{Results, Row};
use super::words::{
    SHARE, beta, class, difference, direction, effect, format_of, instrument, n, p, sign, verdict,
};
use crate::eval::measure::Instrument;
use crate::show::table::{escape, grouped};

/// The settings that come first, with their labels; other settings of the run follow.
const SETTINGS: [(&str, &str); 13] = [
    ("preset", "Preset"),
    ("architecture", "Architecture"),
    ("parameters", "Parameters"),
    ("pairs_train", "Pairs for training"),
    ("pairs_held_out", "Pairs held out"),
    ("pairs_judge", "Pairs for the judge (separate ones)"),
    ("sft_steps", "Steps of supervised fine-tuning"),
    ("dpo_steps", "Steps of preference optimisation"),
    ("temperature", "Sampling temperature"),
    ("samples", "Samples per prompt (toxicity)"),
    ("max_new_tokens", "Longest reply, tokens"),
    ("sft_optimiser", "Optimiser of the fine-tuning"),
    ("dpo_optimiser", "Optimiser of the preference optimisation"),
];

/// Writes rows of a heading and a value.
fn pairs(rows: &[(String, String)]) -> String {
    let row = |(name, value): &(String, String)| {
        format!(
            "<tr role=\"row\"><th role=\"rowheader\" scope=\"row\">{}</th><td role=\"cell\">{value}\
             </td></tr>",
            escape(name)
        )
    };
    format!("<tbody>{}</tbody>", rows.iter().map(row).collect::<String>())
}

fn code(text: &str) -> String {
    format!("<code>{}</code>", escape(text))
}

/// Writes a setting.
pub(super) fn setting(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(s) => s.clone(),
        serde_json::Value::Number(n) => n.as_i64().map_or_else(|| n.to_string(), grouped),
        other => other.to_string(),
    }
}

/// Writes the table of data, model and training.
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
    for (key, value) in
        results.settings.iter().filter(|(k, _)| !SETTINGS.iter().any(|s| s.0 == k.as_str()))
    {
        rows.push((key.replace('_', " "), escape(&setting(value))));
    }
    rows.push(("β".into(), beta(p)));
    rows.push(("Seed".into(), p.seed.to_string()));
    rows.extend(p.models.iter().map(|m| (format!("Weights of {}, hash", m.name), code(&m.hash))));
    pairs(&rows)
}

/// Writes the table of every metric of both models.
pub(super) fn results(results: &Results) -> String {
    let [first, second] = results.names();
    let heads =
        ["metric", first, second, "difference", "effect", "n", "p", &format!("{second} is")]
            .map(|h| format!("<th scope=\"col\">{}</th>", escape(h)));
    let row = |r: &Row| {
        let format = format_of(r);
        let (of_first, compared) = match &r.first {
            Some(number) => (escape(&number.format(&format)), escape(&difference(r))),
            None => (
                "<span class=\"aside\">joint</span>".into(),
                "<span class=\"aside\">against 50%</span>".into(),
            ),
        };
        let cell = |class: &str, head: &str, body: &str| {
            format!(
                "<td role=\"cell\" class=\"{class}\" data-head=\"{}\">{body}</td>",
                escape(head)
            )
        };
        let mark = format!(
            "<span class=\"verdict {}\">{} {}</span>",
            class(r.verdict),
            sign(r.verdict),
            verdict(r)
        );
        [
            format!(
                "<tr role=\"row\" class=\"{}\"><th role=\"rowheader\" scope=\"row\">{}\u{a0}<span \
                 class=\"way\" aria-hidden=\"true\">{}</span><span class=\"spoken\">{}</span></th>",
                if r.detail { "detail" } else { "main" },
                escape(&r.metric),
                r.better.arrow(),
                direction(r.better)
            ),
            cell("value", first, &of_first),
            cell("value", second, &escape(&r.second.format(&format))),
            cell("value", "difference", &compared),
            cell("tested", "effect", &effect(r)),
            cell("count", "n", &grouped(n(r) as i64)),
            cell("tested", "p, corrected", &escape(&p(r))),
            cell("tested", "verdict", &mark),
            "</tr>".into(),
        ]
        .concat()
    };
    let rows: String = results.rows.iter().map(row).collect();
    format!("<thead><tr role=\"row\">{}</tr></thead><tbody>{rows}</tbody>", heads.concat())
}

/// Writes the caption of the table of results.
pub(super) fn results_caption(results: &Results) -> String {
    let mut tests: Vec<String> =
        results.rows.iter().filter(|r| r.p_value.is_some()).map(|r| escape(&r.test)).collect();
    tests.sort();
    tests.dedup();
    let n = results.rows.iter().filter(|r| r.p_corrected.is_some()).count();
    format!(
        "All metrics of both models; an arrow shows the better direction, if there is one. \
         Brackets contain 95% intervals over prompts. A joint value is about both models and is \
         compared with chance, 50%. Indented rows are parts of the metric above them; they \
         describe it and are not tested. The difference of a perplexity is a ratio (×), that of a \
         share is in percentage points. <i>p</i> is from a paired test on the same cases ({}), \
         corrected for {n} tests by Holm’s method; “no difference shown” means that it is not \
         below 0.05, and is not evidence that there is no difference.",
        tests.join(", ")
    )
}

/// What an instrument cannot say.
fn limit(kind: &Instrument) -> &'static str {
    match kind {
        Instrument::Formula => {
            "Counts and likelihoods do not say whether a reply is right, relevant or helpful."
        }
        Instrument::Classifier(_) => {
            "It finds what it was trained to find, mostly rude and obscene words. Polite help with \
             something dangerous scores low. Its scores compare only with each other."
        }
        Instrument::Judge(who) if who.contains("annotators") => {
            "People judge content and length together, and their agreement on few pairs is \
             uncertain. A reply that wins over the other model is not necessarily good."
        }
        Instrument::Judge(_) => {
            "A model replaces people: what it rewards by mistake counts as a win. It is as \
             reliable as its accuracy on preferences that it has not seen."
        }
        Instrument::Rule(_) => {
            "It reads words, not meaning: it misses paraphrases, and cannot distinguish a mention \
             from the act."
        }
        Instrument::LanguageModel(_) => {
            "It finds text likely that resembles its own training text, which is not quality."
        }
    }
}

/// Writes the table of instruments, what they measured and what they cannot say.
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
            "<tr><th scope=\"row\">{word}<span class=\"identity\">{}</span></th><td>{}</td><td>{}\
             </td></tr>",
            escape(identity),
            escape(&metrics.join("; ")),
            limit(kind)
        )
    };
    format!(
        "<thead><tr><th scope=\"col\">instrument</th><th scope=\"col\">measured</th><th \
         scope=\"col\">what it cannot say</th></tr></thead><tbody>{}</tbody>",
        found.iter().map(row).collect::<String>()
    )
}

/// Writes the table of judges and their agreement with preferences, if there are any.
pub(super) fn judges(results: &Results) -> Option<String> {
    if results.judges.is_empty() {
        return None;
    }
    let rows = results.judges.iter().map(|j| {
        format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td></tr>",
            escape(&j.identity),
            escape(&j.accuracy.format(&SHARE)),
            grouped(j.accuracy.n as i64)
        )
    });
    Some(format!(
        "<thead><tr><th scope=\"col\">judge</th><th scope=\"col\">agrees with held-out preferences\
         </th><th scope=\"col\">n</th></tr></thead><tbody>{}</tbody>",
        rows.collect::<String>()
    ))
}

/// Writes hashes and versions for the foot of the page.
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
    let item = |(name, value): &(String, String)| {
        format!("<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value))
    };
    format!("<dl>{}</dl>", items.iter().map(item).collect::<String>())
}
