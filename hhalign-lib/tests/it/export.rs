//! Exports: texts, ids, batches and settings of a run here, whole or not there; what cannot go says
//! so.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use hhalign::base::rng::sha256_hex;
use hhalign::compute::optim::AdamWConfig;
use hhalign::data::Pair;
use hhalign::loss::PreferenceLoss;
use hhalign::model::Gpt;
use hhalign::model::checkpoint::load_model;
use hhalign::train::export::{export_dpo, export_sft};
use hhalign::train::{Dpo, Pitfall, Sft, TrainConfig};
use serde_json::Value;

use crate::common::{BLOCK, Folder, bits, error, short, texts, tiny, tokenized, tokenizer};

fn model(seed: u64) -> Gpt {
    Gpt::new(tiny(1, 0.0), seed).unwrap()
}

fn dpo() -> Dpo {
    let adamw = AdamWConfig { beta1: 0.8, beta2: 0.97, epsilon: 1e-7, weight_decay: 0.05 };
    let train = TrainConfig { learning_rate: 2e-4, warmup_steps: 3, seed: 5, adamw, ..short(7) };
    Dpo { train, beta: 0.25, ..Dpo::default() }
}

fn export(dpo: &Dpo, pairs: &[Pair], folder: &Path) -> hhalign::base::error::Result<()> {
    let policy = model(1);
    export_dpo(dpo, &policy, &policy.freeze()?, &tokenizer(), (pairs, &texts(2, 12)), BLOCK, folder)
        .map(drop)
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn json(folder: &Path, name: &str) -> Value {
    serde_json::from_str(&read(folder, name)).unwrap()
}

/// The lines `NAME = value` at the top of a program.
fn settings(program: &str) -> BTreeMap<String, String> {
    let lines = program.lines().filter_map(|l| l.split_once(" = "));
    let named = lines.filter(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'));
    named.map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn the_texts_are_those_of_the_split_and_their_hashes_are_written_down() {
    let folder = Folder::new("export-texts");
    let (out, pairs) = (folder.join("out"), texts(1, 20));
    export(&dpo(), &pairs, &out).unwrap();
    let manifest = json(&out, "export.json");
    for (name, pairs) in [("train.jsonl", &pairs), ("eval.jsonl", &texts(2, 12))] {
        let text = read(&out, name);
        assert_eq!(text.lines().count(), pairs.len(), "{name}");
        for (line, pair) in text.lines().zip(pairs) {
            let row: Value = serde_json::from_str(line).unwrap();
            assert_eq!(row["prompt"], pair.prompt.as_str());
            assert_eq!(
                (&row["chosen"], &row["rejected"]),
                (&pair.chosen.as_str().into(), &pair.rejected.as_str().into())
            );
        }
        assert_eq!(manifest["sha256"][name], sha256_hex([text.as_bytes()], 64));
        assert_eq!(manifest["ids"][name], tokenized(pairs).hash);
        assert_eq!(manifest["pairs"][name], pairs.len());
    }
    assert_eq!(manifest["tokenizer"], tokenizer().hash());
    assert_eq!(manifest["weights"]["model"], model(1).hash().unwrap());
}

#[test]
fn the_program_has_the_settings_of_the_run() {
    let folder = Folder::new("export-settings");
    let out = folder.join("out");
    export(&dpo(), &texts(1, 20), &out).unwrap();
    let found = settings(&read(&out, "train_dpo.py"));
    let expected = [
        ("BETA", "0.25"),
        ("LOSS", "{\"loss_type\": [\"sigmoid\"]}"),
        ("REFERENCE", "\"model\""),
        ("LEARNING_RATE", "0.0002"),
        ("MIN_LR_RATIO", "0.1"),
        ("WARMUP_STEPS", "3"),
        ("MAX_STEPS", "7"),
        ("BATCH_SIZE", "8"),
        ("PAIRS_PER_PASS", "4"),
        ("ADAM_BETAS", "[0.8, 0.97]"),
        ("ADAM_EPSILON", "1e-7"),
        ("WEIGHT_DECAY", "0.05"),
        ("MAX_GRAD_NORM", "1.0"),
        ("MAX_LENGTH", "160"),
        ("PATIENCE", "None"),
        ("GRADIENT_CHECKPOINTING", "False"),
        ("SEED", "5"),
    ];
    for (name, value) in expected {
        assert_eq!(found.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(
        found["IDS"].contains(&tokenized(&texts(1, 20)).hash)
            && found["IDS"].contains(&tokenized(&texts(2, 12)).hash)
    );
    assert!(read(&out, "accelerate.yaml").contains("num_processes: 2"));
    let readme = read(&out, "README.md");
    assert!(readme.contains("accelerate launch") && readme.contains("train_dpo.py"), "{readme}");
    assert!(read(&out, "requirements.txt").contains("trl=="));
}

#[test]
fn every_step_has_the_pairs_that_it_has_here() {
    let folder = Folder::new("export-batches");
    let (out, pairs) = (folder.join("out"), texts(1, 20));
    export(&dpo(), &pairs, &out).unwrap();
    let batches: Vec<Vec<usize>> = serde_json::from_value(json(&out, "batches.json")).unwrap();
    // 20 pairs are two batches of 8 and one of 4, which is left out: 7 full ones go into a fourth
    // epoch.
    let ids = tokenized(&pairs);
    let here: Vec<Vec<usize>> =
        (0..4).flat_map(|epoch| ids.epoch(8, 5, epoch)).filter(|b| b.len() == 8).take(7).collect();
    assert_eq!(batches, here);
    let left_out = json(&out, "export.json")["short_batches_left_out"].as_u64().unwrap();
    assert!((3..=4).contains(&left_out), "{left_out}");
    assert!(read(&out, "README.md").contains("short ones are left out"));
    // Fewer pairs than a batch: every step takes them all, as here.
    let few = folder.join("few");
    export(&dpo(), &texts(1, 6), &few).unwrap();
    assert_eq!(settings(&read(&few, "train_dpo.py"))["BATCH_SIZE"], "6");
    let batches: Vec<Vec<usize>> = serde_json::from_value(json(&few, "batches.json")).unwrap();
    assert!(batches.len() == 7 && batches.iter().all(|b| b.len() == 6));
    assert!(!read(&few, "README.md").contains("left out"));
}

#[test]
fn the_weights_load_and_a_reference_of_its_own_goes_along() {
    let folder = Folder::new("export-weights");
    let out = folder.join("same");
    export(&dpo(), &texts(1, 20), &out).unwrap();
    let (loaded, own) = load_model(out.join("model"), false).unwrap();
    assert_eq!(bits(&loaded), bits(&model(1)));
    assert_eq!(own.hash(), tokenizer().hash());
    let expected = [
        "README.md",
        "accelerate.yaml",
        "batches.json",
        "eval.jsonl",
        "export.json",
        "model",
        "requirements.txt",
    ];
    assert_eq!(names(&out), [&expected[..], &["train.jsonl", "train_dpo.py"]].concat());
    let (apart, pairs) = (folder.join("apart"), texts(1, 20));
    export_dpo(&dpo(), &model(1), &model(2), &tokenizer(), (&pairs, &pairs), BLOCK, &apart)
        .unwrap();
    assert_eq!(settings(&read(&apart, "train_dpo.py"))["REFERENCE"], "\"reference\"");
    assert_eq!(bits(&load_model(apart.join("reference"), false).unwrap().0), bits(&model(2)));
}

#[test]
fn sft_goes_as_well() {
    let folder = Folder::new("export-sft");
    let (out, pairs) = (folder.join("out"), texts(1, 16));
    export_sft(&Sft { train: short(4) }, &model(1), &tokenizer(), (&pairs, &pairs), BLOCK, &out)
        .unwrap();
    let found = settings(&read(&out, "train_sft.py"));
    assert_eq!((found["MAX_STEPS"].as_str(), found["LEARNING_RATE"].as_str()), ("4", "0.001"));
    assert!(!found.contains_key("BETA") && !out.join("train_dpo.py").exists());
    assert_eq!(json(&out, "export.json")["kind"], "sft");
}

#[test]
fn nobodys_folder_is_overwritten_and_no_half_folder_is_left() {
    let folder = Folder::new("export-taken");
    let kept = folder.write("taken/notes.txt", "mine");
    let refused = error(export(&dpo(), &texts(1, 20), &folder.join("taken")));
    assert!(refused.what().contains("not empty") && refused.got().contains("taken"), "{refused}");
    assert_eq!(fs::read_to_string(kept).unwrap(), "mine");
    assert_eq!(names(&folder.join("taken")), ["notes.txt"]);
    let file = folder.write("file", "mine");
    assert!(error(export(&dpo(), &texts(1, 20), &file)).what().contains("not empty"));
    // An export is not written over either: someone may have trained there.
    export(&dpo(), &texts(1, 20), &folder.join("twice")).unwrap();
    assert!(
        error(export(&dpo(), &texts(1, 20), &folder.join("twice"))).fix().contains("another name")
    );
    // An empty folder belongs to nobody.
    fs::create_dir(folder.join("empty")).unwrap();
    export(&dpo(), &texts(1, 20), &folder.join("empty")).unwrap();
    assert_eq!(names(&folder.0), ["empty", "file", "taken", "twice"]);
}

#[test]
fn a_loss_that_would_be_another_one_there_says_so() {
    let folder = Folder::new("export-losses");
    let mut gone = vec![];
    for loss in PreferenceLoss::ALL {
        let out = folder.join(loss.name());
        match export(&Dpo { loss, ..dpo() }, &texts(1, 20), &out) {
            Ok(()) => gone.push(loss.name()),
            Err(refused) => {
                assert!(
                    refused.what().contains(loss.name()) && refused.fix().contains("sigmoid"),
                    "{refused}"
                );
                assert!(!out.exists());
            }
        }
    }
    let both = [
        "sigmoid",
        "cdpo",
        "robust",
        "hinge",
        "ipo_per_token",
        "exo_pair",
        "nca_pair",
        "sppo_hard",
        "apo_zero",
        "apo_down",
        "discopop",
        "forward_kl",
        "js_divergence",
        "alpha_divergence",
    ];
    assert_eq!(gone, both);
    let smoothed = settings(&read(&folder.join("cdpo"), "train_dpo.py"));
    assert_eq!(smoothed["LOSS"], "{\"label_smoothing\": 0.1, \"loss_type\": [\"sigmoid\"]}");
    assert!(
        error(export(&Dpo { rpo_alpha: 1.0, ..dpo() }, &texts(1, 20), &folder.join("rpo")))
            .what()
            .contains("RPO")
    );
}

#[test]
fn what_cannot_run_here_is_not_exported() {
    let folder = Folder::new("export-misuse");
    let out = folder.join("out");
    let mut wrong = dpo();
    wrong.train.pitfall = Some(Pitfall::NoEos);
    assert!(error(export(&wrong, &texts(1, 20), &out)).what().contains("pitfall"));
    assert!(
        error(export(&Dpo { beta: -1.0, ..dpo() }, &texts(1, 20), &out)).what().contains("beta")
    );
    assert!(error(export(&dpo(), &[], &out)).got().starts_with("0 to train on"));
    let (policy, pairs) = (model(1), texts(1, 20));
    let export = |length| {
        export_dpo(&dpo(), &policy, &model(1), &tokenizer(), (&pairs, &pairs), length, &out)
    };
    assert!(error(export(BLOCK + 1)).got().contains("161"));
    assert!(error(export(4)).what().contains("max_length"));
    assert!(!out.exists() && names(&folder.0).is_empty(), "{:?}", names(&folder.0));
}
