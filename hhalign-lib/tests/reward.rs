//! The reward model: scores, gradients and a whole training against PyTorch and transformers (scripts/make_golden.py), and
//! the fast path against automatic differentiation.

mod common;

use std::collections::BTreeMap;

use candle_core::{DType, Tensor, Var};
use common::{
    BLOCK, Folder, bits, distance, error, golden_json, golden_model, golden_tensors, gradient_error, max_abs,
    named_gradients, number, numbers, short, texts, tiny, tokenized, tokenizer,
};
use hhalign::batch::{Batch, Side, TokenizedPair, TokenizedPairs};
use hhalign::data::{Pair, PromptKind};
use hhalign::fused::{Compute, Keep, Packed, Precision, Purpose, Workspace, with_weights};
use hhalign::gradients::Gradients;
use hhalign::model::{Gpt, GptConfig};
use hhalign::nn::Dropout;
use hhalign::optim::AdamWConfig;
use hhalign::parallel;
use hhalign::reward::{RewardConfig, RewardGroup, RewardMixture, RewardModel, bradley_terry, whole_dialogues};
use hhalign::score;
use hhalign::train::TrainConfig;

const LM_WEIGHT: f64 = 0.3;
const BOTH: [Side; 2] = [Side::Chosen, Side::Rejected];

/// The pairs of the fixtures, read off ids and masks.
fn golden_pairs() -> TokenizedPairs {
    let all = golden_tensors("dpo_expected.safetensors");
    let rows = |side: &str| {
        let ids = all[&format!("{side}_ids")].to_dtype(DType::U32).unwrap().to_vec2::<u32>().unwrap();
        let mask = all[&format!("{side}_mask")].to_vec2::<f32>().unwrap();
        let split = |(ids, mask): (Vec<u32>, Vec<f32>)| {
            let start = mask.iter().position(|m| *m == 1.0).unwrap();
            let n = mask.iter().filter(|m| **m == 1.0).count();
            (ids[..start].to_vec(), ids[start..start + n].to_vec())
        };
        ids.into_iter().zip(mask).map(split).collect::<Vec<_>>()
    };
    let pairs = rows("chosen").into_iter().zip(rows("rejected")).map(|((prompt, chosen), (same, rejected))| {
        assert_eq!(prompt, same);
        TokenizedPair { prompt, chosen, rejected }
    });
    TokenizedPairs::from_ids(pairs.collect(), 40, 0)
}

fn head(model: &Gpt) -> Vec<f32> {
    (0..model.config.n_embd).map(|i| ((i * 29) % 31) as f32 / 31.0 - 0.5).collect()
}

/// Loss, rewards (chosen, rejected, chosen, ...) and all gradients by the fast path, put together from its public parts.
struct Fused {
    loss: f64,
    rewards: Vec<f64>,
    gradients: BTreeMap<String, Tensor>,
    head: Vec<f64>,
}

fn fused(model: &Gpt, head: &[f32], pairs: &TokenizedPairs, share: bool, keep: Keep, precision: Precision) -> Fused {
    let mut packed = Packed::default();
    for pair in &pairs.pairs {
        if share {
            packed.push_whole(&pair.prompt, &[&pair.chosen, &pair.rejected], 1).unwrap();
        } else {
            packed.push_whole(&pair.prompt, &[&pair.chosen], 1).unwrap();
            packed.push_whole(&pair.prompt, &[&pair.rejected], 0).unwrap();
        }
    }
    let tokens = packed.n_targets();
    assert_eq!((tokens, packed.n_ends()), (pairs.pairs.iter().map(|p| p.chosen.len()).sum(), 2 * pairs.len()));
    let slopes = vec![(-LM_WEIGHT / tokens as f64) as f32; tokens];
    let (mut workspace, mut gradients) = (Workspace::default(), Gradients::zeros(&model.config));
    with_weights(model, precision, Purpose::Train, |weights| {
        let logps = workspace.forward_constant_grad(weights, &packed, keep, None, &slopes, &mut gradients)?;
        let ends = workspace.ends(weights, &packed).to_vec();
        let rewards: Vec<f32> = ends.chunks(head.len()).map(|h| h.iter().zip(head).map(|(h, w)| h * w).sum()).collect();
        let leaf = Var::from_vec(rewards.clone(), (pairs.len(), 2), &candle_core::Device::Cpu)?;
        let side = |i: usize| leaf.narrow(1, i, 1);
        let loss = bradley_terry(&side(0)?, &side(1)?)?.mean_all()?;
        let slope = numbers(loss.backward()?.get(&leaf).unwrap());
        let dends: Vec<f32> = slope.iter().flat_map(|s| head.iter().map(move |w| *s as f32 * w)).collect();
        workspace.backward_ends(weights, &packed, &slopes, &dends, &mut gradients)?;
        let of_head = (0..head.len()).map(|i| {
            let rows = ends.chunks(head.len()).zip(&slope);
            rows.map(|(h, s)| f64::from(h[i]) * s).sum()
        });
        let lm: f64 = -logps.iter().map(|l| f64::from(*l)).sum::<f64>() / tokens as f64;
        Ok(Fused {
            loss: number(&loss) + LM_WEIGHT * lm,
            rewards: rewards.into_iter().map(f64::from).collect(),
            gradients: gradients.to_tensors()?,
            head: of_head.collect(),
        })
    })
    .unwrap()
}

/// The same by the composed model and automatic differentiation.
fn composed(model: &Gpt, head: &[f32], pairs: &TokenizedPairs) -> Fused {
    let head = Var::from_slice(head, (head.len(), 1), &candle_core::Device::Cpu).unwrap();
    let indices: Vec<usize> = (0..pairs.len()).collect();
    let batch = pairs.batch_of(&indices, &BOTH).unwrap();
    let (rows, t) = batch.input_ids.dims2().unwrap();
    let lengths = pairs.pairs.iter().flat_map(|p| BOTH.map(|s| p.prompt.len() + p.reply(s).len()));
    let ends: Vec<u32> = lengths.enumerate().map(|(row, n)| (row * t + n - 1) as u32).collect();
    let hidden = model.hidden(&batch.input_ids, &mut Dropout::off()).unwrap().reshape((rows * t, ())).unwrap();
    let ends = hidden.index_select(&Tensor::new(ends, hidden.device()).unwrap(), 0).unwrap();
    let rewards = ends.matmul(&head).unwrap().reshape((pairs.len(), 2)).unwrap();
    let side = |i: usize| rewards.narrow(1, i, 1).unwrap();
    let chosen = Batch::new(
        &pairs.pairs.iter().map(|p| (p.prompt.as_slice(), p.chosen.as_slice())).collect::<Vec<_>>(),
        pairs.eos_id(),
    )
    .unwrap();
    let logps = score::token_logps(model, &chosen, &mut Dropout::off()).unwrap().mean_all().unwrap();
    let pairs = bradley_terry(&side(0), &side(1)).unwrap().mean_all().unwrap();
    let loss = (pairs - (logps * LM_WEIGHT).unwrap()).unwrap();
    let mut store = loss.backward().unwrap();
    let of_head = numbers(&store.remove(head.as_tensor()).unwrap());
    Fused { loss: number(&loss), rewards: numbers(&rewards), gradients: named_gradients(model, store), head: of_head }
}

/// A model whose parameters are all away from their start.
fn moved(config: GptConfig) -> Gpt {
    let model = Gpt::new(config, 3).unwrap();
    let noise = |(name, tensor): (&String, &Tensor)| {
        let noise = (0..tensor.elem_count()).map(|i| ((i * 37 + name.len() * 11) % 97) as f32 / 970.0 - 0.05);
        let noise = Tensor::from_vec(noise.collect::<Vec<f32>>(), tensor.dims(), tensor.device()).unwrap();
        (name.clone(), ((tensor * 3.0).unwrap() + noise).unwrap())
    };
    let parameters = model.named_parameters().iter().map(noise).collect();
    Gpt::from_parameters(model.config.clone(), parameters, true).unwrap()
}

#[test]
fn rewards_loss_and_every_gradient_equal_pytorchs() {
    let (model, pairs) = (golden_model("gpt2_l2"), golden_pairs());
    let mut expected = golden_tensors("reward_expected.safetensors");
    let head: Vec<f32> = numbers(&expected["head"]).into_iter().map(|w| w as f32).collect();
    let rewards = RewardModel::from_parts(&model, head.clone(), [20, 20]).unwrap().score_pairs(&pairs).unwrap();
    for (ours, name) in [(rewards.0, "chosen_rewards"), (rewards.1, "rejected_rewards")] {
        let apart = distance(&ours.into_iter().map(f64::from).collect::<Vec<_>>(), &numbers(&expected[name]));
        println!("{name}: {apart:.1e}");
        assert!(apart < 1e-5, "{name}: {apart}");
    }
    let of_head = numbers(&expected.remove("grad.score.weight").unwrap());
    let ours = fused(&model, &head, &pairs, true, Keep::Activations, Precision::F32);
    let (slope, name) = gradient_error(&ours.gradients, &expected);
    let (loss, slope_of_head) = (ours.loss - number(&expected["loss"]), distance(&ours.head, &of_head));
    println!("loss {loss:.1e}, gradients {slope:.1e} ({name}), of the head {slope_of_head:.1e}");
    assert!(loss.abs() < 1e-5 && slope < 1e-4 && slope_of_head < 1e-5, "{loss} {slope} {name} {slope_of_head}");
}

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
    let config = RewardConfig { train, lm_weight: LM_WEIGHT, max_prompt: 20, ..RewardConfig::default() };
    let model = RewardModel::train(&config, &start, &pairs, &pairs, None).unwrap();
    let training = model.training.as_ref().unwrap();
    assert_eq!(training.best.step, steps, "the loss falls on the pairs themselves: the last weights are the best");
    let series = |name: &str| training.history.series(name).into_iter().map(|p| p.1).collect::<Vec<_>>();
    let wanted =
        |name: &str| expected[name].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>();
    let lm = series("lm_loss").into_iter().map(|x| LM_WEIGHT * x);
    let losses: Vec<f64> = series("loss").into_iter().zip(lm).map(|(a, b)| a + b).collect();
    let (loss, norm) = (distance(&losses, &wanted("losses")), distance(&series("grad_norm"), &wanted("grad_norms")));
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
fn the_fast_path_equals_automatic_differentiation() {
    let pairs = tokenized(&texts(3, 7));
    for config in [tiny(1, 0.0), tiny(3, 0.0)] {
        let model = moved(config);
        let head = head(&model);
        let exact = composed(&model, &head, &pairs);
        for (share, keep) in [
            (true, Keep::Activations),
            (false, Keep::Activations),
            (true, Keep::BlockInputs),
            (false, Keep::BlockInputs),
        ] {
            let ours = fused(&model, &head, &pairs, share, keep, Precision::F32);
            let mut worst = distance(&ours.head, &exact.head) / max_abs(&exact.head);
            for (name, ours) in &ours.gradients {
                let exact = numbers(&exact.gradients[name]);
                worst = worst.max(distance(&numbers(ours), &exact) / max_abs(&exact));
            }
            let (loss, value) = ((ours.loss - exact.loss).abs(), distance(&ours.rewards, &exact.rewards));
            println!("share {share} {keep:?}: loss {loss:.1e}, rewards {value:.1e}, gradients {worst:.1e}");
            assert!(loss < 2e-5 && value < 2e-5 && worst < 2e-5, "{share} {keep:?}: {loss} {value} {worst}");
        }
    }
}

#[test]
fn bf16_stays_near_f32() {
    let (model, pairs) = (moved(tiny(2, 0.0)), tokenized(&texts(3, 7)));
    if let Err(error) = (Compute { precision: Precision::Bf16, ..Compute::default() }).name() {
        return println!("skipped: {error}");
    }
    let run = |precision| fused(&model, &head(&model), &pairs, true, Keep::Activations, precision).rewards;
    let (exact, ours) = (run(Precision::F32), run(Precision::Bf16));
    let apart = distance(&ours, &exact) / max_abs(&exact);
    assert!(apart > 1e-6 && apart < 0.03, "{apart}");
}

fn config(steps: usize) -> RewardConfig {
    let train = TrainConfig { micro_batch_size: 2, checkpoint_every: 3, ..short(steps) };
    RewardConfig { train, lm_weight: 0.1, token_dropout: 0.1, ..RewardConfig::default() }
}

fn trained(config: &RewardConfig, cache: Option<&Folder>) -> RewardModel {
    let (start, pairs, watched) =
        (Gpt::new(tiny(2, 0.0), 5).unwrap(), tokenized(&texts(1, 40)), tokenized(&texts(2, 12)));
    RewardModel::train(config, &start, &pairs, &watched, cache.map(|c| c.0.as_path())).unwrap()
}

fn same(one: &RewardModel, other: &RewardModel) {
    assert!(bits(one.gpt()) == bits(other.gpt()), "other weights");
    assert_eq!(one.head(), other.head());
    let history = |m: &RewardModel| m.training.as_ref().unwrap().history.series("loss");
    assert_eq!(history(one), history(other));
    assert_eq!(one.training.as_ref().unwrap().best, other.training.as_ref().unwrap().best);
}

#[test]
fn before_the_first_step_the_loss_is_ln_2_and_then_it_falls() {
    let model = trained(&RewardConfig { token_dropout: 0.0, ..config(40) }, None);
    let history = &model.training.as_ref().unwrap().history;
    let watched = history.series("eval_loss");
    assert!((history.series("loss")[0].1 - 2f64.ln()).abs() < 1e-7 && (watched[0].1 - 2f64.ln()).abs() < 1e-7);
    assert_eq!(history.series("eval_accuracy")[0].1, 0.5, "rewards of zero are ties");
    let lowest = watched.iter().fold(f64::INFINITY, |low, p| low.min(p.1));
    assert_eq!(model.training.as_ref().unwrap().best.loss, lowest);
    assert!(lowest < 0.69, "{lowest}");
}

#[test]
fn the_number_of_threads_changes_no_bit_and_the_seed_does() {
    let with = |threads: usize| {
        parallel::set_threads(threads);
        let model = trained(&config(8), None);
        parallel::set_threads(0);
        model
    };
    let first = with(1);
    [2, 3].into_iter().for_each(|threads| same(&first, &with(threads)));
    let mut other = config(8);
    other.train.seed = 1;
    assert!(bits(trained(&other, None).gpt()) != bits(first.gpt()));
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
    // Stopped in the middle, between two checkpoints: the settings that decide numbers are the same.
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
    let mended = trained(&config(8), Some(&folder));
    assert!(!mended.from_cache);
    same(&mended, &whole);
}

#[test]
fn patience_ends_a_training_that_learns_nothing_more() {
    let mut config = config(400);
    (config.train.learning_rate, config.train.patience) = (0.03, Some(2));
    let training = trained(&config, None).training.unwrap();
    assert!(training.stopped_early && training.steps < 400 && training.best.step + 4 == training.steps, "{training:?}");
}

#[test]
fn a_reward_depends_on_nothing_but_prompt_and_reply() {
    let (pairs, tokenizer) = (texts(2, 12), tokenizer());
    let model =
        RewardModel::from_parts(&moved(tiny(2, 0.0)), head(&moved(tiny(2, 0.0))), [BLOCK / 2, BLOCK / 2]).unwrap();
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
    let (a, b) = (model.score(&tokenizer, &long, &[" Yes.".into()]), model.score(&tokenizer, &long, &[" No.".into()]));
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
    assert_eq!((loaded.hash().unwrap(), same_tokenizer.hash()), (model.hash().unwrap(), tokenizer.hash()));
    assert_eq!((loaded.limits(), model.limits()), ([BLOCK / 2; 2], [BLOCK / 2; 2]));
    let other = RewardConfig { token_dropout: 0.2, ..config(8) };
    assert_ne!(trained(&other, None).hash().unwrap(), model.hash().unwrap());
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("model/config.json")).unwrap()).unwrap();
    let pad = config["pad_token_id"].as_u64().unwrap() as u32;
    assert_ne!(pad, tokenizer.eos_id());
    let every_character = (0..=0x2fff).filter_map(char::from_u32).collect::<String>();
    assert!(!tokenizer.encode(&every_character).unwrap().contains(&pad), "no text holds the padding");
    let language_model = Folder::new("no-reward-model");
    hhalign::checkpoint::save_model(model.gpt(), &tokenizer, language_model.join("m")).unwrap();
    assert!(error(RewardModel::load(language_model.join("m"))).what().contains("no reward model"));
}

#[test]
fn whole_dialogues_hold_every_token_once() {
    let pairs = tokenized(&texts(4, 9));
    let dialogues = whole_dialogues(&pairs);
    let learnt: usize = dialogues.pairs.iter().map(|p| p.chosen.len()).sum();
    let all: usize = pairs.pairs.iter().map(|p| p.prompt.len() + p.chosen.len() + p.rejected.len()).sum();
    let cut: usize = pairs.pairs.iter().map(|p| (p.prompt.len() + p.chosen.len()).saturating_sub(BLOCK - 1)).sum();
    assert_eq!((learnt + cut, dialogues.len()), (all, 2 * pairs.len()));
    let whole = [pairs.pairs[0].prompt.clone(), pairs.pairs[0].chosen.clone()].concat();
    assert!(
        whole.ends_with(&dialogues.pairs[0].chosen) && dialogues.pairs[0].chosen.len() == whole.len().min(BLOCK - 1)
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
    assert!(train(&config(2), &Gpt::new(tiny(1, 0.1), 1).unwrap(), &pairs).contains("without dropout"));
    let short_block = GptConfig { block_size: BLOCK - 1, ..tiny(1, 0.0) };
    assert!(train(&config(2), &Gpt::new(short_block, 1).unwrap(), &pairs).contains("longer than the model's block"));
    let model = RewardModel::from_parts(&start, vec![0.0; 16], [10, 10]).unwrap();
    assert!(error(model.score(&tokenizer(), &["a".into()], &[])).got().contains("1 prompts and 0 replies"));
    assert!(error(RewardModel::from_parts(&start, vec![0.0; 15], [10, 10])).got().contains("15"));
    assert!(error(RewardModel::from_parts(&start, vec![0.0; 16], [BLOCK, 1])).got().contains("block_size"));
}

/// Harmful and helpful requests; look-alikes are made to be confused.
const KINDS: [PromptKind; 2] = [PromptKind::Harmful, PromptKind::Helpful];

fn of_kind(pairs: Vec<Pair>, kinds: &[PromptKind]) -> Vec<Pair> {
    pairs.into_iter().filter(|p| p.kind.is_some_and(|kind| kinds.contains(&kind))).collect()
}

fn groups() -> [RewardGroup; 2] {
    let of = |seed, n, kind| tokenized(&of_kind(texts(seed, n), &[kind]));
    KINDS.map(|kind| RewardGroup { name: format!("{kind:?}"), pairs: of(1, 240, kind), watched: of(2, 40, kind) })
}

#[test]
fn a_mixture_sends_each_prompt_to_the_model_of_its_kind() {
    let (groups, start, tokenizer) = (groups(), Gpt::new(tiny(1, 0.0), 5).unwrap(), tokenizer());
    let folder = Folder::new("reward-mixture");
    let mixture = RewardMixture::train(&config(12), &start, &groups, Some(&folder.join("cache"))).unwrap();
    let steps: usize = mixture.models().map(|(_, m)| m.training.as_ref().unwrap().steps).sum();
    assert!((12..=13).contains(&steps), "the steps are shared out: {steps}");
    let unseen = of_kind(texts(3, 80), &KINDS);
    let prompts: Vec<String> = unseen.iter().map(|p| p.prompt.clone()).collect();
    let routed = mixture.route(&tokenizer, &prompts).unwrap();
    let right = unseen.iter().zip(&routed).filter(|(p, g)| p.kind == Some(KINDS[**g])).count();
    println!("{right} of {} prompts went to their kind", unseen.len());
    let larger = unseen.iter().filter(|p| p.kind == Some(KINDS[1])).count();
    assert!(right > larger + (unseen.len() - larger) / 4, "{right} of {}, {larger} of one kind", unseen.len());
    let replies: Vec<String> = unseen.iter().map(|p| p.chosen.clone()).collect();
    let rewards = mixture.score(&tokenizer, &prompts, &replies).unwrap();
    for (group, (_, model)) in mixture.models().enumerate() {
        let alone = model.score(&tokenizer, &prompts, &replies).unwrap();
        let own = (0..unseen.len()).filter(|&i| routed[i] == group);
        assert!(own.clone().count() > 0 && own.into_iter().all(|i| (alone[i] - rewards[i]).abs() < 1e-5));
    }
    let first = mixture.score_in(&tokenizer, &prompts, &replies, &vec![0; prompts.len()]).unwrap();
    assert_ne!(first, rewards, "a group that is known goes before the classifier");
    assert!(error(mixture.score_in(&tokenizer, &prompts, &replies, &[0])).got().contains("1 groups"));
    let (chosen, _) = mixture.score_pairs(&tokenized(&unseen)).unwrap();
    assert!(chosen.iter().zip(&rewards).all(|(a, b)| (a - b).abs() < 1e-5), "pairs go the same way");
    mixture.save(&tokenizer, folder.join("saved")).unwrap();
    let (loaded, _) = RewardMixture::load(folder.join("saved")).unwrap();
    assert_eq!(loaded.hash().unwrap(), mixture.hash().unwrap());
    let again = RewardMixture::train(&config(12), &start, &groups, Some(&folder.join("cache"))).unwrap();
    assert!(again.models().all(|(_, m)| m.from_cache) && again.hash().unwrap() == mixture.hash().unwrap());
    assert!(error(RewardMixture::train(&config(2), &start, &[], None)).got().contains("[]"));
    let twice = [groups[0].clone(), groups[0].clone()];
    assert!(error(RewardMixture::train(&config(2), &start, &twice, None)).what().contains("told apart"));
}
