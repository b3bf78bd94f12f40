//! hhalign: preference alignment of a small GPT, step by step.

pub mod batch;
pub mod checkpoint;
pub mod data;
pub mod error;
pub mod files;
pub mod loss;
pub mod model;
pub mod nn;
pub mod optim;
pub mod parallel;
pub mod rng;
pub mod sample;
pub mod score;
pub mod table;
pub mod tokenize;
pub mod train;
