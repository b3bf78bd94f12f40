//! Pages and parts of pages that react without the kernel: HTML with its scripts and data included.
//!
//! This file inserts scripts and data. `live.*` is a run's page, `annotate.*` the page for judging;
//! `beta_lab.js` and `slider.js` are parts of a notebook's output. `chart.js` draws the charts, and
//! `frame.js` embeds a served page in an output.

use serde_json::Value;

use crate::base::rng::sha256_hex;
use crate::show::table::escape;

const STYLE: &str = include_str!("style.css");
const CHART: &str = include_str!("chart.js");

/// An image of one pixel, which a page serves to show that it can be reached.
pub const DOT: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1\" height=\"1\"/>";

/// Returns the page of a training run; the page asks the server for the rest.
pub fn live() -> String {
    let live = include_str!("live.js");
    include_str!("live.html")
        .replace("{{STYLE}}", STYLE)
        .replace("{{CHART}}", CHART)
        .replace("{{LIVE}}", live)
}

/// Returns the page on which a person judges pairs of replies: served, or with `offline` data
/// included.
pub fn annotate(offline: Option<&Value>) -> String {
    let offline = offline.map_or_else(|| "null".into(), script_json);
    include_str!("annotate.html")
        .replace("{{ANNOTATE}}", include_str!("annotate.js"))
        .replace("{{OFFLINE}}", &offline)
}

/// Returns a lab that scores fixed weights again at another β or with another loss; `beta_lab.js`
/// describes `data`.
pub fn beta_lab(data: &Value) -> String {
    let data = script_json(data);
    let id = unique_id("beta-lab", &data);
    let lab = include_str!("beta_lab.js");
    format!(
        "<style>{STYLE}</style><div class=\"hhalign\" id=\"{id}\"></div>\n\
         <script>{CHART}\n{lab}\n\
         hhalign.betaLab(document.getElementById(\"{id}\"), {data});</script>"
    )
}

/// Returns a slider over replies that were sampled beforehand.
pub fn slider(data: &Value) -> String {
    let data = script_json(data);
    let id = unique_id("slider", &data);
    let slider = include_str!("slider.js");
    format!(
        "<style>{STYLE}</style><div class=\"hhalign\" id=\"{id}\"></div>\n\
         <script>({slider})(document.getElementById(\"{id}\"), {data});</script>"
    )
}

/// Returns a frame for a page of the loopback server inside a cell's output, initially `height`
/// pixels high. It shows `last` if the page cannot be reached.
pub fn live_frame(name: &str, address: &str, last: &str, height: u32) -> String {
    let id = unique_id("live", &format!("{name} {address}"));
    let settings = script_json(
        &serde_json::json!({ "id": id, "name": name, "address": address, "height": height }),
    );
    let frame = include_str!("frame.js");
    format!(
        "<div id=\"{id}\"><div data-last>{last}</div>\
         <div data-why style=\"opacity:.8;padding:2px 12px\">\
         This output updates while the kernel at {} runs. \
         It shows the state when the cell ended.</div></div>\n\
         <script>({frame})({settings});</script>",
        escape(address.split('/').nth(2).unwrap_or(address))
    )
}

/// Returns an element id that no other output of a notebook has.
fn unique_id(kind: &str, what: &str) -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos());
    let count = format!("{now} {}", COUNT.fetch_add(1, Ordering::Relaxed));
    format!("hhalign-{kind}-{}", sha256_hex([what.as_bytes(), count.as_bytes()], 8))
}

/// Returns JSON that is safe inside a script: no text in it can end the script.
fn script_json(value: &Value) -> String {
    value
        .to_string()
        .replace('<', "\\u003c")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}
