//! Two results folders side by side: what is comparable, what is not, and why.

use std::collections::BTreeSet;
use std::path::Path;

use super::page::Page;
use super::read::{Results, Row};
use super::tables::setting;
use super::words::{beta, class, difference, format_of, instrument, list, sign, verdict};
use crate::base::error::Result;
use crate::show::table::escape;

/// Returns two results folders side by side as an HTML page: every metric of both, and why some are
/// not comparable.
///
/// # Errors
/// As [`report`](super::report), for either folder.
///
/// # Example
/// ```no_run
/// let page = hhalign::report::compare("results", "results-beta-0.3")?;
/// # Ok::<(), hhalign::base::error::Error>(())
/// ```
pub fn compare(first: impl AsRef<Path>, second: impl AsRef<Path>) -> Result<String> {
    let [a, b] = [Results::read(first.as_ref())?, Results::read(second.as_ref())?];
    let mut page = Page::new(&format!("{} and {} side by side", a.folder, b.folder));
    page.head(&format!(
        "<p class=\"kicker\">Two runs</p><h1>Results side by side</h1><p class=\"subtitle\"><b>A\
         </b> {} · <b>B</b> {}</p>{}",
        escape(&a.folder),
        escape(&b.folder),
        warning(&a, &b)
    ));
    page.section("What differs between the runs");
    page.table(
        "differs",
        &settings(&a, &b),
        "Settings, hashes and versions, with the different ones marked.",
    );
    page.section("Metric by metric");
    page.table(
        "beside",
        &metrics(&a, &b),
        "Values of both runs with 95% intervals over prompts. No test compares the runs: their \
         models also differ by training, which the intervals do not cover. Each row says whether \
         its values are comparable.",
    );
    Ok(page.finish(&format!(
        "<p>A: hhalign {}, data {}. B: hhalign {}, data {}.</p>",
        escape(&a.version),
        escape(&a.provenance.data_hash),
        escape(&b.version),
        escape(&b.provenance.data_hash)
    )))
}

/// What both runs must share for their values to be comparable, but do not.
fn different(a: &Results, b: &Results) -> Vec<&'static str> {
    let (p, q) = (&a.provenance, &b.provenance);
    let mut reasons = vec![];
    if p.data_hash != q.data_hash {
        reasons.push("different data");
    }
    if p.tokenizer_hash != q.tokenizer_hash {
        reasons.push("different tokenizers");
    }
    reasons
}

fn warning(a: &Results, b: &Results) -> String {
    let reasons: Vec<String> = different(a, b).into_iter().map(String::from).collect();
    if reasons.is_empty() {
        return String::new();
    }
    format!(
        "<p class=\"warning\" role=\"note\"><b>These runs are not comparable: {}.</b> Values on \
         different prompts or tokens differ for that reason alone. Read them side by side, but do \
         not subtract them.</p>",
        list(&reasons)
    )
}

/// Writes the table of settings and hashes, with the different ones marked.
fn settings(a: &Results, b: &Results) -> String {
    let of = |r: &Results| {
        let p = &r.provenance;
        let mut all = vec![
            ("data".to_string(), p.data.clone()),
            ("data hash".into(), p.data_hash.clone()),
            ("tokenizer hash".into(), p.tokenizer_hash.clone()),
            ("β".into(), beta(p)),
            ("seed".into(), p.seed.to_string()),
            ("version of hhalign".into(), r.version.clone()),
        ];
        all.extend(p.models.iter().map(|m| (format!("weights of {}", m.name), m.hash.clone())));
        all.extend(r.settings.iter().map(|(k, v)| (k.replace('_', " "), setting(v))));
        all
    };
    let (of_a, of_b) = (of(a), of(b));
    let mut names: Vec<&String> = vec![];
    for (name, _) in of_a.iter().chain(&of_b) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let find = |all: &[(String, String)], name: &String| {
        all.iter().find(|s| s.0 == *name).map(|s| s.1.clone())
    };
    let row = |name: &String| {
        let [x, y] = [find(&of_a, name), find(&of_b, name)];
        let same = x == y;
        let cell = |v: Option<String>| v.map_or("–".into(), |v| escape(&v));
        format!(
            "<tr class=\"{}\"><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td></tr>",
            if same { "same" } else { "differs" },
            escape(name),
            cell(x),
            cell(y),
            if same { "" } else { "≠ differs" }
        )
    };
    format!(
        "<thead><tr><th scope=\"col\">setting</th><th scope=\"col\">A</th><th scope=\"col\">B</th>\
         <th scope=\"col\"><span class=\"spoken\">same or not</span></th></tr></thead><tbody>{}\
         </tbody>",
        names.into_iter().map(row).collect::<String>()
    )
}

/// The rows of a metric in order: two judges may each have a rate of one name.
fn named<'a>(results: &'a Results, metric: &str) -> Vec<&'a Row> {
    results.rows.iter().filter(|r| r.metric == metric).collect()
}

fn metrics(a: &Results, b: &Results) -> String {
    let mut seen = BTreeSet::new();
    let mut body = String::new();
    for row in a.rows.iter().chain(&b.rows) {
        if !seen.insert(row.metric.clone()) {
            continue;
        }
        let (of_a, of_b) = (named(a, &row.metric), named(b, &row.metric));
        // Matched by instrument first, so that each judge is compared with itself; the rest in
        // order.
        let mut left: Vec<&Row> = of_b;
        let mut pairs: Vec<(Option<&Row>, Option<&Row>)> = vec![];
        let mut unmatched = vec![];
        for x in of_a {
            match left.iter().position(|y| y.instrument == x.instrument) {
                Some(i) => pairs.push((Some(x), Some(left.remove(i)))),
                None => unmatched.push(x),
            }
        }
        let mut left = left.into_iter();
        pairs.extend(unmatched.into_iter().map(|x| (Some(x), left.next())));
        pairs.extend(left.map(|y| (None, Some(y))));
        body.extend(pairs.into_iter().map(|(x, y)| metric(a, b, x, y)));
    }
    format!(
        "<thead><tr role=\"row\"><th scope=\"col\">metric</th><th scope=\"col\">of</th><th \
         scope=\"col\">A</th><th scope=\"col\">B</th><th scope=\"col\">comparable?</th></tr>\
         </thead>{body}"
    )
}

/// Writes a metric: a row for each model and one for their difference.
fn metric(a: &Results, b: &Results, x: Option<&Row>, y: Option<&Row>) -> String {
    let Some(row) = x.or(y) else { return String::new() };
    let mut reasons: Vec<String> = different(a, b).into_iter().map(String::from).collect();
    match (x, y) {
        (Some(x), Some(y)) => {
            if x.instrument != y.instrument {
                let [p, q] = [instrument(&x.instrument).1, instrument(&y.instrument).1];
                reasons.push(format!("different instruments ({p}; {q})"));
            }
            if x.data_hash != y.data_hash && a.provenance.data_hash == b.provenance.data_hash {
                reasons.push("different data".into());
            }
        }
        _ => reasons = vec![format!("only in {}", if x.is_some() { "A" } else { "B" })],
    }
    let answer = match reasons.as_slice() {
        [] => "yes".to_string(),
        reasons => format!("<span class=\"apart\">no: {}</span>", escape(&list(reasons))),
    };
    let of = |row: Option<&Row>, text: &dyn Fn(&Row) -> String| row.map_or("–".into(), text);
    let mut lines = vec![];
    let [first, second] = a.names();
    let value_of = |r: &Row, second: bool| match (&r.first, second) {
        (_, true) => escape(&r.second.format(&format_of(r))),
        (Some(number), false) => escape(&number.format(&format_of(r))),
        (None, false) => "–".into(),
    };
    if row.first.is_some() {
        lines.push((
            first.to_string(),
            of(x, &|r| value_of(r, false)),
            of(y, &|r| value_of(r, false)),
        ));
    }
    lines.push((second.to_string(), of(x, &|r| value_of(r, true)), of(y, &|r| value_of(r, true))));
    let compared = |r: &Row| {
        let difference =
            if r.first.is_some() { escape(&difference(r)) } else { "against 50%".into() };
        let mark = format!(
            "<span class=\"verdict {}\">{} {}</span>",
            class(r.verdict),
            sign(r.verdict),
            verdict(r)
        );
        if r.detail { difference } else { format!("{difference} {mark}") }
    };
    lines.push(("difference".into(), of(x, &compared), of(y, &compared)));
    let span = lines.len();
    let line = |(i, (who, of_a, of_b)): (usize, &(String, String, String))| {
        let (head, end) = match i {
            0 => (
                format!(
                    "<th role=\"rowheader\" scope=\"rowgroup\" rowspan=\"{span}\">{}</th>",
                    escape(&row.metric)
                ),
                format!("<td role=\"cell\" class=\"compares\" rowspan=\"{span}\">{answer}</td>"),
            ),
            _ => (String::new(), String::new()),
        };
        format!(
            "<tr role=\"row\">{head}<td role=\"cell\" class=\"who\">{}</td><td role=\"cell\" \
             data-head=\"A\">{of_a}</td><td role=\"cell\" data-head=\"B\">{of_b}</td>{end}</tr>",
            escape(who)
        )
    };
    let class = if row.detail { "detail" } else { "main" };
    format!(
        "<tbody class=\"{class}\">{}</tbody>",
        lines.iter().enumerate().map(line).collect::<String>()
    )
}
