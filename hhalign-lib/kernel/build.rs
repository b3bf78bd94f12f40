//! Tells rustc where the prebuilt engine and the crates inside it are.

use std::path::Path;
use std::time::UNIX_EPOCH;
use std::{env, fs};

fn main() {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let library = target.join("kernel/libhhalign.so");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", library.display());
    println!(r#"cargo::rustc-check-cfg=cfg(engine, values("ready", "missing", "rebuilt"))"#);
    println!(r#"cargo::rustc-cfg=engine="{}""#, state(&library));
    // `all`: for this crate and for the cells. `dependency`: only for what the engine was built
    // from; the engine's ordinary library is there as well, and rustc must not take that one.
    println!("cargo::rustc-link-search=all={}", target.join("kernel").display());
    println!("cargo::rustc-link-search=dependency={}", target.join("release/deps").display());
}

/// Whether the engine is there, and is the one that this session loaded first: a process keeps the
/// library it has.
fn state(library: &Path) -> &'static str {
    let Ok(meta) = fs::metadata(library) else { return "missing" };
    let written = meta
        .modified()
        .ok()
        .and_then(|t| t.duration_since(UNIX_EPOCH).ok())
        .map_or(0, |d| d.as_nanos());
    let build = format!("{written} {}", meta.len());
    // evcxr makes this folder for each session.
    let seen = Path::new(&env::var("OUT_DIR").expect("cargo sets OUT_DIR")).join("engine");
    match fs::read_to_string(&seen) {
        Ok(first) if first != build => "rebuilt",
        Ok(_) => "ready",
        Err(_) => fs::write(&seen, build).map(|()| "ready").expect("cannot write to OUT_DIR"),
    }
}
