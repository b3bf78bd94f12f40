//! One format of checkpoints: it is numbered, older ones resume, foreign and newer ones are refused
//! by name.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use hhalign::model::Gpt;
use hhalign::model::checkpoint::{read_metadata, read_tensors, write_tensors};
use hhalign::train::reward::{RewardConfig, RewardModel};
use hhalign::train::{Sft, TrainConfig};
use serde_json::{Value, json};

use crate::common::{Folder, bits, error, short, texts, tiny, tokenized};

const STATE: &str = "hhalign_run";

fn model() -> Gpt {
    Gpt::new(tiny(1, 0.0), 5).unwrap()
}

fn config() -> TrainConfig {
    TrainConfig { eval_every: 2, ..short(8) }
}

/// The checkpoint of a run that was stopped in its middle.
fn stopped(folder: &Folder) -> PathBuf {
    let path = folder.join("half.safetensors");
    let train = TrainConfig { checkpoint: Some(path.clone()), stop_at: Some(4), ..config() };
    Sft { train }.fit(&mut model(), &tokenized(&texts(1, 12)), &tokenized(&texts(2, 4))).unwrap();
    path
}

fn resume(path: &Path) -> hhalign::base::error::Result<Gpt> {
    let mut model = model();
    Sft { train: config() }.resume(
        path,
        &mut model,
        &tokenized(&texts(1, 12)),
        &tokenized(&texts(2, 4)),
    )?;
    Ok(model)
}

/// Writes the file again with another state in its header.
fn rewrite(path: &Path, change: impl FnOnce(&mut Value)) {
    let (tensors, mut metadata) = (read_tensors(path).unwrap(), read_metadata(path).unwrap());
    let mut state: Value = serde_json::from_str(&metadata[STATE]).unwrap();
    change(&mut state);
    metadata.insert(STATE.into(), state.to_string());
    write_tensors(path, &tensors, metadata).unwrap();
}

#[test]
fn a_checkpoint_of_the_format_before_numbers_resumes_to_the_same_bits() {
    let folder = Folder::new("old-format");
    let path = stopped(&folder);
    let whole = resume(&path).unwrap();
    rewrite(&path, |state| {
        let number = state.as_object_mut().unwrap().remove("format");
        assert_eq!(number, Some(json!(2)), "the number is written down");
    });
    assert!(bits(&resume(&path).unwrap()) == bits(&whole));
}

#[test]
fn a_newer_format_is_refused_by_its_number() {
    let folder = Folder::new("newer-format");
    let path = stopped(&folder);
    rewrite(&path, |state| state["format"] = json!(3));
    let refused = error(resume(&path));
    assert!(refused.what().contains("newer") && refused.got().contains("format 3"), "{refused}");
}

#[test]
fn a_reward_models_own_format_of_the_first_version_is_refused_by_name() {
    let folder = Folder::new("old-reward");
    let path = stopped(&folder);
    let header = HashMap::from([("hhalign_reward".to_string(), "{}".to_string())]);
    write_tensors(&path, &read_tensors(&path).unwrap(), header).unwrap();
    let refused = error(resume(&path));
    assert!(
        refused.what().contains("reward model's checkpoint") && refused.fix().contains("delete"),
        "{refused}"
    );
    write_tensors(&path, &read_tensors(&path).unwrap(), HashMap::new()).unwrap();
    assert!(error(resume(&path)).what().contains("not a run's checkpoint"));
}

/// In the cache of reward models a checkpoint that cannot be read begins again; one of a newer
/// version is left alone.
#[test]
fn a_reward_model_begins_again_where_its_checkpoint_is_damaged() {
    let folder = Folder::new("half-a-head");
    let (pairs, watched) = (tokenized(&texts(1, 12)), tokenized(&texts(2, 4)));
    let train = TrainConfig { stop_at: Some(4), checkpoint_every: 2, ..config() };
    let half = RewardConfig { train, ..RewardConfig::default() };
    RewardModel::train(&half, &model(), &pairs, &watched, Some(&folder.0)).unwrap();
    let saved = std::fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().path());
    let path =
        saved.into_iter().find(|path| path.to_string_lossy().contains("-checkpoint")).unwrap();
    let (mut tensors, metadata) = (read_tensors(&path).unwrap(), read_metadata(&path).unwrap());
    for group in ["model", "best", "adam_m", "adam_v"] {
        assert!(tensors.contains_key(&format!("{group}/score.weight")), "{group}");
    }
    tensors.remove("adam_v/score.weight");
    write_tensors(&path, &tensors, metadata).unwrap();
    let whole = RewardConfig { train: config(), ..RewardConfig::default() };
    let plain = RewardModel::train(&whole, &model(), &pairs, &watched, None).unwrap();
    let again = RewardModel::train(&whole, &model(), &pairs, &watched, Some(&folder.0)).unwrap();
    assert!(
        !again.from_cache && bits(again.gpt()) == bits(plain.gpt()) && again.head() == plain.head()
    );
    assert!(!path.exists(), "it is finished");

    let folder = Folder::new("newer-reward");
    RewardModel::train(&half, &model(), &pairs, &watched, Some(&folder.0)).unwrap();
    let newer = folder.join(path.file_name().unwrap().to_str().unwrap());
    rewrite(&newer, |state| state["format"] = json!(3));
    assert!(
        error(RewardModel::train(&whole, &model(), &pairs, &watched, Some(&folder.0)))
            .what()
            .contains("newer")
    );
    assert!(newer.exists());
}
