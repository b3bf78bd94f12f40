//! Runs that stop and go on: the same bits, and no checkpoint that is not theirs.

use std::path::Path;

use hhalign::data::batch::TokenizedPairs;
use hhalign::loss::PreferenceLoss;
use hhalign::model::Gpt;
use hhalign::train::{Dpo, Outcome, TrainConfig};

use super::{assert_same_run, data, dpo, model, sft};
use crate::common::{Folder, bits, error, short, tiny};

/// Runs to the end, and again with a pause at every step of `pauses`; both must agree bit for bit.
fn pause_and_resume(
    name: &str,
    dropout: f64,
    fit: impl Fn(&TrainConfig, Option<&Path>, &mut Gpt) -> Outcome,
) {
    let folder = Folder::new(name);
    let checkpoint = folder.join("run.safetensors");
    // 40 pairs in batches of 8: the run crosses an epoch, and one pause falls inside each.
    let config = TrainConfig {
        checkpoint: Some(checkpoint.clone()),
        checkpoint_every: 100,
        eval_every: 3,
        ..short(8)
    };
    let mut whole_model = model(dropout);
    let whole = fit(&config, None, &mut whole_model);
    assert_eq!(whole.steps, 8);
    std::fs::remove_file(&checkpoint).unwrap();

    let mut first = model(dropout);
    assert_eq!(fit(&TrainConfig { stop_at: Some(2), ..config.clone() }, None, &mut first).steps, 2);
    // Another process would start from any weights: those of the checkpoint must take their place.
    let stranger = || Gpt::new(tiny(2, dropout), 99).unwrap();
    let mut second = stranger();
    assert_eq!(
        fit(&TrainConfig { stop_at: Some(7), ..config.clone() }, Some(&checkpoint), &mut second)
            .steps,
        7
    );
    let mut third = stranger();
    let resumed = fit(&config, Some(&checkpoint), &mut third);
    assert_same_run((&whole, &whole_model), (&resumed, &third));

    // A finished run that is resumed takes no step more.
    let mut fourth = stranger();
    let again = fit(&config, Some(&checkpoint), &mut fourth);
    assert_same_run((&whole, &whole_model), (&again, &fourth));
}

#[test]
fn a_resumed_sft_run_equals_the_uninterrupted_one_bit_for_bit() {
    let (train, held_out) = data();
    for (name, dropout) in [("sft", 0.0), ("sft-dropout", 0.1)] {
        pause_and_resume(name, dropout, |config, from, model| {
            let sft = sft(config.clone());
            match from {
                Some(path) => sft.resume(path, model, &train, &held_out).unwrap(),
                None => sft.fit(model, &train, &held_out).unwrap(),
            }
        });
    }
}

#[test]
fn a_resumed_dpo_run_equals_the_uninterrupted_one_bit_for_bit() {
    let (train, held_out) = data();
    for (name, dropout) in [("dpo", 0.0), ("dpo-dropout", 0.1)] {
        let reference = model(dropout).freeze().unwrap();
        pause_and_resume(name, dropout, |config, from, model| {
            let dpo = dpo(config.clone());
            match from {
                Some(path) => dpo.resume(path, model, &reference, &train, &held_out).unwrap(),
                None => dpo.fit(model, &reference, &train, &held_out).unwrap(),
            }
        });
    }
}

#[test]
fn a_checkpoint_of_another_run_is_refused_and_changes_nothing() {
    let (train, held_out) = data();
    let folder = Folder::new("wrong-checkpoint");
    let path = folder.join("sft.safetensors");
    let config = TrainConfig { checkpoint: Some(path.clone()), ..short(2) };
    let mut policy = model(0.0);
    sft(config.clone()).fit(&mut policy, &train, &held_out).unwrap();

    let mut fresh = model(0.0);
    let before = bits(&fresh);
    let mut refused =
        |config: TrainConfig, train: &TokenizedPairs, held_out: &TokenizedPairs, what: &str| {
            let error = error(sft(config).resume(&path, &mut fresh, train, held_out));
            assert!(error.what().contains(what), "{error}");
            assert!(bits(&fresh) == before, "a refused checkpoint changed the model");
        };
    refused(config.clone(), &held_out, &held_out, "data");
    refused(config.clone(), &train, &train, "objective");
    refused(TrainConfig { seed: 9, ..config.clone() }, &train, &held_out, "config");
    refused(TrainConfig { learning_rate: 2e-3, ..config.clone() }, &train, &held_out, "config");
    let mut beta = config.clone();
    beta.adamw.beta2 = 0.99;
    refused(beta, &train, &held_out, "config");

    let reference = model(0.0);
    let error = error(dpo(config.clone()).resume(&path, &mut fresh, &reference, &train, &held_out));
    assert!(error.what().contains("objective"), "{error}");
    // Where to save, how often, and whether to print decide no number.
    let elsewhere =
        TrainConfig { checkpoint: None, checkpoint_every: 7, progress: false, ..config };
    sft(elsewhere).resume(&path, &mut fresh, &train, &held_out).unwrap();
    assert!(bits(&fresh) == bits(&policy));
}

#[test]
fn a_dpo_checkpoint_is_bound_to_its_reference_loss_and_beta() {
    let (train, held_out) = data();
    let folder = Folder::new("dpo-checkpoint");
    let path = folder.join("dpo.safetensors");
    let reference = model(0.0);
    let settings = dpo(TrainConfig { checkpoint: Some(path.clone()), ..short(1) });
    let mut policy = reference.fork().unwrap();
    settings.fit(&mut policy, &reference, &train, &held_out).unwrap();
    let mut refused = |dpo: Dpo, reference: &Gpt| {
        let error = error(dpo.resume(&path, &mut policy, reference, &train, &held_out));
        assert!(error.what().contains("another objective"), "{error}");
    };
    refused(Dpo { beta: 0.2, ..settings.clone() }, &reference);
    refused(Dpo { loss: PreferenceLoss::Ipo, ..settings.clone() }, &reference);
    refused(settings, &Gpt::new(tiny(2, 0.0), 77).unwrap());
}

#[test]
fn a_checkpoint_of_another_model_is_refused_and_changes_nothing() {
    let (train, held_out) = data();
    let folder = Folder::new("other-model");
    let path = folder.join("run.safetensors");
    let config = TrainConfig { checkpoint: Some(path.clone()), ..short(1) };
    sft(config.clone()).fit(&mut model(0.0), &train, &held_out).unwrap();
    let mut heads = tiny(2, 0.0);
    heads.n_head = 4; // the same shapes, another function
    let mut wider = tiny(2, 0.0);
    wider.n_embd = 32;
    for other in [tiny(1, 0.0), tiny(3, 0.0), tiny(2, 0.2), heads, wider] {
        let mut other_model = Gpt::new(other.clone(), 5).unwrap();
        let before = bits(&other_model);
        let result = sft(config.clone()).resume(&path, &mut other_model, &train, &held_out);
        assert!(result.is_err(), "accepted by {other:?}");
        assert!(bits(&other_model) == before, "a refused checkpoint changed {other:?}");
    }
}

#[test]
fn damaged_checkpoints_are_refused() {
    let (train, held_out) = data();
    let folder = Folder::new("damaged");
    let path = folder.join("run.safetensors");
    let config = TrainConfig { checkpoint: Some(path.clone()), ..short(1) };
    sft(config.clone()).fit(&mut model(0.0), &train, &held_out).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let mut fresh = model(0.0);
    let before = bits(&fresh);
    let mut refused = |path: &Path| {
        let error = error(sft(config.clone()).resume(path, &mut fresh, &train, &held_out));
        let file = path.file_name().unwrap().to_str().unwrap();
        assert!(error.what().contains(file), "the file is not named: {error}");
        assert!(bits(&fresh) == before, "a refused checkpoint changed the model");
    };
    for keep in [0, 4, 100, bytes.len() / 2, bytes.len() - 1] {
        refused(&folder.write("cut.safetensors", &bytes[..keep]));
    }
    refused(&folder.write("text.safetensors", "not a checkpoint at all"));
    refused(&folder.join("missing.safetensors"));
    // A model's weights are whole, and yet no run.
    let weights = folder.join("model.safetensors");
    hhalign::model::checkpoint::write_tensors(
        &weights,
        &model(0.0).named_parameters(),
        Default::default(),
    )
    .unwrap();
    refused(&weights);
    assert!(
        std::fs::read_dir(&folder.0).unwrap().all(|f| !f
            .unwrap()
            .path()
            .to_str()
            .unwrap()
            .ends_with(".part"))
    );
}

#[test]
fn cached_reference_log_probabilities_equal_computed_ones_and_follow_the_weights() {
    let (train, _) = data();
    let folder = Folder::new("reference-cache");
    let logps = |model: &Gpt| {
        hhalign::infer::score::reference_logps(model, &train, Some(&folder.0)).unwrap()
    };
    let reference = model(0.0);
    let (computed, cached) = (logps(&reference), logps(&reference));
    assert!(!computed.from_cache && cached.from_cache);
    assert_eq!((&computed.chosen, &computed.rejected), (&cached.chosen, &cached.rejected));
    let other = logps(&Gpt::new(tiny(2, 0.0), 6).unwrap());
    assert!(!other.from_cache && other.chosen != computed.chosen);
    // A damaged file is computed again.
    for file in std::fs::read_dir(&folder.0).unwrap() {
        std::fs::write(file.unwrap().path(), "broken").unwrap();
    }
    let again = logps(&reference);
    assert!(!again.from_cache && again.chosen == computed.chosen);
}
