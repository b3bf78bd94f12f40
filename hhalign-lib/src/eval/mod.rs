//! Five metrics, each with its number of cases and an interval: perplexity, toxicity, refusal, preferences, quality.
//!
//! A [`measure::Measure`] holds what was found case by case, a [`comparison::Comparison`] sets two models side by side on the
//! same cases, and a [`summary::Summary`] writes it down with all that it rests on. A [`bench::EvalBench`] does all of it at once.

pub mod agreement;
pub mod annotation;
pub mod bench;
pub mod comparison;
pub mod evaluation;
pub mod fluency;
pub mod frontier;
pub mod judge;
pub mod judgements;
pub mod measure;
pub mod perplexity;
pub mod quality;
pub mod ranking;
pub mod refusal;
pub mod summary;
pub mod toxicity;
pub mod winrate;
