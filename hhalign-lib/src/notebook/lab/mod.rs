//! The lab: interactive outputs and figures for experiments in a lesson.
//!
//! `beta.rs` changes β of fixed weights, `inside.rs` shows the tokens behind a number,
//! `pitfalls.rs` compares a clean run with a deliberate mistake, and `annotate.rs` is the page for
//! judging replies. They are independent of each other.

mod annotate;
mod beta;
mod inside;
mod pitfalls;

pub use annotate::{annotate, annotate_offline};
pub use beta::{beta_lab, sample_at};
pub use inside::{most_changed, moved_mass, token_rewards};
pub use pitfalls::{exposed, reply_lengths};
