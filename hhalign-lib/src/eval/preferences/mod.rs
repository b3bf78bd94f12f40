//! Preferences between two replies: of people, reward models and chat models, and their agreement.

pub mod agreement;
pub mod annotation;
pub mod judge;
pub mod judgements;
pub mod winrate;
