//! What a summary may lack, hold in addition, or hold wrongly.

use std::path::Path;

use hhalign::report::{compare, report, write_report};
use serde_json::{Value, json};

use super::{folder, has, seen};
use crate::common::{Folder, error};

#[test]
fn what_a_run_did_not_write_is_left_out_and_what_it_did_is_shown() {
    let plain = folder("plain", |_| {});
    let page = report(&plain.0).unwrap();
    for absent in
        ["Reward and distance", "How often each judge", "Share of sampled replies at or above"]
    {
        assert!(!page.contains(absent), "{absent}");
    }
    has(&page, "<i>an empty reply</i>");
    let full = folder("full", |json| {
        let estimate = |v: f64| json!({ "value": v, "low": v - 0.1, "high": v + 0.1, "n": 200, "method": "bootstrap-t" });
        let unknown = json!({ "value": null, "low": null, "high": null, "n": 3, "method": "not enough data" });
        let point = |beta: f64, step: usize, kl: Value, reward: f64| {
            json!({
                "label": format!("β = {beta}"), "beta": beta, "step": step, "model_hash": "0123456789ab",
                "kl": kl, "reward": estimate(reward), "judge": "J", "seed": 7,
            })
        };
        json["frontier"] = json!([
            point(0.1, 80, estimate(12.5), 1.25),
            point(0.2, 81, estimate(2.5), 0.75),
            point(0.9, 82, unknown, 0.25),
        ]);
        let accuracy =
            json!({ "value": 0.9, "low": 0.8256, "high": 0.9448, "n": 100, "method": "Wilson" });
        json["judges"] =
            json!([{ "identity": "reward model, sha256 0123abcd", "accuracy": accuracy }]);
        json["toxicity_scores"] = json!({ "SFT": [0.0, 0.6, 0.95], "DPO": [0.0, 0.1, 0.2] });
    });
    let page = report(&full.0).unwrap();
    has(&page, "β = 0.1, step 80");
    assert!(!page.contains("step 82"), "a point without data was drawn");
    has(&seen(&page), "each line is a training (β = 0.1 and β = 0.2)");
    let text = seen(&page);
    has(&text, "Not enough data to draw: 1.");
    has(&text, "reward model, sha256 0123abcd 90.0% [82.6, 94.5] 100");
    has(&text, "SFT: 2 of 3 at or above 0.5, 1 at or above 0.9; DPO: 0 of 3");
}

#[test]
fn what_is_no_summary_is_refused_with_a_reason() {
    let refused = |folder: &Path| {
        let e = error(report(folder));
        assert_eq!(e, error(compare(folder, folder)));
        assert!(error(write_report(folder)).what().contains(&*folder.to_string_lossy()), "{e}");
        e
    };
    let empty = Folder::new("report-empty");
    has(refused(&empty.0).fix(), "./scripts/run --out");
    empty.write("results_summary.json", "{\"schema_version\": 1, \"figures\": [");
    has(refused(&empty.0).got(), "EOF");
    empty.write("results_summary.json", "{}");
    has(refused(&empty.0).got(), "schema_version");
    empty.write("results_summary.json", "{\"schema_version\": 2}");
    has(refused(&empty.0).got(), "schema_version 2, and this library reads 1");
    type Change = fn(&mut Value);
    let broken: [(&str, Change, &str); 5] = [
        (
            "low",
            |j| drop(j["figures"][0].as_object_mut().unwrap().remove("low")),
            "missing field `low`",
        ),
        (
            "instrument",
            |j| drop(j["figures"][2]["instrument"].as_object_mut().unwrap().remove("identity")),
            "identity",
        ),
        ("fewer", |j| drop(j["figures"].as_array_mut().unwrap().pop()), "no value for"),
        (
            "more",
            |j| drop(j["comparisons"].as_array_mut().unwrap().pop()),
            "a value without a comparison",
        ),
        ("swapped", |j| j["figures"].as_array_mut().unwrap().swap(1, 4), "where"),
    ];
    for (name, change, got) in broken {
        has(refused(&folder(&format!("broken-{name}"), change).0).got(), got);
    }
    // What a later version adds is no reason to refuse.
    let more = folder("unknown", |json| json["later"] = json!([1, 2]));
    report(&more.0).unwrap();
}

#[test]
fn a_summary_without_a_run_names_no_beta() {
    let folder = folder("no-beta", |json| json["provenance"]["beta"] = Value::Null);
    let text = seen(&report(&folder.0).unwrap());
    assert!(!text.contains("--beta") && !text.contains("β\u{a0}="), "{text}");
    has(&text, "β not recorded");
    has(&seen(&report(&self::folder("beta", |_| {}).0).unwrap()), "--beta 0.3");
}

#[test]
fn a_later_version_s_methods_and_scales_are_read_and_not_guessed() {
    let folder = folder("later", |json| {
        for figure in json["figures"].as_array_mut().unwrap() {
            figure["method"] = "Wilson's, improved".into();
        }
        for row in json["comparisons"].as_array_mut().unwrap() {
            row["effect_name"] = "Cohen's new one".into();
        }
    });
    let text = seen(&report(&folder.0).unwrap());
    has(&text, "refusal, balanced accuracy ↑");
    assert!(
        !text.contains("75.0% [") && text.contains("0.75"),
        "only a known share is shown in percent"
    );
}
