//! Where a run computes.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A processor or a GPU; [`Device::gpu`] opens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Device {
    /// The first GPU that can be used, or else the CPU. `HHALIGN_DEVICE` overrides it: `cpu`, `cuda`, `cuda:1`.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// The GPU of this number; an error where it cannot be used.
    Cuda(usize),
}

impl Device {
    /// The device of a name: `auto`, `cpu`, `cuda` or `cuda:N`.
    ///
    /// # Errors
    /// Another name.
    ///
    /// # Example
    /// ```
    /// use hhalign::device::Device;
    /// assert_eq!(Device::from_name("cuda:1")?, Device::Cuda(1));
    /// # Ok::<(), hhalign::error::Error>(())
    /// ```
    pub fn from_name(name: &str) -> Result<Self> {
        let number = name.strip_prefix("cuda:").map(str::parse);
        match (name, number) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(0)),
            (_, Some(Ok(number))) => Ok(Self::Cuda(number)),
            _ => Err(Error::new("no such device", name, "choose auto, cpu, cuda or cuda:N")),
        }
    }
}
