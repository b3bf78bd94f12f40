//! The integration tests of what belongs to a whole process.
//!
//! They run side by side in one process like any other tests, with these exceptions:
//!
//! - Tests that need an environment variable, or a card of their own to count its calls, run again
//!   in a process of their own ([`child`]). No test sets a variable of this process, because other
//!   threads read variables at any time.
//! - Tests of the arena of `Values` take turns (`arena::alone`): the arena's size and what it
//!   still keeps depend on every test that uses `Values`. No other test of this program may use
//!   `Values`.
//! - Tests of the number of threads take turns (`threads::with`): the number is one for the whole
//!   process. No result of another test depends on it.
//! - Live runs share one folder of runs (`live::folder`), which is one for the whole process; their
//!   seeds keep the runs of two tests apart.
//!
//! `scripts/gpu_check` packs this program and runs the modules `gpu` and `gpu_runs` on a real card,
//! with the filters `gpu::` and `gpu_runs::`. No other module's name may end with one of these.

#[path = "../common/mod.rs"]
mod common;

mod arena;
mod child;
mod device_choice;
mod gpu;
mod gpu_runs;
mod hub;
mod live;
mod threads;
