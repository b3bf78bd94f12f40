//! Errors, files, seeds, threads, secrets and the hub: used everywhere, independent of models.

pub mod error;
pub mod files;
pub mod hub;
pub mod parallel;
pub mod rng;
pub mod secret;
