//! The interface of a card for the passes: memory, kernels and matrix products. A CUDA device and
//! the emulated card of the tests implement it.

use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::compute::gpu::Storage;
use crate::compute::gpu::kernels::Launch;

/// A stored matrix with row stride `row`, read as it is or transposed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operand {
    pub(super) address: u64,
    pub(super) row: usize,
    pub(super) transposed: bool,
}

impl Operand {
    pub(super) fn rows(address: u64, row: usize) -> Self {
        Self { address, row, transposed: false }
    }

    pub(super) fn transposed(address: u64, row: usize) -> Self {
        Self { address, row, transposed: true }
    }
}

/// The matrix product `out (+)= a b` with a (m, k), b (k, n) and out (m, n). Operands have the
/// storage dtype, sums are in f32.
#[derive(Debug, Clone, Copy)]
pub(super) struct Product {
    /// The sizes m, n, k.
    pub(super) size: [usize; 3],
    pub(super) a: Operand,
    pub(super) b: Operand,
    pub(super) out: u64,
    pub(super) store: Store,
}

/// How a product writes its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Store {
    /// Overwrites the destination, in the storage dtype.
    Stored,
    /// Overwrites the destination, in f32.
    F32,
    /// Adds to the destination, in f32.
    AddF32,
}

/// The dtypes of kernels and products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::compute) struct Dtypes {
    /// The dtype of activations and of the weights that products read.
    pub(in crate::compute) storage: Storage,
    /// Whether f32 products may round operands to TF32.
    pub(in crate::compute) tf32: bool,
}

/// A device. Work is queued in order; reading waits for it.
pub(super) trait Card: Send + Sync {
    fn name(&self) -> String;
    /// Returns free and total bytes.
    fn memory(&self) -> Result<(usize, usize)>;
    /// Allocates memory without clearing it.
    fn allocate(&self, bytes: usize) -> Result<u64>;
    fn free(&self, address: u64);
    fn write(&self, address: u64, bytes: &[u8]) -> Result<()>;
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()>;
    fn clear(&self, address: u64, bytes: usize) -> Result<()>;
    /// Queues a kernel. The grid must not be empty.
    fn launch(&self, storage: Storage, launch: Launch) -> Result<()>;
    /// Queues a product. No size may be 0.
    fn product(&self, dtypes: Dtypes, product: &Product) -> Result<()>;
    fn supports(&self, storage: Storage) -> Result<()>;
    /// Returns the number of operations so far on an emulated card, 0 on others.
    fn calls(&self) -> usize {
        0
    }
}

/// Memory on a card, freed when dropped.
pub(super) struct Buffer {
    card: Arc<dyn Card>,
    address: u64,
    bytes: usize,
}

impl Buffer {
    pub(super) fn new(card: &Arc<dyn Card>, bytes: usize) -> Result<Self> {
        let bytes = bytes.max(16);
        let address = card.allocate(bytes)?;
        Ok(Self { card: card.clone(), address, bytes })
    }

    pub(super) fn cleared(card: &Arc<dyn Card>, bytes: usize) -> Result<Self> {
        let buffer = Self::new(card, bytes)?;
        card.clear(buffer.address, buffer.bytes)?;
        Ok(buffer)
    }

    pub(super) fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.card.free(self.address);
    }
}

/// A buffer that grows to the largest size requested and is kept from pass to pass.
#[derive(Default)]
pub(super) struct GrowBuf(Option<Buffer>);

impl GrowBuf {
    /// Returns the address of at least `bytes` bytes. Growing loses the contents.
    pub(super) fn sized(&mut self, card: &Arc<dyn Card>, bytes: usize) -> Result<u64> {
        if self.0.as_ref().is_none_or(|b| b.bytes < bytes) {
            // Freed first, since both buffers might not fit.
            self.0 = None;
            self.0 = Some(Buffer::new(card, bytes)?);
        }
        Ok(self.address())
    }

    /// Returns the address; 0 before the buffer was first sized.
    pub(super) fn address(&self) -> u64 {
        self.0.as_ref().map_or(0, Buffer::address)
    }

    /// Copies values to the card. Returns their address.
    pub(super) fn upload<T: bytemuck::NoUninit>(
        &mut self,
        card: &Arc<dyn Card>,
        values: &[T],
    ) -> Result<u64> {
        let address = self.sized(card, size_of_val(values))?;
        card.write(address, bytemuck::cast_slice(values))?;
        Ok(address)
    }
}

/// Copies values from the card.
pub(super) fn download<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(
    card: &dyn Card,
    address: u64,
    n: usize,
) -> Result<Vec<T>> {
    let mut values = vec![T::zeroed(); n];
    card.read(address, bytemuck::cast_slice_mut(&mut values))?;
    Ok(values)
}

/// Makes the error of a failed call to a GPU or one of its libraries.
pub(super) fn failed(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::device(
        format!("the GPU failed: {what}"),
        format!("{error:?}"),
        "restart the kernel; if the error returns, set HHALIGN_DEVICE=cpu",
    )
    .caused_by(error)
}

/// Makes the error of a failed allocation.
pub(super) fn out_of_memory(bytes: usize, (free, all): (usize, usize)) -> Error {
    let mb = |bytes: usize| bytes >> 20;
    Error::memory(
        "the GPU's memory is full",
        format!("{} MB requested, {} of {} MB free", mb(bytes), mb(free), mb(all)),
        "lower micro_batch_size or max_length, or set compute.checkpoint_activations = true; \
         Memory::plan computes the memory of a setting",
    )
}
