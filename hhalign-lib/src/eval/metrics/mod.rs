//! The metrics of a model: perplexity, toxicity, refusal, text quality, fluency and ranking.

pub mod bleu;
pub mod fluency;
pub mod perplexity;
pub mod quality;
pub mod ranking;
pub mod refusal;
pub mod toxicity;
