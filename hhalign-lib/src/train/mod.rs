//! Training: supervised fine-tuning on preferred replies ([`Sft`]), preference optimisation
//! ([`Dpo`]) and reward models ([`RewardConfig`]).
//!
//! All three are objectives of one loop, which calls public pure functions: the losses of
//! [`crate::loss`] on the log-probabilities of [`crate::infer::score`]. Every draw of a run follows
//! from its seed and step, so a run resumed from a checkpoint ends with the same bits as an
//! uninterrupted one.
//!
//! Read `recipe.rs` and `config.rs` (settings), `trainer.rs` (the loop) and `step.rs` (one step),
//! then the objectives in `sft.rs`, `dpo.rs` and [`reward`]. `state.rs` is the checkpoint,
//! `identity.rs` gives a run its name, `observer.rs` is the interface to a live run, and [`export`]
//! writes a run for TRL.

mod config;
mod dpo;
pub mod export;
mod head;
mod history;
mod identity;
mod objective;
mod observer;
mod outcome;
mod pitfall;
mod recipe;
pub mod reward;
mod sft;
mod sources;
mod state;
mod step;
mod trainer;

pub use config::TrainConfig;
pub use dpo::{evaluate_preferences, evaluate_preferences_with};
pub(crate) use head::HEAD;
pub use history::{History, Mark, Record};
pub(crate) use identity::{Identity, Origin};
pub(crate) use objective::Objective;
pub(crate) use observer::{Observer, Requests, SavePoint, clock, progress_line};
pub use outcome::{Best, Outcome};
pub use pitfall::Pitfall;
pub use recipe::{Dpo, Recipe, RewardConfig, Sft};
pub use sft::{evaluate_replies, evaluate_replies_with};
pub(crate) use sources::Sources;
pub(crate) use state::{Change, Progress, peek_state};
pub(crate) use trainer::fit;
