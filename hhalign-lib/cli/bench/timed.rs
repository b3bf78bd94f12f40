//! Times training, scoring and decoding, each as one line of JSON.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use hhalign::base::error::Result;
use hhalign::base::rng::stream;
use hhalign::compute::cpu::product_rate;
use hhalign::compute::{Compute, Precision};
use hhalign::data::Dataset;
use hhalign::data::batch::{TokenizedPair, TokenizedPairs};
use hhalign::data::tokenize::Tokenizer;
use hhalign::infer::sample::Sampler;
use hhalign::infer::score;
use hhalign::model::checkpoint::write_tensors;
use hhalign::model::{Gpt, GptConfig};
use hhalign::train::{Dpo, History, Sft, TrainConfig};
use rand::Rng as _;
use serde_json::{Value, json};

use super::words::Plan;
use super::{Decoding, RealPairs, Step};

/// Sizes of a model, and of what goes through it.
pub struct Shape {
    pub model: GptConfig,
    pub batch: usize,
    pub length: usize,
    pub steps: usize,
}

impl Shape {
    fn of(step: &Step) -> Self {
        Self {
            model: config(step.model.sizes(), step.length.max(1024)),
            batch: step.batch,
            length: step.length,
            steps: step.steps,
        }
    }
}

/// A model of layers, heads, width and vocabulary.
pub fn config([n_layer, n_head, n_embd, vocab_size]: [usize; 4], block_size: usize) -> GptConfig {
    GptConfig {
        vocab_size,
        block_size,
        n_layer,
        n_head,
        n_embd,
        dropout: 0.0,
        layer_norm_epsilon: 1e-5,
    }
}

/// Two steps to warm up, then those that count; no evaluation but before the first step and after
/// the last.
fn train(shape: &Shape, compute: &Compute, batch_size: usize, micro: Option<usize>) -> TrainConfig {
    TrainConfig {
        learning_rate: 1e-4,
        warmup_steps: 0,
        max_steps: shape.steps + 2,
        batch_size,
        micro_batch_size: micro.unwrap_or(batch_size.div_ceil(2)),
        eval_every: usize::MAX,
        log_every: 1,
        progress: false,
        compute: compute.clone(),
        ..TrainConfig::default()
    }
}

/// The median of the seconds between the records of the steps that count.
fn median_step(history: &History) -> f64 {
    let seconds: Vec<f64> = history.series("seconds").into_iter().map(|p| p.1).collect();
    median(seconds.windows(2).skip(1).map(|w| w[1] - w[0]).collect())
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn peak(history: &History) -> Value {
    // A GPU's where one was used.
    let gpu = history.series("gpu_memory_mb");
    gpu.last().or(history.series("peak_memory_mb").last()).map_or(Value::Null, |p| json!(p.1))
}

/// Random ids: a prompt, and replies that end where the length is reached.
pub fn random_pairs(shape: &Shape, n: usize, prompt: usize) -> TokenizedPairs {
    let mut rng = stream(1, "bench", &[]);
    let mut ids = |n: usize| {
        (0..n).map(|_| rng.random_range(0..shape.model.vocab_size as u32)).collect::<Vec<_>>()
    };
    // The last token of a reply predicts nothing: with one more there are `length` predictions, as
    // in the peers.
    let reply = shape.length + 1 - prompt;
    let pairs = (0..n).map(|_| TokenizedPair {
        prompt: ids(prompt),
        chosen: ids(reply),
        rejected: ids(reply),
    });
    TokenizedPairs::from_ids(pairs.collect(), shape.model.block_size, 0)
}

/// Steps of SFT on random ids.
pub fn sft(step: &Step, plan: &Plan) -> Result<Value> {
    let (shape, compute) = (&Shape::of(step), &plan.compute);
    let pairs = random_pairs(shape, shape.batch * (shape.steps + 2), 1);
    let mut model = Gpt::new(shape.model.clone(), 0)?;
    let sft = Sft { train: train(shape, compute, shape.batch, plan.micro) };
    let run = sft.fit(&mut model, &pairs, &pairs.head(1))?;
    let seconds = median_step(&run.history);
    Ok(json!({
        "work": "sft", "precision": compute.name()?, "tok_s": (shape.batch * shape.length) as f64 / seconds,
        "step_ms": seconds * 1e3, "peak_mb": peak(&run.history), "loss": run.history.series("loss").last().map(|p| p.1),
        "device": compute.device.describe(),
    }))
}

/// Nothing shared and nothing cached: the reference is scored in every step, and each prompt is
/// read twice.
pub fn dpo(step: &Step, plan: &Plan) -> Result<Value> {
    let shape = &Shape::of(step);
    let compute = Compute { share_prompts: false, ..plan.compute.clone() };
    let (batch, steps) = (shape.batch / 2, shape.steps + 2);
    let pairs = random_pairs(shape, batch * steps, shape.length / 2);
    let reference = Gpt::new(shape.model.clone(), 0)?.freeze()?;
    let mut policy = reference.fork()?;
    let dpo = Dpo { train: train(shape, &compute, batch, plan.micro), ..Dpo::default() };
    let run = dpo.fit(&mut policy, &reference, &pairs, &pairs.head(1))?;
    // Every pair is used once, so that its score is one step's share of scoring them all.
    let clock = Instant::now();
    score::score_pairs_with(&reference, &pairs, &compute)?;
    let seconds = median_step(&run.history) + clock.elapsed().as_secs_f64() / steps as f64;
    Ok(json!({
        "work": "dpo", "precision": compute.name()?, "tok_s": (shape.batch * shape.length) as f64 / seconds,
        "step_ms": seconds * 1e3, "peak_mb": peak(&run.history),
    }))
}

/// Real pairs, everything on: the time of a whole run, the scoring of the reference included.
pub fn pairs(real: &RealPairs, plan: &Plan) -> Result<Value> {
    let &RealPairs { batch, max_length, steps, .. } = real;
    let mut data = Dataset::read(&real.file)?;
    data.pairs.truncate(batch * steps);
    let tokenizer = Tokenizer::train(&data.pairs, 4096)?;
    let pairs = TokenizedPairs::new(&data.pairs, &tokenizer, max_length)?;
    let compute = &plan.compute;
    let model = config([real.layers, real.heads, real.width, tokenizer.vocab_size()], 1024);
    let shape = Shape { model, batch, length: max_length, steps: steps.saturating_sub(2) };
    let reference = Gpt::new(shape.model.clone(), 0)?.freeze()?;
    let mut policy = reference.fork()?;
    let dpo = Dpo { train: train(&shape, compute, batch, plan.micro), ..Dpo::default() };
    if compute.gpu()?.is_some() {
        // Opens the GPU and compiles its kernels, which belongs to no run.
        score::score_pairs_with(&reference, &pairs.head(1), compute)?;
    }
    let clock = Instant::now();
    let run = dpo.fit(&mut policy, &reference, &pairs, &pairs.head(1))?;
    let seconds = clock.elapsed().as_secs_f64();
    Ok(json!({
        "work": "pairs", "precision": compute.name()?, "pairs_s": pairs.len() as f64 / seconds, "pairs": pairs.len(),
        "tok_s": run.tokens / seconds, "seconds": seconds, "peak_mb": peak(&run.history),
        "prompts_cut": pairs.prompts_cut, "replies_cut": pairs.replies_cut,
    }))
}

/// Greedy replies to random prompts of 32 tokens; the ids go into the result, to be compared with
/// the peer's.
pub fn generate(decoding: &Decoding) -> Result<Value> {
    let &Decoding { batch, new_tokens, .. } = decoding;
    let vocab = decoding.model.vocabulary;
    let model = Gpt::new(config(decoding.model.sizes(), 1024), 0)?;
    write_tensors(
        Path::new(&decoding.weights),
        &model.named_parameters(),
        HashMap::from([("format".into(), "pt".into())]),
    )?;
    let prompts: Vec<Vec<u32>> = (0..batch)
        .map(|b| (0..32).map(|i| ((b * 977 + i * 131 + 7) % vocab) as u32).collect())
        .collect();
    let sampler = Sampler { temperature: 0.0, max_new_tokens: new_tokens, ..Sampler::default() };
    let mut seconds = vec![];
    let mut ids = vec![];
    for _ in 0..4 {
        let clock = Instant::now();
        ids = sampler.ids(&model, prompts.clone(), None)?;
        seconds.push(clock.elapsed().as_secs_f64());
    }
    Ok(
        json!({ "work": "generate", "tok_s": (batch * new_tokens) as f64 / median(seconds.split_off(1)), "ids": ids }),
    )
}

/// What one core can do at most: products at the middle model's shapes, and memory traffic of a
/// copy.
pub fn ceiling() -> Result<Value> {
    let shapes = [[1024, 384, 1152], [1024, 384, 1536], [1024, 1536, 384], [256, 768, 3072]];
    let rates = |precision| -> Result<Vec<f64>> {
        shapes.iter().map(|&shape| Ok((product_rate(shape, precision)? / 1e9).round())).collect()
    };
    let (from, mut to) = (vec![1f32; 1 << 26], vec![0f32; 1 << 26]);
    let seconds = (0..5).map(|_| {
        let clock = Instant::now();
        to.copy_from_slice(&from);
        clock.elapsed().as_secs_f64()
    });
    let copy = 2.0 * 4.0 * f64::from(1 << 26) / median(seconds.collect()) / 1e9;
    Ok(json!({
        "work": "ceiling", "shapes": shapes, "f32_gflops": rates(Precision::F32)?,
        "auto_gflops": rates(Precision::Auto)?, "copy_gb_s": copy,
    }))
}
