//! The fixtures in `tests/golden`, and the real data where there is some.

use std::path::PathBuf;

use candle_core::{DType, Tensor};
use hhalign::data::batch::Batch;
use hhalign::model::Gpt;
use hhalign::model::checkpoint::{read_config, read_tensors};

use crate::common::{Tensors, distance, golden, max_abs, numbers};

pub fn golden_tensors(name: &str) -> Tensors {
    read_tensors(&golden(name)).expect("a fixture")
}

pub fn golden_json(name: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(golden(name)).expect("a fixture")).expect("JSON")
}

/// A model of the fixtures; their folders hold no tokenizer, so `load_model` does not serve.
pub fn golden_model(name: &str) -> Gpt {
    let folder = golden(name);
    let config = read_config(&folder.join("config.json")).expect("a config");
    let parameters = read_tensors(&folder.join("model.safetensors")).expect("weights");
    Gpt::from_parameters(config, parameters, true).expect("weights that fit")
}

/// The library's own batch of fixture ids: where a reply begins and ends is read off the mask.
pub fn golden_batch(ids: &Tensor, mask: &Tensor) -> Batch {
    let ids = ids.to_dtype(DType::U32).unwrap().to_vec2::<u32>().unwrap();
    let mask = mask.to_vec2::<f32>().unwrap();
    let spans = mask.iter().map(|row| {
        let counts = |&(_, &m): &(usize, &f32)| m == 1.0;
        let start = row.iter().enumerate().find(counts).expect("a reply").0;
        let end = row.iter().enumerate().rfind(counts).expect("a reply").0 + 1;
        (start, end)
    });
    let rows: Vec<(&[u32], &[u32])> =
        ids.iter().zip(spans).map(|(r, (s, e))| (&r[..s], &r[s..e])).collect();
    Batch::new(&rows, 0).expect("a batch")
}

pub fn number(tensor: &Tensor) -> f64 {
    let all = numbers(tensor);
    assert_eq!(all.len(), 1);
    all[0]
}

/// Largest difference of gradients relative to each tensor's largest entry, over all `grad.*` of a
/// fixture.
pub fn gradient_error(ours: &Tensors, expected: &Tensors) -> (f64, String) {
    let mut worst = (0.0, String::new());
    let mut compared = 0;
    for (name, wanted) in
        expected.iter().filter_map(|(n, t)| n.strip_prefix("grad.").map(|n| (n, t)))
    {
        let wanted = numbers(wanted);
        let error = distance(&numbers(&ours[name]), &wanted) / max_abs(&wanted);
        if error > worst.0 {
            worst = (error, name.to_string());
        }
        compared += 1;
    }
    assert_eq!(compared, ours.len(), "every parameter has an expected gradient");
    worst
}

/// The real data, where `HHALIGN_TEST_DATA` names its folder; otherwise one line says that a test
/// was skipped.
pub fn test_data(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("HHALIGN_TEST_DATA").map(PathBuf::from);
    if folder.is_none() {
        println!(
            "skipped: {test} needs HHALIGN_TEST_DATA, a folder with hh/harmless-base.test.jsonl.gz"
        );
    }
    folder
}
