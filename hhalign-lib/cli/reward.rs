//! `hhalign reward`: a reward model, and how often it agrees with people.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use hhalign::data::split::split;
use hhalign::notebook::options::parse;
use hhalign::prelude::*;
use hhalign::stats::wilson;

use crate::Failure;

/// Train a reward model, and say how often it agrees with people on held-out pairs.
///
/// Real pairs get a model for harmless and one for helpful requests, which begin with a language
/// model of all text on the training side.
#[derive(Args)]
pub struct Reward {
    /// Preference data, as for run; without it, the synthetic set of the library.
    #[arg(long, value_name = "PLACE", value_parser = parse::data)]
    data: Option<PathBuf>,
    /// Sizes of the model: toy, small or gpt2.
    #[arg(long, value_name = "NAME", value_parser = Preset::from_name, default_value = "toy")]
    preset: Preset,
    /// Trainings, with seeds from 0.
    #[arg(long, value_name = "N", value_parser = parse::count, default_value = "1")]
    seeds: usize,
    /// Folder for trained models; with it, a second call with the same settings trains nothing.
    #[arg(long, value_name = "FOLDER", value_parser = parse::folder)]
    cache: Option<PathBuf>,
    /// Write each model into this folder, for transformers.
    #[arg(long, value_name = "FOLDER", value_parser = parse::folder)]
    save: Option<PathBuf>,
    /// Write scores of the first model, for scripts/checks/check_transformers.py.
    #[arg(long, value_name = "FILE")]
    parity: Option<PathBuf>,
}

impl Reward {
    pub fn run(self) -> Result<(), Failure> {
        Ok(train(&self)?)
    }
}

fn train(options: &Reward) -> Result<()> {
    let (preset, seeds) = (options.preset, options.seeds as u64);
    let real = options.data.is_some();
    let data = match &options.data {
        Some(place) => Dataset::read(place)?,
        None => Dataset::embedded(0, 4000)?,
    };
    let outer = data.split(0.1)?;
    // What is watched comes from the training side, and by first turns as well: nothing is chosen
    // on held-out pairs.
    let mut inside = outer.train.clone();
    inside.iter_mut().for_each(|pair| pair.held_out = None);
    let inner = split(&inside, if real { 0.2 } else { 0.1 })?;
    let tokenizer = Tokenizer::train(&outer.train, preset.vocab_size().unwrap_or(4096))?;
    let gpt = preset.config(tokenizer.vocab_size());
    let tokens = |pairs: &[Pair]| TokenizedPairs::new(pairs, &tokenizer, 256);
    let (train, watched, held_out) =
        (tokens(&inner.train)?, tokens(&inner.held_out)?, tokens(&outer.held_out)?);
    println!(
        "data {} ({}), {} pairs to train on, {} to watch, {} held out, of which {} first turns are in training",
        data.name,
        data.hash(),
        train.len(),
        watched.len(),
        held_out.len(),
        outer.overlap()
    );
    let cache = options.cache.as_deref();
    let groups = RewardGroup::by_kind(&inner.train, &inner.held_out, &tokenizer, 256)?;
    let (mut sums, mut hashes, mut last) = (vec![(0.0, 0.0); held_out.len()], vec![], None);
    let start = Gpt::new(gpt, 0)?;
    let start = if real { language_model(start, &train, &watched, cache)? } else { start };
    for seed in 0..seeds {
        let mut config = if real { on_hh(preset) } else { on_embedded() };
        config.train.seed = seed;
        let clock = Instant::now();
        let model = RewardMixture::train(&config, &start, &groups, cache)?;
        println!("seed {seed}: {:.1} s", clock.elapsed().as_secs_f64());
        for (name, model) in model.models() {
            let training =
                model.training.as_ref().expect("it was trained here or found in the cache");
            let cached = if model.from_cache { ", found in the cache" } else { "" };
            let Best { step, loss } = training.best;
            println!(
                "  {name}: {:.0} s of training{cached}, best step {step}, watched loss {loss:.4}",
                training.seconds
            );
        }
        let known = |pairs: &[Pair]| -> Vec<usize> {
            let names: Vec<&str> = model.models().map(|(name, _)| name).collect();
            pairs
                .iter()
                .map(|pair| {
                    names.iter().position(|name| *name == RewardGroup::kind_of(pair)).unwrap_or(0)
                })
                .collect()
        };
        let margins = |(chosen, rejected): (Vec<f32>, Vec<f32>)| -> Vec<f32> {
            chosen.iter().zip(rejected).map(|(c, r)| c - r).collect()
        };
        if groups.len() > 1 {
            let read = margins(model.score_pairs(&held_out)?);
            report(
                &format!("seed {seed}, held out, kind read off the prompt"),
                &outer.held_out,
                read.into_iter(),
            );
        }
        let of_watched = margins(model.score_pairs_in(&watched, &known(&inner.held_out))?);
        report(&format!("seed {seed}, watched"), &inner.held_out, of_watched.into_iter());
        let (chosen, rejected) = model.score_pairs_in(&held_out, &known(&outer.held_out))?;
        report(
            &format!("seed {seed}, held out"),
            &outer.held_out,
            chosen.iter().zip(&rejected).map(|(c, r)| c - r),
        );
        for (sum, (c, r)) in sums.iter_mut().zip(chosen.iter().zip(&rejected)) {
            *sum = (sum.0 + c, sum.1 + r);
        }
        hashes.push(model.hash()?);
        last = Some(model);
    }
    if seeds > 1 {
        report(
            &format!("mean of {seeds}, held out"),
            &outer.held_out,
            sums.iter().map(|(c, r)| c - r),
        );
    }
    println!("tokenizer {}, models {}", tokenizer.hash(), hashes.join(" "));
    let model = last.expect("there is at least one seed");
    if let Some(folder) = &options.save {
        model.save(&tokenizer, folder)?;
    }
    match (&options.parity, model.models().next()) {
        (Some(file), Some((_, model))) => parity(model, &held_out.head(12), file),
        _ => Ok(()),
    }
}

/// Few and quick steps: the embedded set is easy.
fn on_embedded() -> RewardConfig {
    let mut config = RewardConfig::default();
    config.train = TrainConfig {
        learning_rate: 1e-3,
        max_steps: 120,
        eval_every: 20,
        log_every: 20,
        ..config.train
    };
    config.train.compute.precision = Precision::Auto;
    config
}

/// Little more than one epoch: the labels are noisy, and a few thousand pairs are soon known by
/// heart.
fn on_hh(preset: Preset) -> RewardConfig {
    let mut config = RewardConfig::default();
    let learning_rate = if preset == Preset::Toy { 5e-4 } else { 2e-4 };
    config.train = TrainConfig {
        learning_rate,
        max_steps: 420,
        batch_size: 16,
        micro_batch_size: 8,
        ..config.train
    };
    (config.train.warmup_steps, config.train.compute.precision) = (20, Precision::Auto);
    (config.train.eval_every, config.train.log_every) = (30, 30);
    config
}

/// A language model of all text on the training side.
fn language_model(
    mut gpt: Gpt,
    train: &TokenizedPairs,
    watched: &TokenizedPairs,
    cache: Option<&Path>,
) -> Result<Gpt> {
    let (text, watched) = (whole_dialogues(train), whole_dialogues(watched).head(150));
    let mut settings = TrainConfig {
        max_steps: 1100,
        batch_size: 16,
        micro_batch_size: 4,
        warmup_steps: 50,
        ..TrainConfig::default()
    };
    (settings.eval_every, settings.log_every, settings.compute.precision) =
        (275, 55, Precision::Auto);
    settings.checkpoint = cache.map(|folder| {
        folder.join(format!(
            "language-{}-{}.safetensors",
            gpt.hash().unwrap_or_default(),
            text.hash
        ))
    });
    let (sft, checkpoint) =
        (Sft { train: settings.clone() }, settings.checkpoint.filter(|path| path.exists()));
    match checkpoint {
        Some(path) => sft.resume(path, &mut gpt, &text, &watched)?,
        None => sft.fit(&mut gpt, &text, &watched)?,
    };
    Ok(gpt)
}

/// Accuracy with its interval, in all and for each subset or kind.
fn report(name: &str, pairs: &[Pair], margins: impl Iterator<Item = f32>) {
    let mut counts: BTreeMap<String, (f64, usize)> = BTreeMap::new();
    for (pair, margin) in pairs.iter().zip(margins) {
        let right = if margin == 0.0 { 0.5 } else { f64::from(margin > 0.0) };
        let group = pair.kind.map_or(pair.origin.subset.to_string(), |kind| format!("{kind:?}"));
        for group in [" all".to_string(), group] {
            let count = counts.entry(group).or_default();
            *count = (count.0 + right, count.1 + 1);
        }
    }
    for (group, (right, n)) in counts {
        println!("{name}: accuracy, {}: {}", group.trim(), wilson(right, n).text());
    }
}

/// Ids and scores of some sequences of unequal lengths.
fn parity(model: &RewardModel, pairs: &TokenizedPairs, file: &Path) -> Result<()> {
    // In f32, whatever it was trained in: transformers computes in f32 too.
    let exact = RewardModel::from_parts(model.gpt(), model.head().to_vec(), model.limits())?;
    let (chosen, rejected) = exact.score_pairs(pairs)?;
    let [max_prompt, max_reply] = model.limits();
    let ids = |prompt: &[u32], reply: &[u32]| {
        [&prompt[prompt.len().saturating_sub(max_prompt)..], &reply[..reply.len().min(max_reply)]]
            .concat()
    };
    let both =
        pairs.pairs.iter().flat_map(|p| [ids(&p.prompt, &p.chosen), ids(&p.prompt, &p.rejected)]);
    let scores: Vec<f32> = chosen.into_iter().zip(rejected).flat_map(|(c, r)| [c, r]).collect();
    let parity = serde_json::json!({ "input_ids": both.collect::<Vec<_>>(), "scores": scores });
    hhalign::base::files::write_atomic(file, parity.to_string().as_bytes())
}
