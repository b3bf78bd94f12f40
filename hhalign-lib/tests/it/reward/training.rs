//! Trainings of a reward model, what they leave, and what is refused.

use hhalign::compute::optim::AdamWConfig;
use hhalign::data::batch::TokenizedPairs;
use hhalign::model::{Gpt, GptConfig};
use hhalign::train::TrainConfig;
use hhalign::train::reward::{RewardConfig, RewardModel, whole_dialogues};

use super::{LM_WEIGHT, config, golden_pairs, head, moved, same, trained};
use crate::common::{
    BLOCK, Folder, distance, error, numbers, short, texts, tiny, tokenized, tokenizer,
};
use crate::fixtures::{golden_json, golden_model, golden_tensors};

#[test]
fn a_training_follows_pytorchs() {
    let (start, pairs) = (golden_model("gpt2_l2"), golden_pairs());
    let expected = golden_json("reward_run.json");
    let steps = expected["losses"].as_array().unwrap().len();
    let train = TrainConfig {
        min_lr_ratio: 1.0,
        warmup_steps: 0,
        batch_size: 3,
        micro_batch_size: 2,
        eval_every: 1,
        adamw: AdamWConfig::default(),
        ..short(steps)
    };
    let config =
        RewardConfig { train, lm_weight: LM_WEIGHT, max_prompt: 20, ..RewardConfig::default() };
    let model = RewardModel::train(&config, &start, &pairs, &pairs, None).unwrap();
    let training = model.training.as_ref().unwrap();
    assert_eq!(
        training.best.step, steps,
        "the loss falls on the pairs themselves: the last weights are the best"
    );
    let series =
        |name: &str| training.history.series(name).into_iter().map(|p| p.1).collect::<Vec<_>>();
    let wanted = |name: &str| {
        expected[name].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>()
    };
    let lm = series("lm_loss").into_iter().map(|x| LM_WEIGHT * x);
    let losses: Vec<f64> = series("loss").into_iter().zip(lm).map(|(a, b)| a + b).collect();
    let (loss, norm) = (
        distance(&losses, &wanted("losses")),
        distance(&series("grad_norm"), &wanted("grad_norms")),
    );
    let mut worst = 0f64;
    for (name, wanted) in golden_tensors("reward_run.safetensors") {
        let ours = match name.as_str() {
            "score.weight" => model.head().iter().map(|w| f64::from(*w)).collect(),
            name => numbers(&model.gpt().named_parameters()[name]),
        };
        worst = worst.max(distance(&ours, &numbers(&wanted)));
    }
    println!("losses {loss:.1e}, norms {norm:.1e}, final weights {worst:.1e}");
    assert!(loss < 1e-5 && norm < 1e-4 && worst < 1e-5, "{loss} {norm} {worst}");
}

#[test]
fn before_the_first_step_the_loss_is_ln_2_and_then_it_falls() {
    let model = trained(&RewardConfig { token_dropout: 0.0, ..config(40) }, None);
    let history = &model.training.as_ref().unwrap().history;
    let watched = history.series("eval_loss");
    assert!(
        (history.series("loss")[0].1 - 2f64.ln()).abs() < 1e-7
            && (watched[0].1 - 2f64.ln()).abs() < 1e-7
    );
    assert_eq!(history.series("eval_accuracy")[0].1, 0.5, "rewards of zero are ties");
    let lowest = watched.iter().fold(f64::INFINITY, |low, p| low.min(p.1));
    assert_eq!(model.training.as_ref().unwrap().best.loss, lowest);
    assert!(lowest < 0.69, "{lowest}");
}

#[test]
fn a_training_is_found_again_and_an_interrupted_one_goes_on() {
    let (folder, whole) = (Folder::new("reward-cache"), trained(&config(8), None));
    let [first, again] = [(), ()].map(|()| trained(&config(8), Some(&folder)));
    assert!(!first.from_cache && again.from_cache);
    same(&first, &whole);
    same(&first, &again);
    assert_eq!(again.training, first.training);
    let other = trained(&RewardConfig { lm_weight: 0.2, ..config(8) }, Some(&folder));
    assert!(!other.from_cache, "another setting is another training");
    // Stopped in the middle, between two checkpoints: the settings that decide numbers are the
    // same.
    let folder = Folder::new("reward-resume");
    let mut stopped = config(8);
    stopped.train.stop_at = Some(5);
    assert_eq!(trained(&stopped, Some(&folder)).training.unwrap().steps, 5);
    let resumed = trained(&config(8), Some(&folder));
    assert!(!resumed.from_cache);
    same(&resumed, &whole);
    // A damaged file is made again.
    for entry in std::fs::read_dir(&folder.0).unwrap() {
        std::fs::write(entry.unwrap().path(), b"half a file").unwrap();
    }
    let repaired = trained(&config(8), Some(&folder));
    assert!(!repaired.from_cache);
    same(&repaired, &whole);
}

#[test]
fn patience_ends_a_training_that_learns_nothing_more() {
    let mut config = config(400);
    (config.train.learning_rate, config.train.patience) = (0.03, Some(2));
    let training = trained(&config, None).training.unwrap();
    assert!(
        training.stopped_early && training.steps < 400 && training.best.step + 4 == training.steps,
        "{training:?}"
    );
}

#[test]
fn a_reward_depends_on_nothing_but_prompt_and_reply() {
    let (pairs, tokenizer) = (texts(2, 12), tokenizer());
    let model = RewardModel::from_parts(
        &moved(tiny(2, 0.0)),
        head(&moved(tiny(2, 0.0))),
        [BLOCK / 2, BLOCK / 2],
    )
    .unwrap();
    let (chosen, rejected) = model.score_pairs(&tokenized(&pairs)).unwrap();
    let prompts: Vec<String> = pairs.iter().map(|p| p.prompt.clone()).collect();
    for (of_pairs, replies) in [
        (&chosen, pairs.iter().map(|p| p.chosen.clone()).collect::<Vec<_>>()),
        (&rejected, pairs.iter().map(|p| p.rejected.clone()).collect()),
    ] {
        let alone = model.score(&tokenizer, &prompts, &replies).unwrap();
        let wide = |r: &[f32]| r.iter().copied().map(f64::from).collect::<Vec<_>>();
        assert!(distance(&wide(&alone), &wide(of_pairs)) < 1e-5);
    }
    let long = vec![prompts[0].repeat(40)];
    let (a, b) = (
        model.score(&tokenizer, &long, &[" Yes.".into()]),
        model.score(&tokenizer, &long, &[" No.".into()]),
    );
    assert_ne!(a.unwrap(), b.unwrap(), "a long prompt is cut, and the reply is still read");
    assert_eq!(model.score(&tokenizer, &[], &[]).unwrap(), Vec::<f32>::new());
}

#[test]
fn a_saved_model_scores_the_same() {
    let (folder, tokenizer) = (Folder::new("reward-model"), tokenizer());
    let model = trained(&config(8), None);
    model.save(&tokenizer, folder.join("model")).unwrap();
    let (loaded, same_tokenizer) = RewardModel::load(folder.join("model")).unwrap();
    let pairs = tokenized(&texts(2, 12));
    assert_eq!(loaded.score_pairs(&pairs).unwrap(), model.score_pairs(&pairs).unwrap());
    assert_eq!(
        (loaded.hash().unwrap(), same_tokenizer.hash()),
        (model.hash().unwrap(), tokenizer.hash())
    );
    assert_eq!((loaded.limits(), model.limits()), ([BLOCK / 2; 2], [BLOCK / 2; 2]));
    let other = RewardConfig { token_dropout: 0.2, ..config(8) };
    assert_ne!(trained(&other, None).hash().unwrap(), model.hash().unwrap());
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("model/config.json")).unwrap()).unwrap();
    let pad = config["pad_token_id"].as_u64().unwrap() as u32;
    assert_ne!(pad, tokenizer.eos_id());
    let every_character = (0..=0x2fff).filter_map(char::from_u32).collect::<String>();
    assert!(
        !tokenizer.encode(&every_character).unwrap().contains(&pad),
        "no text holds the padding"
    );
    let language_model = Folder::new("no-reward-model");
    hhalign::model::checkpoint::save_model(model.gpt(), &tokenizer, language_model.join("m"))
        .unwrap();
    assert!(error(RewardModel::load(language_model.join("m"))).what().contains("no reward model"));
}

#[test]
fn whole_dialogues_hold_every_token_once() {
    let pairs = tokenized(&texts(4, 9));
    let dialogues = whole_dialogues(&pairs);
    let learnt: usize = dialogues.pairs.iter().map(|p| p.chosen.len()).sum();
    let all: usize =
        pairs.pairs.iter().map(|p| p.prompt.len() + p.chosen.len() + p.rejected.len()).sum();
    let cut: usize = pairs
        .pairs
        .iter()
        .map(|p| (p.prompt.len() + p.chosen.len()).saturating_sub(BLOCK - 1))
        .sum();
    assert_eq!((learnt + cut, dialogues.len()), (all, 2 * pairs.len()));
    let whole = [pairs.pairs[0].prompt.clone(), pairs.pairs[0].chosen.clone()].concat();
    assert!(
        whole.ends_with(&dialogues.pairs[0].chosen)
            && dialogues.pairs[0].chosen.len() == whole.len().min(BLOCK - 1)
    );
    assert_eq!(
        (&dialogues.pairs[1].prompt, &dialogues.pairs[1].chosen),
        (&pairs.pairs[0].prompt, &pairs.pairs[0].rejected)
    );
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let (start, pairs) = (Gpt::new(tiny(1, 0.0), 1).unwrap(), tokenized(&texts(1, 6)));
    let train = |config: &RewardConfig, start: &Gpt, pairs: &TokenizedPairs| {
        error(RewardModel::train(config, start, pairs, pairs, None)).to_string()
    };
    let with = |change: fn(&mut RewardConfig)| {
        let mut config = config(2);
        change(&mut config);
        config
    };
    for (change, says) in [
        ((|c| c.lm_weight = -1.0) as fn(&mut RewardConfig), "lm_weight"),
        (|c| c.token_dropout = 1.0, "token_dropout"),
        (|c| c.max_prompt = 0, "max_prompt"),
        (|c| c.train.compute.composed = true, "composed"),
        (|c| c.train.learning_rate = 0.0, "learning_rate"),
        (|c| c.train.checkpoint = Some("x".into()), "cache"),
    ] {
        let message = train(&with(change), &start, &pairs);
        assert!(message.contains(says), "{message}");
    }
    assert!(train(&config(2), &start, &pairs.head(0)).contains("0 pairs"));
    assert!(
        train(&config(2), &Gpt::new(tiny(1, 0.1), 1).unwrap(), &pairs).contains("without dropout")
    );
    let short_block = GptConfig { block_size: BLOCK - 1, ..tiny(1, 0.0) };
    assert!(
        train(&config(2), &Gpt::new(short_block, 1).unwrap(), &pairs)
            .contains("longer than the model's block")
    );
    let model = RewardModel::from_parts(&start, vec![0.0; 16], [10, 10]).unwrap();
    assert!(
        error(model.score(&tokenizer(), &["a".into()], &[]))
            .got()
            .contains("1 prompts and 0 replies")
    );
    assert!(error(RewardModel::from_parts(&start, vec![0.0; 15], [10, 10])).got().contains("15"));
    assert!(
        error(RewardModel::from_parts(&start, vec![0.0; 16], [BLOCK, 1]))
            .got()
            .contains("block_size")
    );
}
