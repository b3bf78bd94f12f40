//! Causal attention over packed rows: query, key and value side by side in one row, heads side by side in each.

use super::gemm::{Matrix, Store, product};
use super::packed::{Packed, Span};
use super::vector::{exp, sized, softmax, sum2, widest};
use crate::model::GptConfig;

/// Queries handled at once: their scores stay in the cache.
const BLOCK: usize = 64;

/// Causal attention over the rows of a pack. Shapes: R rows, H heads of width d, C = H d.
#[derive(Clone, Copy)]
pub(super) struct Attention<'a> {
    spans: &'a [Span],
    n_head: usize,
    n_embd: usize,
}

/// What a backward pass reads and writes.
pub(super) struct Backward<'a> {
    /// Output, (R, 3C).
    pub(super) dqkv: &'a mut [f32],
    /// (R, C)
    pub(super) datty: &'a [f32],
    /// As the forward pass left it, (R, C).
    pub(super) atty: &'a [f32],
    /// As the forward pass left it, (R, H).
    pub(super) lse: &'a [f32],
    /// As the forward pass left it, (R, 3C).
    pub(super) qkv: &'a [f32],
}

/// Memory for the scores of one block of queries.
#[derive(Default)]
pub(super) struct Scores {
    p: Vec<f32>,
    dp: Vec<f32>,
}

impl<'a> Attention<'a> {
    pub(super) fn of(config: &GptConfig, packed: &'a Packed) -> Self {
        Self { spans: &packed.spans, n_head: config.n_head, n_embd: config.n_embd }
    }

    fn width(self) -> usize {
        self.n_embd / self.n_head
    }

    /// `atty = softmax(q kᵀ / √d + mask) v` and the log-sum-exp of each row of scores.
    ///
    /// # Shapes
    /// qkv (R, 3C), atty (R, C), lse (R, H)
    pub(super) fn forward(self, qkv: &[f32], atty: &mut [f32], lse: &mut [f32], scores: &mut Scores) {
        let (c, d) = (self.n_embd, self.width());
        for (span, head) in each(self.spans, self.n_head) {
            for block in Block::of(span) {
                let keys = block.keys();
                let p = sized(&mut scores.p, block.rows() * keys);
                self.scores(&block, head, qkv, p);
                widest!({
                    for (i, row) in p.chunks_exact_mut(keys).enumerate() {
                        let (seen, hidden) = row.split_at_mut(block.seen(i));
                        hidden.fill(0.0);
                        lse[(block.start + i) * self.n_head + head] = softmax(seen);
                    }
                });
                let atty = &mut atty[block.start * c + head * d..];
                let mut store = Store::Overwrite;
                for (column, rows) in block.key_ranges() {
                    let p = Matrix::rows(&p[column..], keys);
                    product([block.rows(), d, rows.len()], p, self.part(qkv, rows.start, 2, head), atty, c, store, 1.0);
                    store = Store::Add;
                }
            }
        }
    }

    /// Overwrites `dqkv` with the gradient of `qkv`.
    ///
    /// With P the probabilities and dP = datty vᵀ, the gradient of the scores is P (dP - Σ datty · atty).
    pub(super) fn backward(self, Backward { dqkv, datty, atty, lse, qkv }: Backward<'_>, scores: &mut Scores) {
        let (c, d) = (self.n_embd, self.width());
        let scale = 1.0 / (d as f32).sqrt();
        dqkv.fill(0.0);
        for (span, head) in each(self.spans, self.n_head) {
            for block in Block::of(span) {
                let (rows, keys) = (block.rows(), block.keys());
                let (p, dp) = (sized(&mut scores.p, rows * keys), sized(&mut scores.dp, rows * keys));
                self.scores(&block, head, qkv, p);
                let datty_block = Matrix::rows(&datty[block.start * c + head * d..], c);
                for (column, of) in block.key_ranges() {
                    let v = self.part(qkv, of.start, 2, head).transposed();
                    product([rows, of.len(), d], datty_block, v, &mut dp[column..], keys, Store::Overwrite, 1.0);
                }
                widest!({
                    for (i, (p, dp)) in p.chunks_exact_mut(keys).zip(dp.chunks_exact_mut(keys)).enumerate() {
                        let at = (block.start + i) * c + head * d;
                        let delta = sum2(&datty[at..at + d], &atty[at..at + d], |a, b| a * b);
                        let lse = lse[(block.start + i) * self.n_head + head];
                        let seen = block.seen(i);
                        for (p, dp) in p[..seen].iter_mut().zip(&mut dp[..seen]) {
                            *p = exp(*p - lse);
                            *dp = *p * (*dp - delta);
                        }
                        p[seen..].fill(0.0);
                        dp[seen..].fill(0.0);
                    }
                });
                for (column, of) in block.key_ranges() {
                    let (n, at) = (of.len(), |row: usize, part: usize| row * 3 * c + part * c + head * d);
                    let (p, dp) = (Matrix::rows(&p[column..], keys), Matrix::rows(&dp[column..], keys));
                    let (q, k) = (self.part(qkv, block.start, 0, head), self.part(qkv, of.start, 1, head));
                    product([rows, d, n], dp, k, &mut dqkv[at(block.start, 0)..], 3 * c, Store::Add, scale);
                    product([n, d, rows], dp.transposed(), q, &mut dqkv[at(of.start, 1)..], 3 * c, Store::Add, scale);
                    product(
                        [n, d, rows],
                        p.transposed(),
                        datty_block,
                        &mut dqkv[at(of.start, 2)..],
                        3 * c,
                        Store::Add,
                        1.0,
                    );
                }
            }
        }
    }

    /// Scaled scores of a block of queries against all keys up to its last row.
    fn scores(self, block: &Block, head: usize, qkv: &[f32], p: &mut [f32]) {
        let d = self.width();
        let q = self.part(qkv, block.start, 0, head);
        for (column, rows) in block.key_ranges() {
            let k = self.part(qkv, rows.start, 1, head).transposed();
            let scale = 1.0 / (d as f32).sqrt();
            product([block.rows(), rows.len(), d], q, k, &mut p[column..], block.keys(), Store::Overwrite, scale);
        }
    }

    /// Queries (part 0), keys (1) or values (2) of one head from `row` on.
    fn part(self, qkv: &[f32], row: usize, part: usize, head: usize) -> Matrix<'_> {
        let c = self.n_embd;
        Matrix::rows(&qkv[row * 3 * c + part * c + head * self.width()..], 3 * c)
    }
}

fn each(spans: &[Span], n_head: usize) -> impl Iterator<Item = (&Span, usize)> {
    spans.iter().flat_map(move |span| (0..n_head).map(move |head| (span, head)))
}

/// Some queries of a span; they see its prefix and its rows up to themselves.
struct Block<'a> {
    span: &'a Span,
    start: usize,
    end: usize,
}

impl<'a> Block<'a> {
    fn of(span: &'a Span) -> impl Iterator<Item = Self> {
        let end = span.rows.end;
        span.rows.clone().step_by(BLOCK).map(move |start| Block { span, start, end: (start + BLOCK).min(end) })
    }

    fn rows(&self) -> usize {
        self.end - self.start
    }

    /// Keys that the last query of the block sees.
    fn keys(&self) -> usize {
        self.span.prefix.len() + self.end - self.span.rows.start
    }

    /// Keys that query `i` of the block sees.
    fn seen(&self, i: usize) -> usize {
        self.span.prefix.len() + self.start + i + 1 - self.span.rows.start
    }

    /// The keys' rows, and the first column of the scores that each range fills.
    fn key_ranges(&self) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
        let prefix = self.span.prefix.clone();
        let column = prefix.len();
        [(0, prefix), (column, self.span.rows.start..self.end)].into_iter().filter(|r| !r.1.is_empty())
    }
}
