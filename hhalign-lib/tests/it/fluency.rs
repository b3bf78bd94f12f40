//! Likelihoods under a language model from a GGUF file, against llama.cpp's ids and transformers'
//! log-probabilities (scripts/golden/make_language_model.py), and what is refused.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use candle_core::quantized::QTensor;
use candle_core::quantized::gguf_file::{Content, Value, write};
use hhalign::eval::metrics::fluency::Fluency;

use crate::common::{Folder, distance, error, golden, max_abs};
use crate::fixtures::golden_json;

struct Case {
    prompt: String,
    reply: String,
    logps: Vec<f64>,
}

fn cases(name: &str, model: &Fluency) -> Vec<Case> {
    let golden = golden_json(name);
    assert!(model.identity().ends_with(golden["sha256"].as_str().unwrap()), "{}", model.identity());
    let read = |case: &serde_json::Value| {
        let text = |key: &str| case[key].as_str().unwrap().to_string();
        for key in ["prompt", "reply"] {
            let ids: Vec<u32> = serde_json::from_value(case[format!("{key}_ids")].clone()).unwrap();
            assert_eq!(model.encode(&text(key)).unwrap(), ids, "{:?}", text(key));
        }
        let logps = serde_json::from_value(case["logps"].clone()).unwrap();
        Case { prompt: text("prompt"), reply: text("reply"), logps }
    };
    golden["cases"].as_array().unwrap().iter().map(read).collect()
}

fn texts<'a>(cases: impl Iterator<Item = &'a Case>) -> (Vec<String>, Vec<String>) {
    cases.map(|c| (c.prompt.clone(), c.reply.clone())).unzip()
}

/// Largest difference to the expected log-probabilities of all tokens.
fn difference<'a>(model: &Fluency, cases: impl Iterator<Item = &'a Case> + Clone) -> f64 {
    let (prompts, replies) = texts(cases.clone());
    let ours = model.token_logps(&prompts, &replies).unwrap();
    assert_eq!(ours.len(), replies.len());
    let of = |(ours, case): (Vec<f32>, &Case)| {
        let ours: Vec<f64> = ours.into_iter().map(f64::from).collect();
        distance(&ours, &case.logps)
    };
    ours.into_iter().zip(cases).map(of).fold(0.0, f64::max)
}

#[test]
fn log_probabilities_equal_transformers() {
    let model = Fluency::load(golden("small.gguf")).unwrap();
    let cases = cases("small_lm.json", &model);
    let together = difference(&model, cases.iter());
    let back = difference(&model, cases.iter().rev());
    let alone =
        cases.iter().map(|case| difference(&model, std::iter::once(case))).fold(0.0, f64::max);
    println!("{}: log-probabilities differ by {together:.1e} at most", model.identity());
    assert!(max_abs(&[together, back, alone]) < 1e-4, "{together} {back} {alone}");
    let (prompts, replies) = texts(cases.iter());
    for (case, score) in cases.iter().zip(model.score(&prompts, &replies).unwrap()) {
        let nll = -case.logps.iter().sum::<f64>();
        assert_eq!(score.tokens, case.logps.len());
        assert!((score.nll - nll).abs() < 1e-5 * (1.0 + nll), "{score:?} and not {nll}");
    }
    assert!(model.score(&[], &[]).unwrap().is_empty());
}

#[test]
fn a_real_model_equals_transformers() {
    let Some(path) = std::env::var_os("HHALIGN_GGUF") else {
        return println!(
            "skipped: HHALIGN_GGUF names no SmolLM2-135M-Instruct.Q4_1.gguf, so no real language model is tested"
        );
    };
    let model = Fluency::load(PathBuf::from(path)).unwrap();
    let cases = cases("smollm2.json", &model);
    let worst = difference(&model, cases.iter());
    println!("{}: log-probabilities differ by {worst:.1e} at most", model.identity());
    assert!(worst < 2e-4, "{worst}");
}

#[test]
fn many_replies_to_one_prompt_are_those_of_one_reply_each() {
    // More tokens than a batch holds, so that a prompt must begin anew.
    let model = Fluency::load(golden("small.gguf")).unwrap();
    let reply = |i: usize| {
        format!(" First, list what is running {}, then stop number {i}.", "and look ".repeat(i % 5))
    };
    let replies: Vec<String> = (0..150).map(reply).collect();
    let prompts: Vec<String> =
        (0..150).map(|i| if i % 10 == 9 { "What?" } else { "Help me:" }.to_string()).collect();
    let together = model.score(&prompts, &replies).unwrap();
    for (i, whole) in together.iter().enumerate() {
        let alone = model.score(&prompts[i..=i], &replies[i..=i]).unwrap()[0];
        assert_eq!(whole.tokens, alone.tokens);
        assert!((whole.nll - alone.nll).abs() < 1e-3, "{i}: {whole:?} {alone:?}");
    }
    assert!(together.iter().map(|l| l.tokens).sum::<usize>() > 2048);
}

#[test]
fn prompts_and_replies_come_in_pairs() {
    let model = Fluency::load(golden("small.gguf")).unwrap();
    let refused = error(model.score(&["a".to_string()], &[]));
    assert!(refused.got().contains("1 prompts, 0 replies"), "{refused}");
}

type Metadata = HashMap<String, Value>;
type Weights = BTreeMap<String, Arc<QTensor>>;

/// The small model with something changed.
fn changed(folder: &Folder, change: impl FnOnce(&mut Metadata, &mut Weights)) -> PathBuf {
    let mut file = File::open(golden("small.gguf")).unwrap();
    let content = Content::read(&mut file).unwrap();
    let mut read = |name: &String| Arc::new(content.tensor(&mut file, name, &Device::Cpu).unwrap());
    let mut weights = content.tensor_infos.keys().map(|name| (name.clone(), read(name))).collect();
    let mut metadata = content.metadata.clone();
    change(&mut metadata, &mut weights);
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let weights: Vec<_> = weights.iter().map(|(name, tensor)| (name.as_str(), &**tensor)).collect();
    let path = folder.join("changed.gguf");
    write(&mut File::create(&path).unwrap(), &metadata, &weights).unwrap();
    path
}

#[test]
fn other_models_and_damaged_files_are_refused() {
    let folder = Folder::new("gguf-refused");
    let says = |path: &Path, what: &str| {
        let refused = error(Fluency::load(path)).to_string();
        assert!(refused.contains(what), "{refused}");
    };
    says(Path::new("no such file.gguf"), "no such file.gguf");
    says(&folder.write("text.gguf", b"no model at all"), "not a whole GGUF file");
    let bytes = std::fs::read(golden("small.gguf")).unwrap();
    says(&folder.write("half.gguf", &bytes[..bytes.len() / 2]), "cannot be read");
    let string = |s: &str| Some(Value::String(s.into()));
    for (key, value, what) in [
        ("general.architecture", string("qwen2"), "qwen2"),
        (
            "tokenizer.ggml.pre",
            string("deepseek-llm"),
            "put the model's tokenizer.json into the folder",
        ),
        ("tokenizer.ggml.model", string("llama"), "put the model's tokenizer.json into the folder"),
        ("llama.attention.head_count", Some(Value::U32(3)), "3 heads"),
        ("llama.expert_count", Some(Value::U32(8)), "8 experts"),
        ("llama.rope.scaling.type", string("yarn"), "yarn"),
        ("llama.block_count", None, "llama.block_count must be a positive number"),
        ("llama.feed_forward_length", Some(Value::U32(96)), "must have the shape [96, 32]"),
        ("tokenizer.ggml.bos_token_id", Some(Value::U32(9999)), "belongs to another model"),
    ] {
        let change = |metadata: &mut Metadata, _: &mut Weights| {
            metadata.remove(key);
            metadata.extend(value.map(|v| (key.to_string(), v)));
        };
        says(&changed(&folder, change), what);
    }
    says(
        &changed(&folder, |_, weights| drop(weights.remove("blk.2.ffn_up.weight"))),
        "blk.2.ffn_up.weight",
    );
    let table = |_: &mut Metadata, weights: &mut Weights| {
        let norm = weights["output_norm.weight"].clone();
        weights.insert("rope_freqs.weight".into(), norm);
    };
    says(&changed(&folder, table), "rope_freqs.weight");
}

#[test]
fn without_a_head_of_its_own_the_embedding_is_the_head() {
    let folder = Folder::new("gguf-tied");
    let nll = |path: &Path| {
        let model = Fluency::load(path).unwrap();
        model.score(&["Help me:".to_string()], &[" I'm sorry".to_string()]).unwrap()[0].nll
    };
    let tied = nll(&changed(&folder, |_, weights| drop(weights.remove("output.weight"))));
    let copy = |_: &mut Metadata, weights: &mut Weights| {
        let embedding = weights["token_embd.weight"].clone();
        weights.insert("output.weight".into(), embedding);
    };
    assert_eq!(tied, nll(&changed(&folder, copy)));
    assert!(
        (tied - nll(&golden("small.gguf"))).abs() > 0.1,
        "the fixture's own head must have been in use"
    );
}

#[test]
fn a_tokenizer_beside_the_file_goes_first() {
    let folder = Folder::new("gguf-json");
    let path = changed(&folder, |metadata, _| {
        metadata.insert("tokenizer.ggml.pre".into(), Value::String("other".into()));
    });
    error(Fluency::load(&path));
    let own = golden_json("small_tokenizer.json");
    folder.write("tokenizer.json", own.to_string());
    let model = Fluency::load(&path).unwrap();
    let plain = Fluency::load(golden("small.gguf")).unwrap();
    for text in ["In 2024, <|im_end|> it's over.", " I'm sorry"] {
        assert_eq!(model.encode(text).unwrap(), plain.encode(text).unwrap());
    }
    folder.write("tokenizer.json", "{}");
    assert!(error(Fluency::load(&path)).to_string().contains("not a tokenizer.json"));
}
