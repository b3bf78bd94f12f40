//! The model on a GPU: kernels of our own, products by cuBLAS, and passes that mirror those of [`crate::fused`].
//!
//! Building this needs nothing of CUDA: driver, cuBLAS and NVRTC are opened when a GPU is first requested, and the kernels
//! (`kernels/*.cu`) are compiled for the card that is found. Without a card, [`crate::device::Device::Auto`] is the CPU.
//!
//! Weights, sums, moments and the residual stream are f32; operands of products are stored as f32, bf16 or f16.
//! Log-probabilities are copied to the processor, where the loss is the function of the lesson, as on the CPU.
//! `tests/gpu.rs` compares every pass with the composed model and with [`crate::fused`], on an emulated card without a GPU.
//!
//! To read it: `pass.rs` and `backward.rs` beside the files of the same names in `fused/`; a kernel's launcher beside its
//! `.cu` file in `kernels/`.

mod attention;
mod backward;
mod card;
mod cuda;
mod decode;
mod emulated;
mod kernels;
mod linear;
mod lists;
mod memory;
mod pass;
mod score;
mod train;
mod weights;

use std::sync::{Arc, OnceLock};

use self::card::{Card, Dtypes};
pub use self::decode::GpuDecoder;
pub use self::memory::{Memory, MemoryPlan};
pub use self::pass::GpuGradients;
pub use self::score::GpuPass;
pub(crate) use self::train::Trainer;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::fused::{Compute, Precision};

/// The dtype of activations and of the weights that products read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Storage {
    /// 32 bits: exact, for comparisons.
    F32,
    /// 16 bits with the range of f32. Needs an A100 (architecture 8.0) or newer.
    Bf16,
    /// 16 bits with a small range: gradients are scaled. For a T4.
    F16,
}

impl Storage {
    /// Its number in the kernels' text.
    fn id(self) -> usize {
        self as usize
    }

    fn bytes(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }

    /// f32 numbers as they are stored.
    fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => bytemuck::cast_slice(values).to_vec(),
            Self::Bf16 => values.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect(),
        }
    }

    /// Stored numbers in f32.
    fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => bytemuck::pod_collect_to_vec(bytes),
            Self::Bf16 => bytes.as_chunks::<2>().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
            Self::F16 => bytes.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
        }
    }
}

impl Device {
    /// The selected GPU, if it is one.
    ///
    /// # Errors
    /// A GPU was selected by its number, here or in `HHALIGN_DEVICE`, and cannot be used.
    pub fn gpu(self) -> Result<Option<Gpu>> {
        match self {
            Self::Cpu => Ok(None),
            Self::Cuda(number) => Gpu::open(number).map(Some),
            Self::Auto => match std::env::var("HHALIGN_DEVICE").ok().as_deref() {
                None | Some("" | "auto") => Ok(Gpu::first()),
                Some("emulated") => Ok(Some(Gpu::shared_emulation())),
                Some(name) => Self::from_name(name)?.gpu(),
            },
        }
    }

    /// One line for the top of a notebook: the GPU's name and memory, or why the CPU is used.
    pub fn describe(self) -> String {
        match self.gpu() {
            Ok(Some(gpu)) => match gpu.memory_mb() {
                Ok((free, all)) => format!("{}, {free} of {all} MB free", gpu.name()),
                Err(error) => error.to_string(),
            },
            Ok(None) => match cuda::missing() {
                Some(error) if self == Self::Auto => {
                    format!("CPU, {} cores ({})", crate::parallel::threads(), error.got())
                }
                _ => format!("CPU, {} cores", crate::parallel::threads()),
            },
            Err(error) => error.to_string(),
        }
    }
}

impl Compute {
    /// The selected GPU, if it is one; the composed model runs on the CPU.
    ///
    /// # Errors
    /// As [`Device::gpu`].
    pub fn gpu(&self) -> Result<Option<Gpu>> {
        if self.composed { Ok(None) } else { self.device.gpu() }
    }

    /// A short name of what decides the rounding: `f32`, `bf16` or `composed`; `cuda-f32`, `cuda-tf32`, `cuda-bf16` or
    /// `cuda-f16` on a GPU.
    ///
    /// # Errors
    /// The hardware cannot do what the precision asks for.
    pub fn name(&self) -> Result<&'static str> {
        if let Some(gpu) = self.gpu()? {
            return Ok(match gpu.dtypes(self.precision, self.tf32)? {
                Dtypes { storage: Storage::F32, tf32: false } => "cuda-f32",
                Dtypes { storage: Storage::F32, tf32: true } => "cuda-tf32",
                Dtypes { storage: Storage::Bf16, .. } => "cuda-bf16",
                Dtypes { storage: Storage::F16, .. } => "cuda-f16",
            });
        }
        Ok(match (self.composed, self.precision.is_bf16()?) {
            (true, _) => "composed",
            (_, true) => "bf16",
            (_, false) => "f32",
        })
    }
}

/// A GPU that is open.
#[derive(Clone)]
pub struct Gpu {
    card: Arc<dyn Card>,
}

impl Gpu {
    /// Opens the GPU of a number; the whole process shares it.
    ///
    /// # Errors
    /// The driver, cuBLAS or NVRTC is missing, which the message names, or there is no such GPU.
    pub fn open(number: usize) -> Result<Self> {
        Ok(Self { card: cuda::shared(number)? })
    }

    /// The first GPU, if it can be used.
    fn first() -> Option<Self> {
        static FIRST: OnceLock<Option<Gpu>> = OnceLock::new();
        FIRST.get_or_init(|| Self::open(0).ok()).clone()
    }

    /// An emulated GPU with a given amount of memory: the kernels compiled for the processor and run thread by thread. Exact and
    /// slow; for tests. Needs a C++ compiler.
    pub fn emulated(megabytes: usize) -> Self {
        Self { card: Arc::new(emulated::Emulated::new(megabytes << 20)) }
    }

    /// The GPU of `HHALIGN_DEVICE=emulated`: one for the whole process.
    fn shared_emulation() -> Self {
        static SHARED: OnceLock<Gpu> = OnceLock::new();
        SHARED.get_or_init(|| Self::emulated(2048)).clone()
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.card.name()
    }

    /// Allocations, copies, kernels and products that an emulated GPU was asked for so far; 0 for a real one. For tests.
    pub fn calls(&self) -> usize {
        self.card.calls()
    }

    /// Free and total memory, in MB.
    ///
    /// # Errors
    /// The driver fails.
    pub fn memory_mb(&self) -> Result<(usize, usize)> {
        self.card.memory().map(|(free, all)| (free >> 20, all >> 20))
    }

    /// Bytes in use, by all processes.
    ///
    /// # Errors
    /// The driver fails.
    pub fn memory_taken(&self) -> Result<usize> {
        self.card.memory().map(|(free, all)| all - free)
    }

    /// The dtypes that a precision selects on this card.
    fn dtypes(&self, precision: Precision, tf32: bool) -> Result<Dtypes> {
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

/// Compiles all kernels for a GPU architecture and returns their size in bytes; needs NVRTC but no GPU.
///
/// # Errors
/// NVRTC is missing or refuses the kernels.
pub fn compile_kernels(storage: Storage, architecture: (i32, i32)) -> Result<usize> {
    if !cuda::has_nvrtc() {
        let fix = "pip install -r requirements-gpu.txt, and name its folder in LD_LIBRARY_PATH";
        return Err(Error::new("the kernels cannot be compiled", "libnvrtc.so was not found", fix));
    }
    Ok(cuda::compile(storage, architecture)?.len())
}
