//! What the passes need of a card: memory, kernels and matrix products. A CUDA device implements it, and its emulation in
//! tests.

use std::sync::Arc;

use super::Storage;
use super::kernels::Launch;
use crate::error::{Error, Result};

/// A stored matrix with a row stride of `row` numbers, read as it is or transposed.
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

/// The matrix product `out (+)= a b` with a (m, k), b (k, n) and out (m, n); operands are stored, sums are in f32.
#[derive(Debug, Clone, Copy)]
pub(super) struct Product {
    /// m, n, k.
    pub(super) size: [usize; 3],
    pub(super) a: Operand,
    pub(super) b: Operand,
    pub(super) out: u64,
    pub(super) store: Store,
}

/// How a product writes its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Store {
    /// Overwrites numbers that are stored as the operands are.
    Stored,
    /// Overwrites f32 numbers.
    F32,
    /// Adds to f32 numbers.
    AddF32,
}

/// The dtypes of kernels and products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dtypes {
    /// Of activations and of the weights that products read.
    pub(super) storage: Storage,
    /// Whether products of f32 numbers may round operands to TF32.
    pub(super) tf32: bool,
}

/// A device. Work is queued in order; reading waits for it.
pub(super) trait Card: Send + Sync {
    fn name(&self) -> String;
    /// Free and total bytes.
    fn memory(&self) -> Result<(usize, usize)>;
    /// The memory is not cleared.
    fn allocate(&self, bytes: usize) -> Result<u64>;
    fn free(&self, at: u64);
    fn write(&self, at: u64, bytes: &[u8]) -> Result<()>;
    fn read(&self, at: u64, bytes: &mut [u8]) -> Result<()>;
    fn clear(&self, at: u64, bytes: usize) -> Result<()>;
    /// The grid is not empty.
    fn launch(&self, storage: Storage, launch: Launch) -> Result<()>;
    /// No size is 0.
    fn product(&self, dtypes: Dtypes, product: &Product) -> Result<()>;
    fn supports(&self, storage: Storage) -> Result<()>;
    /// Operations asked of it so far, where they are counted: the emulation counts.
    fn calls(&self) -> usize {
        0
    }
}

/// Memory on a card, freed when dropped.
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

/// A buffer that grows to the largest size requested and is kept from pass to pass.
#[derive(Default)]
pub(super) struct GrowBuf(Option<Buffer>);

impl GrowBuf {
    /// The address of at least `bytes` bytes; the contents may be lost.
    pub(super) fn sized(&mut self, card: &Arc<dyn Card>, bytes: usize) -> Result<u64> {
        if self.0.as_ref().is_none_or(|b| b.bytes < bytes) {
            // Freed first: both at once might not fit.
            self.0 = None;
            self.0 = Some(Buffer::new(card, bytes)?);
        }
        Ok(self.at())
    }

    /// Its address; 0 before it was first sized.
    pub(super) fn at(&self) -> u64 {
        self.0.as_ref().map_or(0, Buffer::at)
    }

    /// Copies values to the card; returns their address.
    pub(super) fn upload<T: bytemuck::NoUninit>(&mut self, card: &Arc<dyn Card>, values: &[T]) -> Result<u64> {
        let at = self.sized(card, size_of_val(values))?;
        card.write(at, bytemuck::cast_slice(values))?;
        Ok(at)
    }
}

/// Reads values back.
pub(super) fn download<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(
    card: &dyn Card,
    at: u64,
    n: usize,
) -> Result<Vec<T>> {
    let mut values = vec![T::zeroed(); n];
    card.read(at, bytemuck::cast_slice_mut(&mut values))?;
    Ok(values)
}

/// The error of a full memory.
pub(super) fn out_of_memory(bytes: usize, (free, all): (usize, usize)) -> Error {
    let mb = |bytes: usize| bytes >> 20;
    Error::new(
        "the GPU's memory is full",
        format!("{} MB wanted, {} of {} MB free", mb(bytes), mb(free), mb(all)),
        "lower micro_batch_size or max_length, or set compute.checkpoint_activations = true; Memory::plan tells what a setting needs",
    )
}
