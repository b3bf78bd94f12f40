//! The process-wide arena that stores the vectors of [`Values`](super::Values).
//!
//! A `Copy` handle owns nothing, so nobody says when its vector may go. Three limits bound the
//! arena instead: on vectors and their numbers, on vectors with a gradient, and on forward passes
//! whose graph is kept. The least recently used goes first.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::sync::{Mutex, PoisonError};

use candle_core::{Tensor, TensorId};

use crate::error::{Error, Result};

/// Vectors kept, with or without a gradient.
const MAX_VECTORS: usize = 100_000;
/// Numbers kept in all vectors together: 128 MiB in f64.
const MAX_NUMBERS: usize = 1 << 24;
/// Vectors that keep their gradient.
const MAX_GRAPHS: usize = 1_000;
/// Forward passes whose graph is kept: a graph holds the activations of its pass.
const MAX_PASSES: usize = 16;
/// Operations in a row that one gradient may go through: candle walks and drops a graph
/// recursively, and a longer chain would overflow the stack.
const MAX_DEPTH: usize = 1_000;

/// The number of vectors that the arena of [`Values`](super::Values) holds.
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
    /// Vectors, the failed ones included.
    pub vectors: usize,
    /// Numbers in these vectors.
    pub numbers: usize,
    /// Vectors that keep their gradient.
    pub graphs: usize,
}

impl ArenaSize {
    /// Counts what the arena holds now.
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
    /// It depends on no variable.
    Absent,
    /// Its tensor carries the graph.
    Kept {
        /// The tensors of forward passes that it was computed from.
        passes: Vec<TensorId>,
        /// Operations on `Values` since then.
        depth: usize,
    },
    /// It had one; the graph is gone and the numbers are left.
    Released,
}

/// A vector of the arena, or the error of the operation that should have given it.
#[derive(Debug, Clone)]
pub(super) struct Vector {
    content: Result<Tensor>,
    gradient: Gradient,
}

impl Vector {
    /// A tensor (B) from outside, with its gradient.
    pub(super) fn new(tensor: Tensor) -> Self {
        let gradient = if tensor.is_variable() {
            // A variable holds no graph, so it counts as no pass.
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

    /// The result of an operation on `operands`. It has a gradient only if no operand lost its own:
    /// half a gradient would be a wrong one.
    pub(super) fn computed(content: Result<Tensor>, operands: &[&Vector]) -> Self {
        let mut gradient = Gradient::Absent;
        for operand in operands {
            gradient = match (gradient, &operand.gradient) {
                (Gradient::Released, _) | (_, Gradient::Released) => Gradient::Released,
                (gradient, Gradient::Absent) => gradient,
                (Gradient::Absent, kept) => kept.clone(),
                (Gradient::Kept { mut passes, depth }, Gradient::Kept { passes: more, depth: other }) => {
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

    /// The tensor without a promise of its gradient: for numbers, and as an operand.
    pub(super) fn content(&self) -> Result<&Tensor> {
        self.content.as_ref().map_err(Error::clone)
    }

    /// The tensor with its gradient.
    pub(super) fn tensor(self) -> Result<Tensor> {
        match self.gradient {
            Gradient::Released => Err(Error::new(
                "the gradient of these values was released",
                format!(
                    "their numbers are left; gradients are kept of the {MAX_GRAPHS} values and the \
                     {MAX_PASSES} forward passes used last, through {MAX_DEPTH} operations in a row"
                ),
                "compute them again, or go on without a gradient: Values::new(&values.to_vec()?)",
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
    used: u64,
}

#[derive(Default)]
struct Arena {
    entries: HashMap<u64, Entry>,
    /// Counts insertions and look-ups: the time of an entry's last use.
    clock: u64,
    next: u64,
    numbers: usize,
    /// All entries by their last use.
    recent: BTreeMap<u64, u64>,
    /// Those of them that keep their gradient.
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
    // What is dropped may be a large graph: it goes after the lock.
    let (id, _dropped) = with_arena(|arena| arena.insert(vector));
    id
}

/// Returns the vector of a handle; a vector that is no longer kept is a failed one.
pub(super) fn get(id: u64) -> Vector {
    with_arena(|arena| arena.get(id)).unwrap_or_else(|| {
        Vector::failed(Error::new(
            "these values are no longer kept",
            format!("{MAX_VECTORS} values or {MAX_NUMBERS} numbers were used since"),
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
        self.entries.insert(id, Entry { vector, used });
        (id, self.trim())
    }

    fn get(&mut self, id: u64) -> Option<Vector> {
        let used = self.tick();
        let entry = self.entries.get_mut(&id)?;
        let before = mem::replace(&mut entry.used, used);
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

    /// Brings the arena back within its limits and returns what it let go.
    fn trim(&mut self) -> Vec<Result<Tensor>> {
        let mut dropped = vec![];
        while self.passes.len() > MAX_PASSES {
            let oldest = self.passes.remove(0);
            let ids = self.graphs.values().copied();
            let of_it: Vec<u64> = ids.filter(|id| self.computed_from(*id, oldest)).collect();
            dropped.extend(of_it.into_iter().filter_map(|id| self.release(id)));
        }
        while self.graphs.len() > MAX_GRAPHS {
            let oldest = self.graphs.first_key_value().map(|(_, id)| *id);
            dropped.extend(oldest.and_then(|id| self.release(id)));
        }
        while self.entries.len() > MAX_VECTORS || (self.numbers > MAX_NUMBERS && self.entries.len() > 1) {
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
        self.graphs.remove(&entry.used);
        Some(entry.vector.release())
    }
}
