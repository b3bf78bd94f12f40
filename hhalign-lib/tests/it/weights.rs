//! Weights to begin from: GPT-2's layout as the original repository has it, a shorter block, and a
//! run's settings.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use hhalign::model::Gpt;
use hhalign::model::checkpoint::{load_model, save_model, write_tensors};
use hhalign::notebook::options::RunOptions;
use hhalign::train::Sft;

use crate::common::{
    BLOCK, Folder, bits, distance, error, numbers, short, texts, tiny, tokenized, tokenizer,
};

fn ids(n: u32) -> Tensor {
    Tensor::arange(0u32, n, &Device::Cpu).unwrap().unsqueeze(0).unwrap()
}

/// A saved model written once more as the original repository has it: names without prefix, masks
/// as buffers.
fn original_layout(folder: &Folder, model: &Gpt) -> PathBuf {
    save_model(model, &tokenizer(), folder.join("saved")).unwrap();
    let place = folder.join("original");
    std::fs::create_dir_all(&place).unwrap();
    for name in ["config.json", "tokenizer.json"] {
        std::fs::copy(folder.join("saved").join(name), place.join(name)).unwrap();
    }
    let named = model.named_parameters().into_iter();
    let mut tensors: BTreeMap<String, Tensor> =
        named.map(|(n, t)| (n.trim_start_matches("transformer.").to_string(), t)).collect();
    for layer in 0..model.config.n_layer {
        let mask = Tensor::tril2(BLOCK, DType::F32, &Device::Cpu)
            .unwrap()
            .reshape((1, 1, BLOCK, BLOCK))
            .unwrap();
        tensors.insert(format!("h.{layer}.attn.bias"), mask);
    }
    write_tensors(&place.join("model.safetensors"), &tensors, HashMap::new()).unwrap();
    place
}

fn options(given: &[(&str, &Path)]) -> RunOptions {
    let value =
        |name: &str| given.iter().find(|(n, _)| *n == name).map(|(_, v)| v.display().to_string());
    RunOptions::from_lookup(value).unwrap()
}

#[test]
fn the_original_layout_loads_bit_by_bit_and_goes_back_after_training() {
    let folder = Folder::new("weights-layout");
    let model = Gpt::new(tiny(2, 0.0), 3).unwrap();
    let place = original_layout(&folder, &model);
    let (mut loaded, own) = load_model(&place, true).unwrap();
    assert_eq!(bits(&loaded), bits(&model));
    assert_eq!(own.hash(), tokenizer().hash());
    let pairs = tokenized(&texts(1, 20));
    Sft { train: short(2) }.fit(&mut loaded, &pairs, &pairs.head(4)).unwrap();
    assert_ne!(bits(&loaded), bits(&model));
    save_model(&loaded, &own, folder.join("trained")).unwrap();
    assert_eq!(bits(&load_model(folder.join("trained"), false).unwrap().0), bits(&loaded));
}

#[test]
fn a_shorter_block_changes_no_logit_of_a_text_that_fits() {
    let model = Gpt::new(tiny(2, 0.0), 3).unwrap();
    let cut = model.with_block_size(32).unwrap();
    assert_eq!(
        (cut.config.block_size, cut.named_parameters()["transformer.wpe.weight"].dims()),
        (32, &[32, 16][..])
    );
    assert_eq!(
        distance(
            &numbers(&cut.logits(&ids(32)).unwrap()),
            &numbers(&model.logits(&ids(32)).unwrap())
        ),
        0.0
    );
    assert!(error(cut.logits(&ids(33))).got().contains("block_size 32"));
    assert!(error(model.with_block_size(BLOCK + 1)).fix().contains("160"));
    assert!(error(model.with_block_size(0)).what().contains("shorter"));
    // A copy: the weights it came from stay as they are.
    assert!(!cut.is_frozen() && model.freeze().unwrap().with_block_size(32).unwrap().is_frozen());
    let mut cut = cut;
    let pairs = hhalign::data::batch::TokenizedPairs::new(&texts(1, 20), &tokenizer(), 32).unwrap();
    Sft { train: short(2) }.fit(&mut cut, &pairs, &pairs.head(4)).unwrap();
    assert_eq!(bits(&model), bits(&Gpt::new(tiny(2, 0.0), 3).unwrap()));
}

#[test]
fn a_run_begins_from_weights_with_their_sizes_and_their_tokenizer() {
    let folder = Folder::new("weights-init");
    // As in GPT-2's own config, whose dropout a run leaves out.
    let model = Gpt::new(tiny(2, 0.1), 3).unwrap();
    let place = original_layout(&folder, &model);
    let init = options(&[("HHALIGN_INIT", &place)]);
    // Pairs that the tokenizer was not trained on: it comes with the weights.
    let own = init.tokenizer(&texts(9, 30)).unwrap();
    assert_eq!(own.hash(), tokenizer().hash());
    assert_eq!(init.model_config(&own).unwrap(), tiny(2, 0.0));
    assert_eq!(load_model(&place, false).unwrap().0.config.dropout, 0.1);
    let begun = init.model(&own).unwrap();
    assert!(bits(&begun) == bits(&model) && !begun.is_frozen());
    assert_eq!(init.model_name(), "weights of original");
    let table = init.table().unwrap().to_string();
    assert!(
        table.contains("--init") && table.contains("original") && !table.contains("--preset"),
        "{table}"
    );
    let short = options(&[("HHALIGN_INIT", &place), ("HHALIGN_BLOCK_SIZE", Path::new("64"))]);
    assert_eq!(short.model_config(&own).unwrap().block_size, 64);
    assert_eq!(short.model(&own).unwrap().config.block_size, 64);
    assert!(short.table().unwrap().to_string().contains("--block-size"));
}

#[test]
fn weights_that_do_not_fit_say_so() {
    let folder = Folder::new("weights-misfit");
    let place = original_layout(&folder, &Gpt::new(tiny(1, 0.0), 3).unwrap());
    let long = options(&[("HHALIGN_INIT", &place), ("HHALIGN_BLOCK_SIZE", Path::new("1024"))]);
    assert!(error(long.model(&tokenizer())).got().contains("160 positions"));
    let other = hhalign::data::tokenize::Tokenizer::train(&texts(1, 60), 500).unwrap();
    assert!(error(options(&[("HHALIGN_INIT", &place)]).model(&other)).got().contains("500"));
    let missing = RunOptions { init: Some(folder.join("none")), ..RunOptions::default() };
    assert!(error(missing.tokenizer(&texts(1, 20))).what().contains("none"));
    let tiny = RunOptions::from_lookup(|n| (n == "HHALIGN_BLOCK_SIZE").then(|| "7".into()));
    assert!(error(tiny).fix().contains("at least 8"));
}

#[test]
fn a_preset_takes_another_block_too() {
    let own = tokenizer();
    let plain = options(&[]);
    assert_eq!(
        (plain.model_name().as_str(), plain.model_config(&own).unwrap().block_size),
        ("toy", 256)
    );
    assert!(!plain.table().unwrap().to_string().contains("--init"));
    let longer = options(&[("HHALIGN_BLOCK_SIZE", Path::new("300"))]);
    assert_eq!(longer.model(&own).unwrap().config.block_size, 300);
}
