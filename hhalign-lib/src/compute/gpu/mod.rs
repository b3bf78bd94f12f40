//! The model on a GPU: our own kernels, products by cuBLAS, and passes that mirror those of
//! [`crate::compute::cpu`].
//!
//! The build does not need CUDA. Driver, cuBLAS and NVRTC are opened when a GPU is first requested,
//! and the kernels (`kernels/*.cu`) are compiled for the card that is found. Without a card,
//! [`crate::compute::Device::Auto`] is the CPU.
//!
//! Weights, sums, moments and the residual stream are f32. Operands of products are stored as f32,
//! bf16 or f16. Log-probabilities are copied to the host, where the public loss functions compute
//! the loss, as on the CPU. The integration tests `gpu` compare every pass with the composed model
//! and with [`crate::compute::cpu`]; without a GPU they use an emulated card.
//!
//! Read `pass` and `backward` next to the files of the same names in `cpu/`, and each launcher in
//! `kernels/` next to its `.cu` file. `card` is the interface that `cuda` and `emulated` implement.
//! `train` keeps a run's weights, gradients and moments on the card; `score` and `decode` serve
//! inference.

mod attention;
mod backward;
mod buffers;
mod card;
mod cuda;
mod decode;
mod emulated;
mod head;
mod kernels;
mod linear;
mod lists;
mod memory;
mod nvrtc;
mod pass;
mod score;
mod train;
mod weights;

use std::sync::{Arc, OnceLock};

use self::card::Card;
pub(in crate::compute) use self::card::Dtypes;
pub(in crate::compute) use self::cuda::missing_library;
pub use self::decode::GpuDecoder;
pub use self::memory::{Memory, MemoryPlan};
pub use self::pass::GpuGradients;
pub use self::score::GpuPass;
pub(crate) use self::train::Trainer;
use crate::base::error::{Error, Result};
use crate::compute::Precision;

/// The dtype of activations and of the weights that products read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Storage {
    /// 32 bits. Exact, for comparisons.
    F32,
    /// 16 bits with the range of f32. Needs an A100 (architecture 8.0) or newer.
    Bf16,
    /// 16 bits with a small range, so gradients are scaled. For a T4.
    F16,
}

impl Storage {
    /// Returns the dtype's number in the kernels' source.
    fn id(self) -> usize {
        self as usize
    }

    fn bytes(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }

    /// Converts f32 numbers to stored bytes.
    fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => bytemuck::cast_slice(values).to_vec(),
            Self::Bf16 => {
                values.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect()
            }
            Self::F16 => {
                values.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect()
            }
        }
    }

    /// Converts stored bytes to f32 numbers.
    fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => bytemuck::pod_collect_to_vec(bytes),
            Self::Bf16 => bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|b| half::bf16::from_le_bytes(*b).to_f32())
                .collect(),
            Self::F16 => bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|b| half::f16::from_le_bytes(*b).to_f32())
                .collect(),
        }
    }
}

/// An open GPU.
#[derive(Clone)]
pub struct Gpu {
    card: Arc<dyn Card>,
}

impl Gpu {
    /// Opens the GPU with a number, which the whole process shares.
    ///
    /// # Errors
    /// The driver, cuBLAS or NVRTC is missing, or there is no such GPU. The error names what is
    /// missing.
    pub fn open(number: usize) -> Result<Self> {
        Ok(Self { card: cuda::shared(number)? })
    }

    /// Returns the first GPU, if it can be used.
    pub(in crate::compute) fn first() -> Option<Self> {
        static FIRST: OnceLock<Option<Gpu>> = OnceLock::new();
        FIRST.get_or_init(|| Self::open(0).ok()).clone()
    }

    /// Makes an emulated GPU with a given amount of memory, for tests. It runs the kernels on the
    /// CPU thread by thread, exactly and slowly. It needs a C++ compiler.
    pub fn emulated(megabytes: usize) -> Self {
        Self { card: Arc::new(emulated::Emulated::new(megabytes << 20)) }
    }

    /// Returns the GPU of `HHALIGN_DEVICE=emulated`, which the whole process shares.
    pub(in crate::compute) fn shared_emulation() -> Self {
        static SHARED: OnceLock<Gpu> = OnceLock::new();
        SHARED.get_or_init(|| Self::emulated(2048)).clone()
    }

    /// Returns the GPU's name.
    pub fn name(&self) -> String {
        self.card.name()
    }

    /// Returns the number of allocations, copies, kernels and products on an emulated GPU so far; 0
    /// for a real one. For tests.
    pub fn calls(&self) -> usize {
        self.card.calls()
    }

    /// Returns free and total memory in MB.
    ///
    /// # Errors
    /// The driver fails.
    pub fn memory_mb(&self) -> Result<(usize, usize)> {
        self.card.memory().map(|(free, all)| (free >> 20, all >> 20))
    }

    /// Returns the bytes in use by all processes.
    ///
    /// # Errors
    /// The driver fails.
    pub fn memory_taken(&self) -> Result<usize> {
        self.card.memory().map(|(free, all)| all - free)
    }

    /// Returns the dtypes that a precision selects on this card.
    pub(in crate::compute) fn dtypes(&self, precision: Precision, tf32: bool) -> Result<Dtypes> {
        let storage = match precision {
            Precision::F32 => Storage::F32,
            Precision::Bf16 => Storage::Bf16,
            Precision::F16 => Storage::F16,
            Precision::Auto => [Storage::Bf16, Storage::F16]
                .into_iter()
                .find(|s| self.card.supports(*s).is_ok())
                .unwrap_or(Storage::F32),
        };
        self.card.supports(storage)?;
        Ok(Dtypes { storage, tf32 })
    }
}

/// Compiles all kernels for a GPU architecture and returns their size in bytes. Needs NVRTC but no
/// GPU.
///
/// # Errors
/// NVRTC is missing or rejects the kernels.
pub fn compile_kernels(storage: Storage, architecture: (i32, i32)) -> Result<usize> {
    if !nvrtc::has_nvrtc() {
        let fix = "pip install -r requirements-gpu.txt, and add its folder to LD_LIBRARY_PATH";
        return Err(Error::device(
            "the kernels cannot be compiled",
            "libnvrtc.so was not found",
            fix,
        ));
    }
    Ok(nvrtc::compile(storage, architecture)?.len())
}
