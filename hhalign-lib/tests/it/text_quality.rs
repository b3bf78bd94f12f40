//! Self-BLEU and distinct-n against NLTK (scripts/golden/make_text.py).

use hhalign::eval::metrics::quality::{distinct, self_bleu};

use crate::common::distance;
use crate::fixtures::golden_json;

#[test]
fn self_bleu_and_distinct_equal_nltks() {
    let sets = golden_json("text_quality.json");
    for set in sets.as_array().unwrap() {
        let name = &set["name"];
        let texts: Vec<String> = serde_json::from_value(set["texts"].clone()).unwrap();
        for n in [2, 4] {
            let wanted: Vec<f64> =
                serde_json::from_value(set[format!("self_bleu_{n}")].clone()).unwrap();
            let ours = self_bleu(&texts, n);
            assert!(
                distance(&ours, &wanted) < 1e-6,
                "{name}, self-BLEU-{n}: {ours:?} and not {wanted:?}"
            );
        }
        for n in [1, 2] {
            let (ours, wanted) =
                (distinct(&texts, n), set[format!("distinct_{n}")].as_f64().unwrap());
            assert!((ours - wanted).abs() < 1e-6, "{name}, distinct-{n}: {ours} and not {wanted}");
        }
    }
}

#[test]
fn self_bleu_needs_another_text() {
    assert!(self_bleu(&[], 4).is_empty());
    assert!(self_bleu(&["alone".to_string()], 4)[0].is_nan());
}

#[test]
fn self_bleu_takes_time_in_proportion_to_the_words() {
    // Against every other text in turn, sixteen thousand of these would take minutes.
    let texts: Vec<String> = (0..16_000)
        .map(|i| format!("reply {i} says {} and {} to that", i % 7, i % 1_000))
        .collect();
    let start = std::time::Instant::now();
    let scores = self_bleu(&texts, 4);
    assert!(scores.iter().all(|s| (0.0..=1.0).contains(s)));
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}
