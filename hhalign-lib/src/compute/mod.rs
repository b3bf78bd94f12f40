//! How passes run: on which device, in which precision, and by which executor.
//!
//! [`Compute`] has the settings (`settings`, [`Device`], [`Precision`]). From them, `executor`
//! chooses the composed model, the CPU's fast path ([`cpu`]) or a GPU ([`gpu`]), once per run.
//! [`gradients`] and [`optim`] turn a step's gradients into an AdamW update. Read `executor/mod.rs`
//! first, then [`cpu`], then [`gpu`], which mirrors it.

pub mod cpu;
mod device;
pub(crate) mod executor;
pub mod gpu;
pub mod gradients;
pub mod optim;
mod precision;
mod settings;

pub use self::device::Device;
pub use self::precision::Precision;
pub use self::settings::Compute;
