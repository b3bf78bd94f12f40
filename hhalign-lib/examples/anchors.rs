//! Prints a hash for each of a set of small runs: equal lines before and after a change mean equal
//! bits.
//!
//! usage: anchors [emulated]
//! A refactoring keeps every line. Lines differ between processors; they are compared on one
//! machine.

use std::path::Path;

use hhalign::base::rng::sha256_hex;
use hhalign::infer::score::score_pairs_with;
use hhalign::prelude::*;

fn main() -> Result<()> {
    let data = Dataset::embedded(3, 400)?;
    let split = data.split(0.2)?;
    let tokenizer = Tokenizer::train(&split.train, 500)?;
    let train = TokenizedPairs::new(&split.train, &tokenizer, 128)?;
    let held_out = TokenizedPairs::new(&split.held_out, &tokenizer, 128)?.head(40);
    let config = GptConfig {
        vocab_size: tokenizer.vocab_size(),
        block_size: 128,
        n_layer: 2,
        n_head: 2,
        n_embd: 48,
        dropout: 0.0,
        layer_norm_epsilon: 1e-5,
    };
    let emulated = std::env::args().nth(1).is_some_and(|word| word == "emulated");
    let steps = if emulated { 3 } else { 24 };
    let folder = std::env::temp_dir().join(format!("hhalign-anchors-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    hhalign::live::set_runs_folder(folder.join("runs"));
    let fresh = || Gpt::new(config.clone(), 5);
    let plan = |compute: Compute| TrainConfig {
        learning_rate: 2e-3,
        max_steps: steps,
        warmup_steps: 2,
        batch_size: 8,
        micro_batch_size: 3,
        eval_every: 8,
        log_every: 2,
        progress: false,
        compute,
        ..TrainConfig::default()
    };
    let say = |name: &str, hash: String| println!("{name:<28} {hash}");
    let history = |h: &History| {
        // Times and memory are no part of it.
        let untimed = |name: &str| {
            !["seconds", "tokens_per_s", "peak_memory_mb", "gpu_memory_mb"].contains(&name)
        };
        let lines: Vec<String> = h
            .records
            .iter()
            .map(|r| {
                let metrics: Vec<String> = r
                    .metrics
                    .iter()
                    .filter(|m| untimed(m.0))
                    .map(|m| format!("{} {:?}", m.0, m.1))
                    .collect();
                format!("{} {}", r.step, metrics.join(" "))
            })
            .collect();
        sha256_hex([lines.join("\n").as_bytes()], 16)
    };
    let sft = |name: &str, compute: Compute| -> Result<Gpt> {
        let mut model = fresh()?;
        let run = Sft { train: plan(compute) }.fit(&mut model, &train, &held_out)?;
        say(&format!("sft {name}"), model.hash()?);
        say(&format!("sft {name} history"), history(&run.history));
        Ok(model)
    };
    let dpo = |name: &str,
               reference: &Gpt,
               compute: Compute,
               loss: PreferenceLoss,
               kl: usize|
     -> Result<Gpt> {
        let mut policy = reference.fork()?;
        let dpo = Dpo { train: plan(compute), loss, kl_prompts: kl, ..Dpo::default() };
        let run = dpo.fit(&mut policy, reference, &train, &held_out)?;
        say(&format!("dpo {name}"), policy.hash()?);
        say(&format!("dpo {name} history"), history(&run.history));
        Ok(policy)
    };
    let f32 =
        Compute { device: if emulated { Device::Auto } else { Device::Cpu }, ..Compute::default() };
    let reference = sft("f32", f32.clone())?.freeze()?;
    let policy =
        dpo("f32", &reference, f32.clone(), PreferenceLoss::Sigmoid, if emulated { 0 } else { 4 })?;
    let precisions =
        if emulated { vec![Precision::Bf16, Precision::F16] } else { vec![Precision::Auto] };
    for precision in precisions {
        let compute = Compute { precision, ..f32.clone() };
        let name = format!("{precision:?}");
        sft(&name, compute.clone())?;
        dpo(&name, &reference, compute, PreferenceLoss::Ipo, 0)?;
    }
    let scores = score_pairs_with(&reference, &train.head(64), &f32)?;
    let bytes: Vec<u8> =
        scores.chosen.iter().chain(&scores.rejected).flat_map(|x| x.to_le_bytes()).collect();
    say("reference's scores", sha256_hex([bytes.as_slice()], 16));
    let prompts: Vec<String> = split
        .held_out
        .iter()
        .take(if emulated { 6 } else { 64 })
        .map(|p| p.prompt.clone())
        .collect();
    let sampler = Sampler {
        temperature: 0.8,
        top_p: if emulated { 1.0 } else { 0.95 },
        max_new_tokens: if emulated { 4 } else { 24 },
        seed: 9,
        ..Sampler::default()
    };
    let texts = |replies: Vec<Reply>| sha256_hex([format!("{replies:?}").as_bytes()], 16);
    say("replies", texts(sampler.replies(&policy, &tokenizer, &prompts)?));
    say(
        "replies of a mixture",
        texts(sampler.replies_between(&policy, &reference, 0.5, &tokenizer, &prompts[..4])?),
    );
    let reward = RewardConfig {
        train: plan(f32.clone()),
        lm_weight: 0.1,
        token_dropout: 0.1,
        ..RewardConfig::default()
    };
    let reward_model = RewardModel::train(&reward, &reference, &train, &held_out, None)?;
    say("reward model", reward_model.hash()?);
    say(
        "reward model history",
        history(&reward_model.training.as_ref().expect("it was trained here").history),
    );
    let (chosen, rejected) = reward_model.score_pairs(&held_out)?;
    let bytes: Vec<u8> = chosen.iter().chain(&rejected).flat_map(|x| x.to_le_bytes()).collect();
    say("rewards", sha256_hex([bytes.as_slice()], 16));
    if emulated {
        return Ok(());
    }
    let half = RewardConfig {
        train: TrainConfig { stop_at: Some(11), checkpoint_every: 5, ..reward.train.clone() },
        ..reward.clone()
    };
    RewardModel::train(&half, &reference, &train, &held_out, Some(&folder))?;
    say(
        "reward model resumed",
        RewardModel::train(&reward, &reference, &train, &held_out, Some(&folder))?.hash()?,
    );
    sft("composed", Compute { composed: true, ..f32.clone() })?;
    dpo(
        "composed",
        &reference,
        Compute { composed: true, ..f32.clone() },
        PreferenceLoss::Sigmoid,
        0,
    )?;
    let mut dropped = Gpt::new(GptConfig { dropout: 0.1, ..config.clone() }, 5)?;
    let run = Sft { train: plan(f32.clone()) }.fit(&mut dropped, &train, &held_out)?;
    say("sft with dropout", dropped.hash()?);
    say("sft with dropout history", history(&run.history));
    sft("checkpointed", Compute { checkpoint_activations: true, ..f32.clone() })?;
    dpo(
        "unshared",
        &reference,
        Compute { share_prompts: false, ..f32.clone() },
        PreferenceLoss::Kto { kl: 0.1 },
        0,
    )?;
    let path = folder.join("half.safetensors");
    let mut resumed = fresh()?;
    let first =
        TrainConfig { checkpoint: Some(path.clone()), stop_at: Some(13), ..plan(f32.clone()) };
    Sft { train: first }.fit(&mut resumed, &train, &held_out)?;
    Sft { train: plan(f32.clone()) }.resume(Path::new(&path), &mut resumed, &train, &held_out)?;
    say("sft resumed", resumed.hash()?);
    let start = Dpo { train: plan(f32.clone()), ..Dpo::default() };
    let run = start.start(&reference.fork()?, &reference, &train, &held_out)?;
    run.finish()?;
    say("dpo live", run.model()?.hash()?);
    let fork = run.fork(|branch| {
        branch.beta = 0.5;
        branch.train.max_steps = 36;
    })?;
    fork.finish()?;
    say("fork", fork.model()?.hash()?);
    let odds = likelihood_auc(&RefusalPrompts::embedded(1, 20)?, &policy, &tokenizer, 1)?;
    let odds = odds.estimate();
    say(
        "refusal odds",
        sha256_hex([format!("{:?}", [odds.value, odds.low, odds.high]).as_bytes()], 16),
    );
    std::fs::remove_dir_all(&folder).ok();
    Ok(())
}
