//! Opens the GPU and runs one small pass in each precision; a line of JSON says how each step
//! ended.

use std::time::Instant;

use hhalign::base::error::{Error, Result};
use hhalign::compute::Device;
use hhalign::compute::gpu::{Storage, compile_kernels};
use hhalign::compute::{Compute, Precision};
use hhalign::infer::score::score_pairs_with;
use hhalign::model::Gpt;
use serde_json::{Value, json};

use super::timed::{Shape, config, random_pairs};

/// Storage and architecture that NVRTC must have code for: a T4, an A100, an H100.
const CODE: [(Storage, (i32, i32)); 4] = [
    (Storage::F32, (7, 5)),
    (Storage::F16, (7, 5)),
    (Storage::Bf16, (8, 0)),
    (Storage::Bf16, (9, 0)),
];

/// The precisions, and how far their scores may be from those of the CPU, relative to the largest.
const PASSES: [(&str, Precision, bool, f64); 4] = [
    ("f32", Precision::F32, false, 1e-5),
    ("tf32", Precision::F32, true, 3e-3),
    ("bf16", Precision::Bf16, false, 3e-2),
    ("f16", Precision::F16, false, 3e-3),
];

/// Runs every step, whatever happened to the one before.
///
/// # Errors
/// A step failed; each has printed its own error.
pub fn run() -> Result<()> {
    let mut failed = vec![];
    let mut step = |name: &str, done: &dyn Fn() -> Result<Value>| {
        let clock = Instant::now();
        let mut line = match done() {
            Ok(value) => value,
            Err(error) => {
                failed.push(name.to_string());
                json!({ "error": error.to_string() })
            }
        };
        line["work"] = json!("card");
        line["step"] = json!(name);
        line["seconds"] = json!(clock.elapsed().as_secs_f64());
        println!("{line}");
    };
    step("open", &open);
    for (storage, architecture) in CODE {
        step(&format!("compile {storage:?} {}{}", architecture.0, architecture.1), &|| {
            compile(storage, architecture)
        });
    }
    for (name, precision, tf32, band) in PASSES {
        step(&format!("pass {name}"), &|| pass(precision, tf32, band));
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        "the GPU did not pass",
        failed.join(", "),
        "read the lines above: each failed step has its error",
    ))
}

fn open() -> Result<Value> {
    let gpu = Device::Auto.gpu()?.ok_or_else(|| {
        Error::new(
            "no GPU can be used",
            Device::Auto.describe(),
            "set HHALIGN_DEVICE=cuda to see what is missing",
        )
    })?;
    let (free, all) = gpu.memory_mb()?;
    Ok(json!({ "device": gpu.name(), "free_mb": free, "memory_mb": all }))
}

fn compile(storage: Storage, architecture: (i32, i32)) -> Result<Value> {
    match compile_kernels(storage, architecture) {
        Ok(bytes) => Ok(json!({ "bytes": bytes })),
        // The emulated GPU does without NVRTC.
        Err(error) if std::env::var("HHALIGN_DEVICE").is_ok_and(|d| d == "emulated") => {
            Ok(json!({ "skipped": error.got() }))
        }
        Err(error) => Err(error),
    }
}

/// Scores of random pairs on the GPU against those of the CPU in f32.
fn pass(precision: Precision, tf32: bool, band: f64) -> Result<Value> {
    let shape = Shape { model: config([2, 2, 64, 300], 64), batch: 2, length: 40, steps: 1 };
    let pairs = random_pairs(&shape, 3, 8);
    let model = Gpt::new(shape.model, 3)?;
    let cpu =
        score_pairs_with(&model, &pairs, &Compute { device: Device::Cpu, ..Compute::default() })?;
    let gpu = score_pairs_with(&model, &pairs, &Compute { precision, tf32, ..Compute::default() })?;
    let most = cpu.chosen.iter().fold(0f32, |most, x| most.max(x.abs()));
    // A maximum would lose what is not a number.
    let gaps: Vec<f64> =
        gpu.chosen.iter().zip(&cpu.chosen).map(|(a, b)| f64::from((a - b).abs() / most)).collect();
    let apart = gaps.iter().copied().fold(0.0, f64::max);
    if gaps.iter().all(|gap| *gap <= band) {
        return Ok(json!({ "apart": apart, "allowed": band }));
    }
    let got = format!("relative differences {gaps:?}, {band} allowed");
    Err(Error::new(
        "scores differ from the CPU's",
        got,
        "run the tests gpu and gpu_runs: they name the kernel",
    ))
}
