//! Inference with a trained model.
//!
//! Read [`score`] first: log-probabilities of replies under a policy and its reference. [`sample`]
//! draws replies token by token. [`kl`] measures KL(π || ref) on drawn replies. All three choose
//! the device from [`Compute`](crate::compute::Compute).

pub mod kl;
pub mod sample;
pub mod score;
