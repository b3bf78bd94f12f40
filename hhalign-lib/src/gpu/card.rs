//! What the passes ask of a card: memory, kernels and matrix products. A CUDA device answers, or its emulation in tests.

use std::ffi::c_void;
use std::sync::Arc;

use super::Storage;
use crate::error::{Error, Result};

/// An argument of a kernel.
#[derive(Debug, Clone, Copy)]
pub(super) enum Arg {
    /// An address on the card; 0 stands for none.
    At(u64),
    Int(i32),
    Long(i64),
    Float(f32),
}

impl Arg {
    /// Where it lies, as a launch wants to know.
    pub(super) fn pointer(&mut self) -> *mut c_void {
        match self {
            Self::At(x) => std::ptr::from_mut(x).cast(),
            Self::Int(x) => std::ptr::from_mut(x).cast(),
            Self::Long(x) => std::ptr::from_mut(x).cast(),
            Self::Float(x) => std::ptr::from_mut(x).cast(),
        }
    }
}

/// A kernel and how many threads run it.
pub(super) struct Launch<'a> {
    pub(super) kernel: &'static str,
    pub(super) grid: [usize; 2],
    pub(super) block: u32,
    /// Bytes of dynamic shared memory.
    pub(super) shared: usize,
    pub(super) args: &'a [Arg],
}

/// A matrix in rows of `row` numbers, read as it lies or transposed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operand {
    pub(super) at: u64,
    pub(super) row: usize,
    pub(super) transposed: bool,
}

impl Operand {
    pub(super) fn rows(at: u64, row: usize) -> Self {
        Self { at, row, transposed: false }
    }

    pub(super) fn transposed(at: u64, row: usize) -> Self {
        Self { at, row, transposed: true }
    }
}

/// `out (+)= a b` with a (m, k), b (k, n); operands are stored as the card's numbers, sums are in f32.
#[derive(Debug, Clone, Copy)]
pub(super) struct Product {
    pub(super) size: [usize; 3],
    pub(super) a: Operand,
    pub(super) b: Operand,
    pub(super) out: u64,
    pub(super) out_row: usize,
    /// Whether `out` is f32; stored as the operands otherwise.
    pub(super) wide: bool,
    /// Whether `out` is added to.
    pub(super) add: bool,
}

/// How products and kernels treat numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) storage: Storage,
    /// Whether products of f32 numbers may round operands to TF32.
    pub(super) tf32: bool,
}

/// A device. Work is queued in order; reading waits for it.
pub(super) trait Card: Send + Sync {
    fn name(&self) -> String;
    /// Bytes free and in all.
    fn memory(&self) -> Result<(usize, usize)>;
    /// The memory is not cleared.
    fn allocate(&self, bytes: usize) -> Result<u64>;
    fn free(&self, at: u64);
    fn write(&self, at: u64, bytes: &[u8]) -> Result<()>;
    fn read(&self, at: u64, bytes: &mut [u8]) -> Result<()>;
    fn clear(&self, at: u64, bytes: usize) -> Result<()>;
    fn launch(&self, storage: Storage, launch: &Launch<'_>) -> Result<()>;
    fn product(&self, numbers: Numbers, product: &Product) -> Result<()>;
    fn supports(&self, storage: Storage) -> Result<()>;
}

/// Memory on a card, given back when dropped.
pub(super) struct Buffer {
    card: Arc<dyn Card>,
    at: u64,
    bytes: usize,
}

impl Buffer {
    pub(super) fn new(card: &Arc<dyn Card>, bytes: usize) -> Result<Self> {
        let bytes = bytes.max(16);
        let at = card.allocate(bytes)?;
        Ok(Self { card: card.clone(), at, bytes })
    }

    pub(super) fn cleared(card: &Arc<dyn Card>, bytes: usize) -> Result<Self> {
        let buffer = Self::new(card, bytes)?;
        card.clear(buffer.at, buffer.bytes)?;
        Ok(buffer)
    }

    pub(super) fn at(&self) -> u64 {
        self.at
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.card.free(self.at);
    }
}

/// Memory that grows to the largest size asked of it and is kept from pass to pass.
#[derive(Default)]
pub(super) struct Room(Option<Buffer>);

impl Room {
    /// Room for so many bytes; what lay there may be lost.
    pub(super) fn sized(&mut self, card: &Arc<dyn Card>, bytes: usize) -> Result<u64> {
        if self.0.as_ref().is_none_or(|b| b.bytes < bytes) {
            // Given back first: both at once might not fit.
            self.0 = None;
            self.0 = Some(Buffer::new(card, bytes)?);
        }
        Ok(self.at())
    }

    /// Where it lies; 0 before it was first sized.
    pub(super) fn at(&self) -> u64 {
        self.0.as_ref().map_or(0, Buffer::at)
    }

    /// Puts numbers there.
    pub(super) fn upload<T: bytemuck::NoUninit>(&mut self, card: &Arc<dyn Card>, values: &[T]) -> Result<u64> {
        let at = self.sized(card, size_of_val(values))?;
        card.write(at, bytemuck::cast_slice(values))?;
        Ok(at)
    }
}

/// Reads numbers back.
pub(super) fn download<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(
    card: &dyn Card,
    at: u64,
    n: usize,
) -> Result<Vec<T>> {
    let mut values = vec![T::zeroed(); n];
    card.read(at, bytemuck::cast_slice_mut(&mut values))?;
    Ok(values)
}

/// The error of memory that is not there, with what to do.
pub(super) fn out_of_memory(bytes: usize, (free, all): (usize, usize)) -> Error {
    let mb = |bytes: usize| bytes >> 20;
    Error::new(
        "the GPU's memory is full",
        format!("{} MB wanted, {} of {} MB free", mb(bytes), mb(free), mb(all)),
        "lower micro_batch_size or max_length, or set compute.checkpoint_activations = true; Memory::plan tells what a setting needs",
    )
}
