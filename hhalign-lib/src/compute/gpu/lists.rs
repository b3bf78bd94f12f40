//! The lists of integers that kernels read: ids, rows, blocks of queries and keys. All lists of a
//! pack are copied to the card together.

use std::sync::Arc;

use crate::base::error::Result;
use crate::compute::gpu::card::{Card, GrowBuf};
use crate::compute::gpu::kernels::attention::TILE;
use crate::data::packed::Packed;

/// The start of a list in the copy, and its length.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct List {
    pub(super) offset: usize,
    pub(super) len: usize,
}

/// Groups of the rows of a list. Group i has the rows in `order` from starts[i] to starts[i + 1].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Groups {
    pub(super) starts: List,
    pub(super) order: List,
}

/// The rows of each distinct id or position.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct KeyedGroups {
    pub(super) keys: List,
    pub(super) groups: Groups,
}

/// A pack as lists. R rows, N targets, E ends of replies.
#[derive(Debug, Default)]
pub(super) struct Lists {
    values: Vec<i32>,
    /// The address of the copy on the card.
    copy: u64,
    pub(super) n_rows: usize,
    pub(super) ids: List,
    pub(super) positions: List,
    /// The sequence of each row, for the cache of keys and values.
    pub(super) sequences: List,
    /// Five integers per block; see `kernels/attention.cu`.
    pub(super) query_blocks: List,
    /// Three integers per block; see `kernels/attention.cu`.
    pub(super) key_blocks: List,
    /// The rows that are needed after the last attention; empty if all are.
    pub(super) needed: List,
    /// The needed rows that predict a target, then those at the ends of whole replies, (N + E).
    pub(super) picked: List,
    pub(super) targets: List,
    /// The needed rows of each row, for the backward pass.
    pub(super) needed_by_row: Groups,
    /// The picked rows of each needed row, for the backward pass.
    pub(super) picked_by_needed: Groups,
    /// The rows of each id, for the backward pass.
    pub(super) by_id: KeyedGroups,
    /// The rows of each position, for the backward pass.
    pub(super) by_position: KeyedGroups,
}

impl Lists {
    /// Makes the lists of a pack; with `backward`, also those of the backward pass.
    pub(super) fn new(packed: &Packed, backward: bool) -> Self {
        let mut lists = Self { n_rows: packed.n_rows(), ..Self::default() };
        lists.ids = lists.add(packed.ids.iter().map(|&id| id as i32));
        lists.positions = lists.add(packed.positions.iter().map(|&p| p as i32));
        let (queries, keys) = (query_blocks(packed), key_blocks(packed));
        lists.query_blocks = lists.add(queries.into_iter().flatten());
        lists.needed = lists.add(packed.needed.iter().map(|&r| r as i32));
        let picked: Vec<usize> =
            packed.target_rows.iter().chain(&packed.end_rows).copied().collect();
        lists.picked = lists.add(picked.iter().map(|&r| r as i32));
        lists.targets = lists.add(packed.targets.iter().map(|&id| id as i32));
        if backward {
            lists.key_blocks = lists.add(keys.into_iter().flatten());
            lists.needed_by_row = lists.groups(packed.n_rows(), packed.needed.iter().copied());
            lists.picked_by_needed = lists.groups(packed.needed.len(), picked.into_iter());
            lists.by_id = lists.distinct(&packed.ids);
            lists.by_position = lists.distinct(&packed.positions);
        }
        lists
    }

    /// Makes the lists of one new token for each of some sequences.
    pub(super) fn from_tokens(ids: &[u32], positions: &[usize], sequences: &[usize]) -> Self {
        let mut lists = Self { n_rows: ids.len(), ..Self::default() };
        lists.ids = lists.add(ids.iter().map(|&id| id as i32));
        lists.positions = lists.add(positions.iter().map(|&p| p as i32));
        lists.sequences = lists.add(sequences.iter().map(|&s| s as i32));
        lists.picked = lists.add(0..ids.len() as i32);
        lists
    }

    /// Adds the sequence of each row of a pack of whole prompts.
    pub(super) fn with_sequences(mut self, sequences: impl Iterator<Item = usize>) -> Self {
        self.sequences = self.add(sequences.map(|s| s as i32));
        self
    }

    /// Returns the number of rows that are needed after the last attention.
    pub(super) fn n_needed(&self) -> usize {
        if self.needed.len == 0 { self.n_rows } else { self.needed.len }
    }

    /// Returns whether only some rows are needed after the last attention.
    pub(super) fn gathers(&self) -> bool {
        self.needed.len > 0
    }

    /// Returns the number of blocks of queries.
    pub(super) fn n_query_blocks(&self) -> usize {
        self.query_blocks.len / 5
    }

    /// Returns the number of blocks of keys.
    pub(super) fn n_key_blocks(&self) -> usize {
        self.key_blocks.len / 3
    }

    /// Copies the lists to the card.
    pub(super) fn upload(&mut self, card: &Arc<dyn Card>, buffer: &mut GrowBuf) -> Result<()> {
        self.copy = buffer.upload(card, &self.values)?;
        Ok(())
    }

    /// Returns the address of a list on the card.
    pub(super) fn address(&self, list: List) -> u64 {
        self.copy + 4 * list.offset as u64
    }

    fn add(&mut self, values: impl Iterator<Item = i32>) -> List {
        let offset = self.values.len();
        self.values.extend(values);
        List { offset, len: self.values.len() - offset }
    }

    /// Groups the indices of `rows` by their value, one group for each of `n` rows.
    fn groups(&mut self, n: usize, rows: impl Iterator<Item = usize> + Clone) -> Groups {
        let mut starts = vec![0i32; n + 1];
        rows.clone().for_each(|row| starts[row + 1] += 1);
        (0..n).for_each(|row| starts[row + 1] += starts[row]);
        let mut next = starts.clone();
        let mut order = vec![0i32; starts[n] as usize];
        for (position, row) in rows.enumerate() {
            order[next[row] as usize] = position as i32;
            next[row] += 1;
        }
        Groups { starts: self.add(starts.into_iter()), order: self.add(order.into_iter()) }
    }

    /// Returns the distinct values and the positions of each.
    fn distinct(&mut self, values: &[u32]) -> KeyedGroups {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by_key(|&position| values[position]);
        let (mut keys, mut starts) = (vec![], vec![]);
        for (i, &position) in order.iter().enumerate() {
            if keys.last() != Some(&(values[position] as i32)) {
                keys.push(values[position] as i32);
                starts.push(i as i32);
            }
        }
        starts.push(order.len() as i32);
        let keys = self.add(keys.into_iter());
        let groups = Groups {
            starts: self.add(starts.into_iter()),
            order: self.add(order.into_iter().map(|p| p as i32)),
        };
        KeyedGroups { keys, groups }
    }
}

/// Returns for each block of queries: its first row, its end row, the first row of its span, and
/// the first row and the length of the prefix that it sees.
fn query_blocks(packed: &Packed) -> Vec<[i32; 5]> {
    let blocks = packed.spans.iter().flat_map(|span| {
        let (rows, prefix) = (span.rows.clone(), span.prefix.clone());
        rows.clone().step_by(TILE).map(move |begin| {
            let end = (begin + TILE).min(rows.end);
            [begin, end, rows.start, prefix.start, prefix.len()].map(|x| x as i32)
        })
    });
    let mut blocks: Vec<_> = blocks.collect();
    // The longest block first, so that no long block runs alone at the end.
    blocks.sort_by_key(|[_, end, span_start, _, prefix_len]| -(end - span_start + prefix_len));
    blocks
}

/// Returns for each block of keys: its first row, its end row, and the end row of the queries that
/// may see it.
fn key_blocks(packed: &Packed) -> Vec<[i32; 3]> {
    let mut blocks = vec![];
    for span in &packed.spans {
        // Replies that see this span follow it directly.
        let followers = packed
            .spans
            .iter()
            .filter(|other| !other.prefix.is_empty() && other.prefix == span.rows);
        let query_end = followers.map(|other| other.rows.end).max().unwrap_or(span.rows.end);
        let of =
            |begin: usize| [begin, (begin + TILE).min(span.rows.end), query_end].map(|x| x as i32);
        blocks.extend(span.rows.clone().step_by(TILE).map(of));
    }
    blocks.sort_by_key(|[begin, _, query_end]| begin - query_end);
    blocks
}
