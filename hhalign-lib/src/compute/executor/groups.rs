//! The number of sequences that a thread decodes together.

use crate::base::parallel;

/// The maximum number of sequences that one thread decodes together.
const MAX_BATCH: usize = 16;

/// Returns the number of sequences, out of `n`, that one thread decodes together.
pub(super) fn group_size(n: usize) -> usize {
    n.div_ceil(parallel::threads()).clamp(1, MAX_BATCH)
}
