//! Two runs on one page.

use hhalign::report::compare;
use serde_json::json;

use super::{between, comparison, folder, has, seen};

#[test]
fn two_runs_on_the_same_data_compare_row_by_row() {
    let (a, b) = (
        folder("same-a", |_| {}),
        folder("same-b", |json| json["settings"]["dpo_steps"] = 99.into()),
    );
    let page = compare(&a.0, &b.0).unwrap();
    assert!(!page.contains("class=\"warning\""));
    assert_eq!(page.matches(">yes</td>").count(), comparison().rows().len());
    let marked: Vec<String> = page
        .split("<tr class=\"differs\">")
        .skip(1)
        .map(|r| seen(between(r, "<th", "</tr>")))
        .collect();
    assert_eq!(marked.len(), 1, "{marked:?}");
    has(&marked[0], "dpo steps 10 99 ≠ differs");
    has(&seen(&page), "75.0% [");
    has(&seen(&page), "No test compares the runs");
}

#[test]
fn runs_on_other_data_are_shown_with_a_warning_in_every_row() {
    let a = folder("apart-a", |_| {});
    let b = folder("apart-b", |json| {
        json["provenance"]["data_hash"] = "0123456789abcdef".into();
        json["provenance"]["tokenizer_hash"] = "fedcba9876543210".into();
        json["figures"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .for_each(|f| f["data_hash"] = "0123456789abcdef".into());
    });
    let page = compare(&a.0, &b.0).unwrap();
    has(
        &seen(between(&page, "class=\"warning\"", "</p>")),
        "These runs are not comparable: different data and different tokenizers.",
    );
    assert_eq!(
        page.matches("no: different data and different tokenizers").count(),
        comparison().rows().len()
    );
    assert!(!page.contains(">yes</td>"));
}

#[test]
fn a_row_measured_otherwise_or_in_one_run_only_says_so() {
    let a = folder("other-a", |_| {});
    let b = folder("other-b", |json| {
        for figure in json["figures"].as_array_mut().unwrap() {
            if figure["metric"] == "harmful prompts refused" {
                figure["instrument"] = json!({ "kind": "rule", "identity": "three phrases" });
            }
        }
        for part in ["figures", "comparisons"] {
            json[part].as_array_mut().unwrap().retain(|row| row["metric"] != "distinct-2");
        }
    });
    let page = compare(&a.0, &b.0).unwrap();
    let text = seen(&page);
    has(&text, "no: different instruments (");
    has(&text, "; three phrases)");
    has(&text, "no: only in A");
    assert_eq!(page.matches(">yes</td>").count(), comparison().rows().len() - 2);
    has(&seen(&compare(&b.0, &a.0).unwrap()), "no: only in B");
}
