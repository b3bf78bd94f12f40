//! The integration tests that share one process: one file for each subject.
//!
//! They run side by side, so none of them may set what belongs to the whole process. Tests that do
//! are in `tests/process`.

#[path = "../common/mod.rs"]
mod common;
mod fixtures;

mod architecture;
mod batches;
mod bench;
mod checkpoints;
mod cli;
mod compute;
mod coverage;
mod data;
mod errors;
mod export;
mod fluency;
mod fused;
mod golden_losses;
mod golden_model;
mod golden_statistics;
mod golden_training;
mod judge_chat;
mod kl;
mod lab;
mod misuse;
mod null_comparison;
mod options;
mod refusal;
mod report;
mod reward;
mod steps;
mod studies;
mod text_quality;
mod tokenizer;
mod toxic_bert;
mod training;
mod values;
mod weights;
