//! Pages and pieces of pages that react without the kernel: HTML with its scripts and data inside, and nothing from elsewhere.

use serde_json::Value;

use crate::rng::sha256_hex;
use crate::table::escape;

const STYLE: &str = include_str!("style.css");
const CHART: &str = include_str!("chart.js");

/// A picture of one point: what a page answers that only wants to be known as reachable.
pub const DOT: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1\" height=\"1\"/>";

/// The page of a running training; it asks the server for the rest.
pub fn live() -> String {
    let live = include_str!("live.js");
    include_str!("live.html").replace("{{STYLE}}", STYLE).replace("{{CHART}}", CHART).replace("{{LIVE}}", live)
}

/// The page on which a person judges pairs of replies: served, or with `offline` data inside it.
pub fn annotate(offline: Option<&Value>) -> String {
    let offline = offline.map_or_else(|| "null".into(), in_script);
    include_str!("annotate.html").replace("{{ANNOTATE}}", include_str!("annotate.js")).replace("{{OFFLINE}}", &offline)
}

/// A lab that scores fixed weights anew under another β or another loss; `data` as `beta_lab.js` describes it.
pub fn beta_lab(data: &Value) -> String {
    let data = in_script(data);
    let id = element("beta-lab", &data);
    let lab = include_str!("beta_lab.js");
    format!(
        "<style>{STYLE}</style><div class=\"hhalign\" id=\"{id}\"></div>\n<script>{CHART}\n{lab}\nhhalign.betaLab(document.getElementById(\"{id}\"), {data});</script>"
    )
}

/// A slider through replies that were drawn beforehand.
pub fn slider(data: &Value) -> String {
    let data = in_script(data);
    let id = element("slider", &data);
    let slider = include_str!("slider.js");
    format!(
        "<style>{STYLE}</style><div class=\"hhalign\" id=\"{id}\"></div>\n<script>({slider})(document.getElementById(\"{id}\"), {data});</script>"
    )
}

/// A page from the loopback server inside a cell's output, so many pixels high at first, with `last` in its place where it
/// cannot be reached.
pub fn live_frame(name: &str, address: &str, last: &str, height: u32) -> String {
    let id = element("live", &format!("{name} {address}"));
    let settings = in_script(&serde_json::json!({ "id": id, "name": name, "address": address, "height": height }));
    let frame = include_str!("frame.js");
    format!(
        "<div id=\"{id}\"><div data-last>{last}</div><div data-why style=\"opacity:.8;padding:2px 12px\">What stands here moves while the kernel at {} runs. This is the state in which the cell ended.</div></div>\n<script>({frame})({settings});</script>",
        escape(address.split('/').nth(2).unwrap_or(address))
    )
}

/// An id for an element that no other output of a notebook has.
fn element(kind: &str, what: &str) -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    let count = format!("{now} {}", COUNT.fetch_add(1, Ordering::Relaxed));
    format!("hhalign-{kind}-{}", sha256_hex([what.as_bytes(), count.as_bytes()], 8))
}

/// JSON that can stand inside a script: no text in it can end the script.
fn in_script(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}
