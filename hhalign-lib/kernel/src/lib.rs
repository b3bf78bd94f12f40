//! The front crate: notebook cells load it, and it re-exports the engine. rustc and evcxr's
//! built-in rust-analyzer read it in two ways.

// rustc: build.rs has found the prebuilt engine, or says what is wrong with it.
#[cfg(engine = "ready")]
extern crate hhalign as engine;
#[cfg(engine = "ready")]
pub use engine::*;
#[cfg(engine = "missing")]
compile_error!("hhalign's engine is not built: run ./scripts/setup, then this cell again");
#[cfg(engine = "rebuilt")]
compile_error!("hhalign's engine was rebuilt while this kernel ran: restart the kernel");

// rust-analyzer runs no build scripts. It reads the engine's sources to infer the type of `x` in
// `let x = f()?;`. They must be inside this package: `engine` is a symbolic link to ../../src.
#[cfg(not(any(engine = "ready", engine = "missing", engine = "rebuilt")))]
#[path = "engine/lib.rs"]
mod engine;
#[cfg(not(any(engine = "ready", engine = "missing", engine = "rebuilt")))]
pub use engine::*;
