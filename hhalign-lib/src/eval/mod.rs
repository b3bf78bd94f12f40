//! Five metrics, each with its number of cases and an interval: perplexity, toxicity, refusal, human preferences, quality.

pub mod agreement;
pub mod annotation;
pub mod comparison;
pub mod judge;
pub mod judgements;
pub mod measure;
pub mod perplexity;
pub mod quality;
pub mod refusal;
pub mod summary;
pub mod toxicity;
pub mod toxicity_report;
pub mod winrate;
