//! The lab: what a lesson tries out, looks into and gets wrong on purpose.

mod annotate;
mod beta;
mod inside;
mod pitfalls;

pub use annotate::{annotate, annotate_offline};
pub use beta::{beta_lab, sample_at};
pub use inside::{most_changed, moved_mass, token_rewards};
pub use pitfalls::{exposed, reply_lengths};
