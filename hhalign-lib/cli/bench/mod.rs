//! `hhalign bench`: times one kind of work and prints one line of JSON. `./scripts/bench` calls it,
//! in turn with its peers; `./scripts/gpu_check` calls it on the machine with a GPU.

mod card;
mod pipeline;
mod timed;
mod words;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use hhalign::notebook::options::parse::{self, count};

use self::words::Words;
use crate::Failure;

/// Time one kind of work and print one line of JSON, as ./scripts/bench and ./scripts/gpu_check do.
#[derive(Args)]
pub struct Bench {
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand)]
enum Work {
    Sft(Sft),
    Dpo(Dpo),
    Pairs(RealPairs),
    Generate(Decoding),
    Ceiling(Ceiling),
    Card(Card),
    Pipeline(pipeline::Pipeline),
}

/// Steps of SFT on random ids.
#[derive(Args)]
struct Sft {
    #[command(flatten)]
    step: Step,
}

/// Steps of DPO on random ids, with nothing shared or cached.
#[derive(Args)]
struct Dpo {
    #[command(flatten)]
    step: Step,
}

/// What one core can do at most: products, and memory traffic.
#[derive(Args)]
struct Ceiling {}

/// Open the GPU and run one pass in each precision; a line for each step.
#[derive(Args)]
struct Card {}

#[derive(Args)]
struct Model {
    /// Layers
    #[arg(value_name = "L", value_parser = count)]
    layers: usize,
    /// Heads
    #[arg(value_name = "H", value_parser = count)]
    heads: usize,
    /// Width
    #[arg(value_name = "D", value_parser = count)]
    width: usize,
    /// Ids in the vocabulary
    #[arg(value_name = "V", value_parser = count)]
    vocabulary: usize,
}

impl Model {
    fn sizes(&self) -> [usize; 4] {
        [self.layers, self.heads, self.width, self.vocabulary]
    }
}

#[derive(Args)]
struct Step {
    #[command(flatten)]
    model: Model,
    /// Sequences in a step
    #[arg(value_name = "B", value_parser = count)]
    batch: usize,
    /// Tokens of a sequence
    #[arg(value_name = "T", value_parser = count)]
    length: usize,
    /// Steps that are timed, after two to warm up
    #[arg(value_name = "STEPS", value_parser = count)]
    steps: usize,
    #[command(flatten)]
    words: Words,
}

/// A whole DPO run on real pairs, with everything on.
#[derive(Args)]
struct RealPairs {
    /// HH pairs
    #[arg(value_name = "FILE", value_parser = parse::data)]
    file: PathBuf,
    /// Layers
    #[arg(value_name = "L", value_parser = count)]
    layers: usize,
    /// Heads
    #[arg(value_name = "H", value_parser = count)]
    heads: usize,
    /// Width
    #[arg(value_name = "D", value_parser = count)]
    width: usize,
    /// Pairs in a step
    #[arg(value_name = "B", value_parser = count)]
    batch: usize,
    /// Longest sequence in tokens
    #[arg(value_name = "MAX_LENGTH", value_parser = count)]
    max_length: usize,
    /// Steps
    #[arg(value_name = "STEPS", value_parser = count)]
    steps: usize,
    #[command(flatten)]
    words: Words,
}

/// Greedy replies of a fresh model, whose weights are written for a peer.
#[derive(Args)]
struct Decoding {
    /// File of the weights
    #[arg(value_name = "WEIGHTS")]
    weights: PathBuf,
    #[command(flatten)]
    model: Model,
    /// Replies at a time
    #[arg(value_name = "BATCH", value_parser = count)]
    batch: usize,
    /// Tokens of a reply
    #[arg(value_name = "NEW_TOKENS", value_parser = count)]
    new_tokens: usize,
}

impl Bench {
    pub fn run(self) -> Result<(), Failure> {
        let line = match self.work {
            Work::Sft(Sft { step }) => timed::sft(&step, &step.words.plan()?)?,
            Work::Dpo(Dpo { step }) => timed::dpo(&step, &step.words.plan()?)?,
            Work::Pairs(pairs) => timed::pairs(&pairs, &pairs.words.plan()?)?,
            Work::Generate(decoding) => timed::generate(&decoding)?,
            Work::Ceiling(Ceiling {}) => timed::ceiling()?,
            Work::Card(Card {}) => return Ok(card::run()?),
            Work::Pipeline(pipeline) => return pipeline.run(),
        };
        println!("{line}");
        Ok(())
    }
}
