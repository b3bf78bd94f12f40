//! The process-wide arena that stores the vectors of [`Values`](super::Values).
//!
//! A `Copy` handle owns nothing, so the arena cannot know when a vector is no longer needed. Three
//! limits bound the arena instead: on vectors and their numbers, on vectors with a gradient, and on
//! forward passes whose graph is kept. The least recently used vectors are dropped first.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::sync::{Mutex, PoisonError};

use candle_core::{Tensor, TensorId};

use crate::base::error::{Error, Result};

/// Maximum number of vectors, with or without a gradient.
const MAX_VECTORS: usize = 100_000;
/// Maximum number of elements in all vectors: 128 MiB in f64.
const MAX_NUMBERS: usize = 1 << 24;
/// Vectors that keep their gradient.
const MAX_GRAPHS: usize = 1_000;
/// Maximum number of forward passes whose graph is kept. A graph holds the activations of its pass.
const MAX_PASSES: usize = 16;
/// Maximum depth of a graph, in operations. candle walks and drops a graph recursively, so a deeper
/// one would overflow the stack.
const MAX_DEPTH: usize = 1_000;

/// The size of the arena of [`Values`](super::Values).
///
/// # Example
/// ```
/// use hhalign::loss::{ArenaSize, Values};
/// let _two = Values::new(&[1.0, 2.0]);
/// let size: ArenaSize = ArenaSize::now();
/// assert!(size.vectors >= 1 && size.numbers >= 2);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArenaSize {
    /// Vectors, including failed ones.
    pub vectors: usize,
    /// Numbers in these vectors.
    pub numbers: usize,
    /// Vectors that keep their gradient.
    pub graphs: usize,
}

impl ArenaSize {
    /// Returns the present size of the arena.
    pub fn now() -> Self {
        with_arena(|arena| ArenaSize {
            vectors: arena.entries.len(),
            numbers: arena.numbers,
            graphs: arena.graphs.len(),
        })
    }
}

/// Whether a vector has a gradient.
#[derive(Debug, Clone)]
enum Gradient {
    /// The vector depends on no variable.
    Absent,
    /// The vector's tensor carries the graph.
    Kept {
        /// The tensors of forward passes from which the vector was computed.
        passes: Vec<TensorId>,
        /// The number of operations on `Values` since those passes.
        depth: usize,
    },
    /// The vector had a gradient. Its graph was dropped, its numbers are kept.
    Released,
}

/// A vector of the arena, or the error of the operation that failed to compute it.
#[derive(Debug, Clone)]
pub(super) struct Vector {
    content: Result<Tensor>,
    gradient: Gradient,
}

impl Vector {
    /// Makes a vector from a tensor (B), with the tensor's gradient.
    pub(super) fn new(tensor: Tensor) -> Self {
        let gradient = if tensor.is_variable() {
            // A variable has no graph, so it counts as no pass.
            Gradient::Kept { passes: vec![], depth: 0 }
        } else if tensor.track_op() {
            Gradient::Kept { passes: vec![tensor.id()], depth: 0 }
        } else {
            Gradient::Absent
        };
        Self { content: Ok(tensor), gradient }
    }

    pub(super) fn failed(error: Error) -> Self {
        Self { content: Err(error), gradient: Gradient::Absent }
    }

    /// Makes the result of an operation on `operands`. The result has a gradient only if every
    /// operand kept its own, since a partial gradient would be wrong.
    pub(super) fn computed(content: Result<Tensor>, operands: &[&Vector]) -> Self {
        let mut gradient = Gradient::Absent;
        for operand in operands {
            gradient = match (gradient, &operand.gradient) {
                (Gradient::Released, _) | (_, Gradient::Released) => Gradient::Released,
                (gradient, Gradient::Absent) => gradient,
                (Gradient::Absent, kept) => kept.clone(),
                (
                    Gradient::Kept { mut passes, depth },
                    Gradient::Kept { passes: more, depth: other },
                ) => {
                    passes.extend(more);
                    Gradient::Kept { passes, depth: depth.max(*other) }
                }
            };
        }
        if let Gradient::Kept { passes, depth } = &mut gradient {
            let mut seen = vec![];
            passes.retain(|pass| {
                let new = !seen.contains(pass);
                seen.push(*pass);
                new
            });
            *depth += 1;
            if *depth > MAX_DEPTH {
                gradient = Gradient::Released;
            }
        }
        let mut vector = Self { content, gradient };
        if matches!(vector.gradient, Gradient::Released) {
            drop(vector.release());
        }
        vector
    }

    /// Returns the tensor, whose gradient may have been released: for reading numbers, and as an
    /// operand.
    pub(super) fn content(&self) -> Result<&Tensor> {
        self.content.as_ref().map_err(Error::clone)
    }

    /// Returns the tensor with its gradient.
    pub(super) fn tensor(self) -> Result<Tensor> {
        match self.gradient {
            Gradient::Released => Err(Error::not_ready(
                "the gradient of these values was released",
                format!(
                    "only the numbers are left; gradients are kept for the last {MAX_GRAPHS} \
                     values and {MAX_PASSES} forward passes used, and for {MAX_DEPTH} operations \
                     in a row"
                ),
                "compute them again, or continue without a gradient: \
                 Values::new(&values.to_vec()?)",
            )),
            _ => self.content,
        }
    }

    fn numbers(&self) -> usize {
        self.content.as_ref().map_or(0, Tensor::elem_count)
    }

    fn passes(&self) -> &[TensorId] {
        if let Gradient::Kept { passes, .. } = &self.gradient { passes } else { &[] }
    }

    fn keeps_gradient(&self) -> bool {
        matches!(self.gradient, Gradient::Kept { .. })
    }

    /// Drops the graph, keeps the numbers, and returns the old content.
    fn release(&mut self) -> Result<Tensor> {
        self.gradient = Gradient::Released;
        let detached = self.content.as_ref().map(Tensor::detach).map_err(Error::clone);
        mem::replace(&mut self.content, detached)
    }
}

struct Entry {
    vector: Vector,
    last_use: u64,
}

#[derive(Default)]
struct Arena {
    entries: HashMap<u64, Entry>,
    /// Counts insertions and look-ups; its value is the time of an entry's last use.
    clock: u64,
    next: u64,
    numbers: usize,
    /// All entries, by the time of their last use.
    recent: BTreeMap<u64, u64>,
    /// The entries that keep their gradient, by the time of their last use.
    graphs: BTreeMap<u64, u64>,
    /// Forward passes, in the order of their last use.
    passes: Vec<TensorId>,
}

static ARENA: Mutex<Option<Arena>> = Mutex::new(None);

fn with_arena<T>(f: impl FnOnce(&mut Arena) -> T) -> T {
    let mut arena = ARENA.lock().unwrap_or_else(PoisonError::into_inner);
    f(arena.get_or_insert_default())
}

/// Stores a vector and returns the index of its handle.
pub(super) fn insert(vector: Vector) -> u64 {
    // The dropped vectors may hold large graphs, so they are freed after the lock is released.
    let (id, _dropped) = with_arena(|arena| arena.insert(vector));
    id
}

/// Returns the vector of a handle, or a failed vector if it is no longer kept.
pub(super) fn get(id: u64) -> Vector {
    with_arena(|arena| arena.get(id)).unwrap_or_else(|| {
        Vector::failed(Error::not_ready(
            "these values are no longer kept",
            format!("{MAX_VECTORS} newer values or {MAX_NUMBERS} newer numbers"),
            "run the cell that computes them again",
        ))
    })
}

impl Arena {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn insert(&mut self, vector: Vector) -> (u64, Vec<Result<Tensor>>) {
        let (id, used) = (self.next, self.tick());
        self.next += 1;
        self.numbers += vector.numbers();
        self.recent.insert(used, id);
        if vector.keeps_gradient() {
            self.graphs.insert(used, id);
        }
        self.use_passes(vector.passes());
        self.entries.insert(id, Entry { vector, last_use: used });
        (id, self.trim())
    }

    fn get(&mut self, id: u64) -> Option<Vector> {
        let used = self.tick();
        let entry = self.entries.get_mut(&id)?;
        let before = mem::replace(&mut entry.last_use, used);
        let vector = entry.vector.clone();
        self.recent.remove(&before);
        self.recent.insert(used, id);
        if self.graphs.remove(&before).is_some() {
            self.graphs.insert(used, id);
        }
        self.use_passes(vector.passes());
        Some(vector)
    }

    fn use_passes(&mut self, passes: &[TensorId]) {
        self.passes.retain(|pass| !passes.contains(pass));
        self.passes.extend(passes);
    }

    /// Brings the arena back within its limits. Returns the dropped contents.
    fn trim(&mut self) -> Vec<Result<Tensor>> {
        let mut dropped = vec![];
        while self.passes.len() > MAX_PASSES {
            let oldest = self.passes.remove(0);
            let ids = self.graphs.values().copied();
            let dependents: Vec<u64> = ids.filter(|id| self.computed_from(*id, oldest)).collect();
            dropped.extend(dependents.into_iter().filter_map(|id| self.release(id)));
        }
        while self.graphs.len() > MAX_GRAPHS {
            let oldest = self.graphs.first_key_value().map(|(_, id)| *id);
            dropped.extend(oldest.and_then(|id| self.release(id)));
        }
        while self.entries.len() > MAX_VECTORS
            || (self.numbers > MAX_NUMBERS && self.entries.len() > 1)
        {
            let Some((used, id)) = self.recent.pop_first() else { break };
            self.graphs.remove(&used);
            if let Some(entry) = self.entries.remove(&id) {
                self.numbers -= entry.vector.numbers();
                dropped.push(entry.vector.content);
            }
        }
        dropped
    }

    fn computed_from(&self, id: u64, pass: TensorId) -> bool {
        self.entries.get(&id).is_some_and(|entry| entry.vector.passes().contains(&pass))
    }

    fn release(&mut self, id: u64) -> Option<Result<Tensor>> {
        let entry = self.entries.get_mut(&id)?;
        self.graphs.remove(&entry.last_use);
        Some(entry.vector.release())
    }
}
