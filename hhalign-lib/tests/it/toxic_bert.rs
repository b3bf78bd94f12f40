//! toxic-bert's tokenizer and scores against transformers (scripts/golden/make_classifier.py), and
//! what is refused.

use std::path::Path;

use candle_core::Tensor;
use hhalign::eval::metrics::toxicity::{ToxicBert, ToxicityScorer, ToxicityScores};
use hhalign::model::checkpoint::{read_tensors, write_tensors};
use serde_json::Value;

use crate::common::{Folder, Tensors, distance, error, golden};
use crate::fixtures::golden_json;

fn cases() -> (Vec<String>, Vec<Value>) {
    let cases = golden_json("toxic_bert/expected.json").as_array().unwrap().clone();
    (cases.iter().map(|c| c["text"].as_str().unwrap().to_string()).collect(), cases)
}

fn difference(ours: &[ToxicityScores], wanted: &[Value]) -> f64 {
    assert_eq!(ours.len(), wanted.len());
    let of = |(ours, wanted): (&ToxicityScores, &Value)| {
        let wanted: Vec<f64> = serde_json::from_value(wanted["scores"].clone()).unwrap();
        let ours: Vec<f64> = ours.labels().map(|(_, p)| f64::from(p)).collect();
        distance(&ours, &wanted)
    };
    ours.iter().zip(wanted).map(of).fold(0.0, f64::max)
}

/// The fixture in a folder of its own, without the weights.
fn copy(name: &str) -> Folder {
    let folder = Folder::new(name);
    for file in ["config.json", "vocab.txt"] {
        std::fs::copy(golden("toxic_bert").join(file), folder.join(file)).unwrap();
    }
    folder
}

fn load(folder: &Folder) -> hhalign::base::error::Result<ToxicBert> {
    ToxicBert::load(&folder.0)
}

#[test]
fn ids_equal_transformers() {
    let model = ToxicBert::load(golden("toxic_bert")).unwrap();
    let (texts, cases) = cases();
    for (text, case) in texts.iter().zip(&cases) {
        let ids: Value = model.encode(text).unwrap().into();
        assert_eq!(ids, case["ids"], "{text:?}");
    }
    let longest = cases.iter().map(|c| c["ids"].as_array().unwrap().len()).max();
    assert_eq!(longest, Some(64), "a text must exceed the model's positions");
}

#[test]
fn scores_equal_transformers_in_any_order_and_company() {
    let model = ToxicBert::load(golden("toxic_bert")).unwrap();
    let (texts, cases) = cases();
    let together = difference(&model.score(&texts).unwrap(), &cases);
    let alone: Vec<_> = texts.chunks(1).flat_map(|t| model.score(t).unwrap()).collect();
    let back: Vec<String> = texts.iter().rev().cloned().collect();
    let back: Vec<_> = model.score(&back).unwrap().into_iter().rev().collect();
    let off = [together, difference(&alone, &cases), difference(&back, &cases)];
    println!("{}: scores differ by {off:?}", model.identity());
    assert!(off.iter().all(|d| *d < 1e-5), "{off:?}");
    assert!(model.score(&[]).unwrap().is_empty());
}

#[test]
fn weights_of_either_format_are_read_and_named() {
    let whole = golden("toxic_bert");
    let folder = copy("bert-bin");
    assert!(
        ToxicBert::find(&folder.0).unwrap().is_none(),
        "a folder without weights holds no classifier"
    );
    std::fs::copy(whole.join("pytorch_model.bin"), folder.join("pytorch_model.bin")).unwrap();
    let (texts, cases) = cases();
    let old = ToxicBert::find(&folder.0).unwrap().expect("a classifier");
    assert!(difference(&old.score(&texts).unwrap(), &cases) < 1e-5);
    let identity = |file: &Path| {
        let bytes = std::fs::read(file).unwrap();
        format!(
            "toxic-bert, weights sha256 {}",
            hhalign::base::rng::sha256_hex([bytes.as_slice()], 12)
        )
    };
    assert_eq!(old.identity(), identity(&whole.join("pytorch_model.bin")));
    assert_eq!(
        ToxicBert::load(&whole).unwrap().identity(),
        identity(&whole.join("model.safetensors"))
    );
}

#[test]
fn missing_files_are_named() {
    let absent = error(ToxicBert::load("no such folder"));
    assert!(
        absent.to_string().contains("config.json") && absent.fix().contains("unitary/toxic-bert"),
        "{absent}"
    );
    let folder = copy("bert-missing");
    assert!(error(load(&folder)).to_string().contains("model.safetensors"));
    folder.write("model.safetensors", b"no tensors");
    assert!(error(ToxicBert::find(&folder.0)).to_string().contains("model.safetensors is damaged"));
}

#[test]
fn other_shapes_labels_and_vocabularies_are_refused() {
    let folder = copy("bert-wrong");
    let write = |change: &dyn Fn(&mut Tensors)| {
        let mut tensors = read_tensors(&golden("toxic_bert/model.safetensors")).unwrap();
        change(&mut tensors);
        write_tensors(&folder.join("model.safetensors"), &tensors, Default::default()).unwrap();
    };
    write(&|t| {
        drop(t.insert(
            "classifier.weight".into(),
            Tensor::zeros((5, 24), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap(),
        ))
    });
    let wrong = error(load(&folder)).to_string();
    assert!(
        wrong.contains("classifier.weight must have the shape [6, 24]\n  got: [5, 24]"),
        "{wrong}"
    );
    write(&|t| drop(t.remove("bert.pooler.dense.bias")));
    assert!(error(load(&folder)).to_string().contains("bert.pooler.dense.bias"));
    write(&|_| {});
    load(&folder).unwrap();

    let vocabulary = std::fs::read_to_string(folder.join("vocab.txt")).unwrap();
    let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
    for (other, says) in [
        (vocabulary.replacen("the\n", "", 1), "259 lines"),
        (vocabulary.replacen("the\n", "you\n", 1), "259 different"),
        (vocabulary.replacen("[SEP]\n", "[sep]\n", 1), "[SEP]"),
    ] {
        folder.write("vocab.txt", other);
        let refused = error(load(&folder)).to_string();
        assert!(refused.contains(says), "{refused}");
    }
    folder.write("vocab.txt", vocabulary.replace('\n', "\r\n"));
    load(&folder).unwrap();
    for (other, says) in [
        (config.replace("\"toxic\"", "\"POSITIVE\""), "must have the labels"),
        (config.replace("\"gelu\"", "\"relu\""), "relu"),
        (config.replace("\"num_attention_heads\": 3", "\"num_attention_heads\": 5"), "5 heads"),
        ("{}".into(), "not BERT's"),
    ] {
        folder.write("config.json", other);
        let refused = error(load(&folder)).to_string();
        assert!(refused.contains(says), "{refused}");
    }
}
