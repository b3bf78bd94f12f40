//! The device of a run.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::gpu::{Gpu, missing_library};
use crate::base::error::{Error, Result};

/// The CPU or a GPU; [`Device::gpu`] opens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Device {
    /// The first usable GPU, otherwise the CPU. `HHALIGN_DEVICE` overrides it: `cpu`, `cuda`,
    /// `cuda:1`.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU with this number. It is an error if that GPU cannot be used.
    Cuda(usize),
    /// A GPU emulated by the processor, for tests; it needs a C++ compiler.
    Emulated,
}

impl Device {
    /// Returns the device with a name: `auto`, `cpu`, `cuda` or `cuda:N`.
    ///
    /// # Errors
    /// The name is another one.
    ///
    /// # Example
    /// ```
    /// use hhalign::compute::Device;
    /// assert_eq!(Device::from_name("cuda:1")?, Device::Cuda(1));
    /// # Ok::<(), hhalign::base::error::Error>(())
    /// ```
    pub fn from_name(name: &str) -> Result<Self> {
        let number = name.strip_prefix("cuda:").map(str::parse);
        match (name, number) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(0)),
            ("emulated", _) => Ok(Self::Emulated),
            (_, Some(Ok(number))) => Ok(Self::Cuda(number)),
            _ => Err(Error::new("no such device", name, "choose auto, cpu, cuda or cuda:N")),
        }
    }

    /// Returns the selected GPU, or `None` for the CPU.
    ///
    /// # Errors
    /// A GPU was selected by its number, here or in `HHALIGN_DEVICE`, and cannot be used.
    pub fn gpu(self) -> Result<Option<Gpu>> {
        match self {
            Self::Cpu => Ok(None),
            Self::Cuda(number) => Gpu::open(number).map(Some),
            Self::Emulated => Ok(Some(Gpu::shared_emulation())),
            Self::Auto => match std::env::var("HHALIGN_DEVICE").ok().as_deref() {
                None | Some("" | "auto") => Ok(Gpu::first()),
                Some(name) => Self::from_name(name)?.gpu(),
            },
        }
    }

    /// Describes the device in one line for the top of a notebook: the GPU's name and memory, or
    /// why the CPU is used.
    pub fn describe(self) -> String {
        match self.gpu() {
            Ok(Some(gpu)) => match gpu.memory_mb() {
                Ok((free, all)) => format!("{}, {free} of {all} MB free", gpu.name()),
                Err(error) => error.to_string(),
            },
            Ok(None) => match missing_library() {
                Some(error) if self == Self::Auto => {
                    format!("CPU, {} cores ({})", crate::base::parallel::threads(), error.got())
                }
                _ => format!("CPU, {} cores", crate::base::parallel::threads()),
            },
            Err(error) => error.to_string(),
        }
    }
}

/// The name that [`Device::from_name`] reads.
impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Emulated => f.write_str("emulated"),
        }
    }
}
