//! The pipeline of notebook 06 within a given time: data, tokenizer, SFT, DPO and metrics on
//! held-out prompts. A line of JSON follows each stage, so that what was reached in time is known.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use hhalign::notebook::options::parse::{self, count};
use hhalign::prelude::*;
use hhalign::train::TrainConfig;
use serde_json::{Value, json};

use super::timed::{config, median};
use super::words::{Plan, Words};
use crate::Failure;

/// Shares of the time for SFT, for DPO and for the judge; what is left is for drawing and scoring.
const SHARES: [f64; 3] = [0.45, 0.2, 0.08];
/// Steps that are timed before a training is planned; the first is not counted.
const PROBE: usize = 6;
const SEED: u64 = 0;

/// The pipeline of notebook 06 within a given time; a line for each stage.
#[derive(Args)]
pub struct Pipeline {
    /// HH pairs
    #[arg(value_name = "DATA", value_parser = parse::data)]
    data: PathBuf,
    /// Seconds for all of it
    #[arg(value_name = "SECONDS")]
    seconds: f64,
    /// Layers
    #[arg(value_name = "L", value_parser = count)]
    layers: usize,
    /// Heads
    #[arg(value_name = "H", value_parser = count)]
    heads: usize,
    /// Width
    #[arg(value_name = "D", value_parser = count)]
    width: usize,
    /// Ids in the vocabulary; 50257 takes GPT-2's own
    #[arg(value_name = "V", value_parser = count)]
    vocabulary: usize,
    /// Longest sequence in tokens
    #[arg(value_name = "BLOCK", value_parser = count)]
    block: usize,
    /// Pairs in a step
    #[arg(value_name = "BATCH", value_parser = count)]
    batch: usize,
    #[command(flatten)]
    words: Words,
}

impl Pipeline {
    /// Trains as many steps as fit into the time and measures both models.
    ///
    /// # Errors
    /// A stage failed; those before it have printed their lines.
    pub fn run(self) -> Result<(), Failure> {
        let plan = self.words.plan()?;
        let clock = Instant::now();
        Ok(Stages { clock, seconds: self.seconds, plan: &plan, batch: self.batch }.run(&self)?)
    }
}

struct Stages<'a> {
    clock: Instant,
    seconds: f64,
    plan: &'a Plan,
    batch: usize,
}

impl Stages<'_> {
    fn run(&self, pipeline: &Pipeline) -> Result<()> {
        let &Pipeline { layers, heads, width, vocabulary, block, .. } = pipeline;
        let (data, mut split) = self.data(&pipeline.data)?;
        let judge_pairs = split.set_aside(0.3)?;
        // GPT-2's own ids where its vocabulary is asked for.
        let tokenizer = if vocabulary == 50_257 {
            Tokenizer::gpt2()?
        } else {
            Tokenizer::train(&split.train, vocabulary)?
        };
        let tokenized = |pairs: &[Pair]| TokenizedPairs::new(pairs, &tokenizer, block);
        let (train, held_out, watch) = (
            tokenized(&split.train)?,
            tokenized(&split.held_out)?,
            tokenized(&split.held_out_sample(64))?,
        );
        let mut model =
            Gpt::new(config([layers, heads, width, tokenizer.vocab_size()], block), SEED)?;
        self.say(
            "data",
            json!({
                "pairs": data.pairs.len(), "data_hash": data.hash(), "train": train.len(), "held_out": held_out.len(),
                "judge": judge_pairs.len(), "vocabulary": tokenizer.vocab_size(), "parameters": model.n_parameters(),
                "compute": self.plan.compute.name()?, "device": Device::Auto.describe(),
            }),
        );

        let sft = |steps| Sft { train: self.config(6e-4, steps) };
        let probe = sft(PROBE).fit(&mut model.freeze()?.fork()?, &train, &watch)?;
        let steps = self.steps(&probe.history, SHARES[0], train.len());
        let run = sft(steps).fit(&mut model, &train, &watch)?;
        model.assign(&run.best_parameters)?;
        self.say("sft", self.outcome(&run));
        let reference = model.freeze()?;
        let first = perplexity(&reference, &held_out, &split.held_out, Side::Chosen, SEED)?;
        self.say("perplexity of SFT", self.measure(&first.token_weighted));

        let dpo = |steps| Dpo { train: self.config(1e-5, steps), ..Dpo::default() };
        let few = train.head(self.batch * PROBE);
        let probe = dpo(PROBE).fit(&mut reference.fork()?, &reference, &few, &watch)?;
        let steps = self.steps(&probe.history, SHARES[1], train.len());
        // The reference is scored once for all pairs that the steps will read.
        let read = train.head(steps * self.batch);
        let mut policy = reference.fork()?;
        let run = dpo(steps).fit(&mut policy, &reference, &read, &watch)?;
        self.say("dpo", self.outcome(&run));

        let before = reference_logps(&reference, &held_out, None)?;
        let rewards = evaluate_preferences(&policy, &before, &held_out)?.rewards(dpo(steps).beta);
        self.say("reward accuracy", self.measure(&reward_accuracy(&rewards, SEED)));
        let second = perplexity(&policy, &held_out, &split.held_out, Side::Chosen, SEED)?;
        self.say("perplexity of DPO", self.measure(&second.token_weighted));
        self.metrics(&split, &judge_pairs, &tokenizer, [&reference, &policy], &held_out)
    }

    fn data(&self, path: &Path) -> Result<(Dataset, Split)> {
        let mut data = Dataset::read(path)?;
        if let Some(n) = self.plan.pairs {
            data = data.sample(n, SEED)?;
        }
        let split = data.split(0.1)?;
        Ok((data, split))
    }

    /// Refusal, toxicity and the win rate, from replies that are drawn first; each only while there
    /// is time.
    fn metrics(
        &self,
        split: &Split,
        judge_pairs: &[Pair],
        tokenizer: &Tokenizer,
        models: [&Gpt; 2],
        held_out: &TokenizedPairs,
    ) -> Result<()> {
        let n = self.plan.prompts.unwrap_or(200);
        let max_new_tokens = self.plan.tokens.unwrap_or(64);
        let sampler =
            Sampler { temperature: 0.7, max_new_tokens, seed: SEED, ..Sampler::default() };
        let sample = split.held_out_sample(n);
        let prompts: Vec<String> = sample.iter().map(|pair| pair.prompt.clone()).collect();
        let clock = Instant::now();
        let draw = |model: &Gpt, prompts: &[String]| sampler.replies(model, tokenizer, prompts);
        let [first, second] = [draw(models[0], &prompts)?, draw(models[1], &prompts)?];
        let tokens: usize = first.iter().chain(&second).map(|reply| reply.ids.len()).sum();
        let tok_s = tokens as f64 / clock.elapsed().as_secs_f64();
        self.say(
            "replies",
            json!({ "replies": first.len() + second.len(), "tokens": tokens, "tok_s": tok_s }),
        );
        if self.is_late("toxicity") {
            return Ok(());
        }
        let classifier = Classifier::find(
            self.plan.toxicity.as_deref().unwrap_or(".cache/toxicity".as_ref()),
            None,
        )?;
        let report =
            |replies: &[Reply]| ToxicityReport::of(&classifier, &sample, &[replies.to_vec()], SEED);
        self.both("toxicity", &report(&first)?.mean, &report(&second)?.mean)?;
        if self.is_late("refusal") {
            return Ok(());
        }
        let asked = RefusalPrompts::embedded(SEED, n / 2)?;
        let refusal =
            |model: &Gpt| Refusal::by_matcher(&asked, &draw(model, &asked.prompts)?, SEED);
        let [sft, dpo] = [refusal(models[0])?, refusal(models[1])?];
        self.both("harmful requests refused", &sft.harmful_refused, &dpo.harmful_refused)?;
        self.both("balanced refusal", &sft.balanced_accuracy, &dpo.balanced_accuracy)?;
        if self.is_late("win rate") {
            return Ok(());
        }
        let block = models[0].config.block_size;
        let (rating, watched) = TokenizedPairs::new(judge_pairs, tokenizer, block)?.divide(0.9);
        let config =
            |steps| RewardConfig { train: self.config(1e-4, steps), ..RewardConfig::default() };
        let probe =
            RewardModel::train(&config(PROBE), models[0], &rating, &watched.head(64), None)?;
        let history = probe.training.map(|training| training.history).unwrap_or_default();
        let steps = self.steps(&history, SHARES[2], rating.len());
        let reward =
            RewardModel::train(&config(steps), models[0], &rating, &watched.head(64), None)?;
        let judge = RewardJudge::new(reward, tokenizer, held_out)?;
        self.say("judge", json!({ "steps": steps, "accuracy": self.measure(&judge.accuracy) }));
        let judged = head_to_head(&judge, &prompts, ("SFT", &first), ("DPO", &second), SEED)?;
        self.say("win rate", self.measure(&judged.rate));
        Ok(())
    }

    /// A run of some steps: warm-up and evaluations follow their number.
    fn config(&self, learning_rate: f64, steps: usize) -> TrainConfig {
        TrainConfig {
            learning_rate,
            max_steps: steps,
            warmup_steps: steps / 20,
            eval_every: steps.div_ceil(5).max(1),
            batch_size: self.batch,
            micro_batch_size: self.plan.micro.unwrap_or(self.batch),
            log_every: 1,
            seed: SEED,
            progress: false,
            compute: self.plan.compute.clone(),
            ..TrainConfig::default()
        }
    }

    /// How many steps fit into a share of the time, at the median pace of a probe; at most four
    /// times over the pairs.
    fn steps(&self, history: &History, share: f64, pairs: usize) -> usize {
        let at: Vec<f64> = history.series("seconds").into_iter().map(|point| point.1).collect();
        let paces: Vec<f64> = at.windows(2).skip(1).map(|w| w[1] - w[0]).collect();
        let pace = if paces.is_empty() { 1.0 } else { median(paces) };
        ((share * self.seconds / pace.max(1e-6)) as usize)
            .clamp(PROBE, (4 * pairs / self.batch).max(PROBE))
    }

    fn outcome(&self, run: &Outcome) -> Value {
        let memory = run.history.series("gpu_memory_mb").last().map(|point| point.1);
        json!({
            "steps": run.steps, "training_seconds": run.seconds, "tok_s": run.tokens / run.seconds,
            "best_step": run.best.step, "best_held_out_loss": run.best.loss, "peak_mb": memory,
            "loss": run.history.last("loss"),
        })
    }

    fn measure(&self, measure: &Measure) -> Value {
        let e = measure.estimate();
        json!({ "value": e.value, "low": e.low, "high": e.high, "n": e.n, "interval": e.method })
    }

    fn both(&self, stage: &str, sft: &Measure, dpo: &Measure) -> Result<()> {
        let change = sft.compare(dpo)?;
        let e = &change.estimate;
        let difference = json!({ "value": e.value, "low": e.low, "high": e.high, "n": e.n, "p": change.p_value });
        self.say(
            stage,
            json!({ "sft": self.measure(sft), "dpo": self.measure(dpo), "difference": difference }),
        );
        Ok(())
    }

    fn is_late(&self, stage: &str) -> bool {
        let late = self.clock.elapsed().as_secs_f64() > self.seconds;
        if late {
            self.say(stage, json!({ "skipped": "no time was left" }));
        }
        late
    }

    fn say(&self, stage: &str, mut line: Value) {
        line["work"] = json!("pipeline");
        line["stage"] = json!(stage);
        line["at_seconds"] = json!(self.clock.elapsed().as_secs_f64());
        println!("{line}");
    }
}
