//! The whole numbers that kernels read: ids, rows, blocks of queries and keys. One pack becomes one copy to the card.

use super::attention::{Blocks, TILE};
use crate::fused::Packed;

/// Where a list lies in the copy, and how long it is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct List {
    pub(super) offset: usize,
    pub(super) len: usize,
}

/// Which rows of one list belong to each row of another: `starts` has one number more than there are rows.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Groups {
    pub(super) starts: List,
    pub(super) order: List,
}

/// A pack as lists.
#[derive(Debug, Default)]
pub(super) struct Lists {
    pub(super) numbers: Vec<i32>,
    pub(super) n_rows: usize,
    pub(super) ids: List,
    pub(super) positions: List,
    /// Sequence of each row, for the cache of keys and values.
    pub(super) sequences: List,
    /// Five numbers each: see `kernels/attention.cu`.
    pub(super) query_blocks: List,
    /// Three numbers each.
    pub(super) key_blocks: List,
    /// Rows that go on behind the last attention; none where all do.
    pub(super) needed: List,
    /// Of the needed rows, those that predict a target, then those at the ends of whole replies.
    pub(super) picked: List,
    pub(super) targets: List,
    /// Needed rows of every row, picked ones of every needed row: the way back.
    pub(super) of_rows: Groups,
    pub(super) of_needed: Groups,
    /// Rows of every distinct id and position, with those.
    pub(super) by_id: (List, Groups),
    pub(super) by_position: (List, Groups),
}

impl Lists {
    /// Of a pack; with `backward`, what the way back needs as well.
    pub(super) fn of(packed: &Packed, backward: bool) -> Self {
        let mut lists = Self { n_rows: packed.n_rows(), ..Self::default() };
        lists.ids = lists.add(packed.ids.iter().map(|&id| id as i32));
        lists.positions = lists.add(packed.positions.iter().map(|&p| p as i32));
        let (queries, keys) = (query_blocks(packed), key_blocks(packed));
        lists.query_blocks = lists.add(queries.into_iter().flatten());
        lists.needed = lists.add(packed.needed.iter().map(|&r| r as i32));
        let picked: Vec<usize> = packed.target_rows.iter().chain(&packed.end_rows).copied().collect();
        lists.picked = lists.add(picked.iter().map(|&r| r as i32));
        lists.targets = lists.add(packed.targets.iter().map(|&id| id as i32));
        if backward {
            lists.key_blocks = lists.add(keys.into_iter().flatten());
            lists.of_rows = lists.groups(packed.n_rows(), packed.needed.iter().copied());
            lists.of_needed = lists.groups(packed.needed.len(), picked.into_iter());
            lists.by_id = lists.distinct(&packed.ids);
            lists.by_position = lists.distinct(&packed.positions);
        }
        lists
    }

    /// One new token for each of some sequences.
    pub(super) fn of_tokens(ids: &[u32], positions: &[usize], sequences: &[usize]) -> Self {
        let mut lists = Self { n_rows: ids.len(), ..Self::default() };
        lists.ids = lists.add(ids.iter().map(|&id| id as i32));
        lists.positions = lists.add(positions.iter().map(|&p| p as i32));
        lists.sequences = lists.add(sequences.iter().map(|&s| s as i32));
        lists.picked = lists.add(0..ids.len() as i32);
        lists
    }

    /// Notes the sequence of each row of a pack of whole prompts.
    pub(super) fn with_sequences(mut self, sequences: impl Iterator<Item = usize>) -> Self {
        self.sequences = self.add(sequences.map(|s| s as i32));
        self
    }

    /// Rows that go on behind the last attention.
    pub(super) fn n_needed(&self) -> usize {
        if self.needed.len == 0 { self.n_rows } else { self.needed.len }
    }

    /// Blocks of queries, for lists that lie at this address.
    pub(super) fn queries(&self, numbers: u64) -> Blocks {
        Blocks { at: numbers + 4 * self.query_blocks.offset as u64, n: self.query_blocks.len / 5 }
    }

    /// Blocks of keys, likewise.
    pub(super) fn keys(&self, numbers: u64) -> Blocks {
        Blocks { at: numbers + 4 * self.key_blocks.offset as u64, n: self.key_blocks.len / 3 }
    }

    fn add(&mut self, values: impl Iterator<Item = i32>) -> List {
        let offset = self.numbers.len();
        self.numbers.extend(values);
        List { offset, len: self.numbers.len() - offset }
    }

    /// For each of `n` rows, the places at which `rows` names it.
    fn groups(&mut self, n: usize, rows: impl Iterator<Item = usize> + Clone) -> Groups {
        let mut starts = vec![0i32; n + 1];
        rows.clone().for_each(|row| starts[row + 1] += 1);
        (0..n).for_each(|row| starts[row + 1] += starts[row]);
        let mut next = starts.clone();
        let mut order = vec![0i32; starts[n] as usize];
        for (place, row) in rows.enumerate() {
            order[next[row] as usize] = place as i32;
            next[row] += 1;
        }
        Groups { starts: self.add(starts.into_iter()), order: self.add(order.into_iter()) }
    }

    /// The distinct values, and at which places each stands.
    fn distinct(&mut self, values: &[u32]) -> (List, Groups) {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by_key(|&place| values[place]);
        let (mut keys, mut starts) = (vec![], vec![]);
        for (i, &place) in order.iter().enumerate() {
            if keys.last() != Some(&(values[place] as i32)) {
                keys.push(values[place] as i32);
                starts.push(i as i32);
            }
        }
        starts.push(order.len() as i32);
        let keys = self.add(keys.into_iter());
        let groups =
            Groups { starts: self.add(starts.into_iter()), order: self.add(order.into_iter().map(|p| p as i32)) };
        (keys, groups)
    }
}

/// First and last row of some queries, first row of their span, first row and length of the prefix they see.
fn query_blocks(packed: &Packed) -> Vec<[i32; 5]> {
    let blocks = packed.spans.iter().flat_map(|span| {
        let (rows, prefix) = (span.rows.clone(), span.prefix.clone());
        rows.clone().step_by(TILE).map(move |begin| {
            let end = (begin + TILE).min(rows.end);
            [begin, end, rows.start, prefix.start, prefix.len()].map(|x| x as i32)
        })
    });
    let mut blocks: Vec<_> = blocks.collect();
    // The longest first, so that no block is left over at the end.
    blocks.sort_by_key(|[_, end, own, _, shown]| -(end - own + shown));
    blocks
}

/// First and last row of some keys, and the last row of a query that may see them.
fn key_blocks(packed: &Packed) -> Vec<[i32; 3]> {
    let mut blocks = vec![];
    for span in &packed.spans {
        // Replies that see this span stand right behind it.
        let followers = packed.spans.iter().filter(|other| !other.prefix.is_empty() && other.prefix == span.rows);
        let until = followers.map(|other| other.rows.end).max().unwrap_or(span.rows.end);
        let of = |begin: usize| [begin, (begin + TILE).min(span.rows.end), until].map(|x| x as i32);
        blocks.extend(span.rows.clone().step_by(TILE).map(of));
    }
    blocks.sort_by_key(|[begin, _, until]| begin - until);
    blocks
}
