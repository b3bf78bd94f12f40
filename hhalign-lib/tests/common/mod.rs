//! Helpers that both test programs use.

pub mod passes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor};
use hhalign::base::error::Error;
use hhalign::compute::gpu::Gpu;
use hhalign::data::batch::TokenizedPairs;
use hhalign::data::tokenize::Tokenizer;
use hhalign::data::{Dataset, Pair};
use hhalign::model::{Gpt, GptConfig};
use hhalign::train::TrainConfig;

pub type Tensors = BTreeMap<String, Tensor>;

/// A file of `tests/golden`.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

pub fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

pub fn max_abs(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |m, v| m.max(v.abs()))
}

/// Largest absolute difference; a NaN counts as infinite.
pub fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| if (a - b).is_nan() { f64::INFINITY } else { (a - b).abs() })
        .fold(0.0, f64::max)
}

/// The gradients of a model's parameters by name; every one must be there.
pub fn named_gradients(model: &Gpt, mut store: GradStore) -> Tensors {
    let take = |(name, var): (&String, &candle_core::Var)| {
        let gradient =
            store.remove(var.as_tensor()).unwrap_or_else(|| panic!("{name} has no gradient"));
        (name.clone(), gradient.detach())
    };
    model.named_vars().iter().map(take).collect()
}

/// A folder that goes away with its owner.
pub struct Folder(pub PathBuf);

impl Folder {
    /// Makes an empty folder that no other test has, whatever name another test gives.
    pub fn new(name: &str) -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("hhalign-test-{}-{number}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a temporary folder");
        Self(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file and gives its path.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(&path, bytes).expect("a file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A small set of the embedded data, as pairs of texts.
pub fn texts(seed: u64, n: usize) -> Vec<Pair> {
    Dataset::embedded(seed, n).expect("the embedded set").pairs
}

/// A tokenizer of 600 ids, learnt from 60 pairs that no test changes.
pub fn tokenizer() -> Tokenizer {
    Tokenizer::train(&texts(1, 60), VOCAB).expect("a tokenizer")
}

/// Ids of the small tokenizer, and the small models' block: most replies of the embedded set fit
/// whole.
pub const VOCAB: usize = 600;
pub const BLOCK: usize = 160;

pub fn tokenized(pairs: &[Pair]) -> TokenizedPairs {
    TokenizedPairs::new(pairs, &tokenizer(), BLOCK).expect("ids")
}

/// One or two layers, 16 wide: milliseconds a step.
pub fn tiny(n_layer: usize, dropout: f64) -> GptConfig {
    GptConfig {
        vocab_size: VOCAB,
        block_size: BLOCK,
        n_layer,
        n_head: 2,
        n_embd: 16,
        dropout,
        layer_norm_epsilon: 1e-5,
    }
}

/// A short, silent run.
pub fn short(max_steps: usize) -> TrainConfig {
    TrainConfig {
        learning_rate: 1e-3,
        warmup_steps: 1,
        max_steps,
        batch_size: 8,
        micro_batch_size: 4,
        eval_every: 2,
        log_every: 1,
        progress: false,
        ..TrainConfig::default()
    }
}

/// The parameters' bits, by name: what "unchanged" and "the same run" are judged by.
pub fn bits(model: &Gpt) -> BTreeMap<String, Vec<u32>> {
    model.named_parameters().iter().map(|(name, t)| (name.clone(), tensor_bits(t))).collect()
}

pub fn tensor_bits(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

/// The error of a result that must be one; its three parts must all say something.
pub fn error<T>(result: hhalign::base::error::Result<T>) -> Error {
    let Err(error) = result else { panic!("an error was expected") };
    assert!(
        !error.what().is_empty() && !error.got().is_empty() && !error.fix().is_empty(),
        "a part is empty: {error}"
    );
    error
}

/// An emulated GPU, where there is a C++ compiler to build it with; another machine says that it
/// skips the test.
pub fn emulated(megabytes: usize) -> Option<Gpu> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    if std::process::Command::new(&compiler).arg("--version").output().is_err() {
        println!("skipped: an emulated GPU needs a C++ compiler, and {compiler} does not start");
        return None;
    }
    Some(Gpu::emulated(megabytes))
}
