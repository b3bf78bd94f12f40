//! Causal attention over packed rows. A row holds query, key and value, each with all heads.

use crate::compute::cpu::gemm::{Matrix, Store, product};
use crate::compute::cpu::vector::{exp, sized, softmax, sum2, widest};
use crate::data::packed::{Packed, Span};
use crate::model::GptConfig;

/// The number of queries in a block, whose scores stay in the cache.
const BLOCK: usize = 64;

/// Causal attention over the rows of a pack. Shapes: R rows, H heads of width d, C = H d.
#[derive(Clone, Copy)]
pub(super) struct Attention<'a> {
    spans: &'a [Span],
    n_head: usize,
    n_embd: usize,
}

/// The inputs and the output of a backward pass.
pub(super) struct Backward<'a> {
    /// The output: the gradient of `qkv`, (R, 3C).
    pub(super) dqkv: &'a mut [f32],
    /// The gradient of `atty`, (R, C).
    pub(super) datty: &'a [f32],
    /// From the forward pass, (R, C).
    pub(super) atty: &'a [f32],
    /// From the forward pass, (R, H).
    pub(super) lse: &'a [f32],
    /// From the forward pass, (R, 3C).
    pub(super) qkv: &'a [f32],
}

/// Buffers for the scores of one block of queries.
#[derive(Default)]
pub(super) struct ScoreBuffers {
    p: Vec<f32>,
    dp: Vec<f32>,
}

impl<'a> Attention<'a> {
    pub(super) fn new(config: &GptConfig, packed: &'a Packed) -> Self {
        Self { spans: &packed.spans, n_head: config.n_head, n_embd: config.n_embd }
    }

    fn width(self) -> usize {
        self.n_embd / self.n_head
    }

    /// Computes `atty = softmax(q kᵀ / √d + mask) v` and the log-sum-exp of each row of scores.
    ///
    /// # Shapes
    /// qkv (R, 3C), atty (R, C), lse (R, H)
    pub(super) fn forward(
        self,
        qkv: &[f32],
        atty: &mut [f32],
        lse: &mut [f32],
        scores: &mut ScoreBuffers,
    ) {
        let (c, d) = (self.n_embd, self.width());
        for (span, head) in spans_and_heads(self.spans, self.n_head) {
            for block in Block::all(span) {
                let keys = block.n_keys();
                let p = sized(&mut scores.p, block.n_rows() * keys);
                self.scores(&block, head, qkv, p);
                widest!({
                    for (i, row) in p.chunks_exact_mut(keys).enumerate() {
                        let (visible, masked) = row.split_at_mut(block.n_visible(i));
                        masked.fill(0.0);
                        lse[(block.start + i) * self.n_head + head] = softmax(visible);
                    }
                });
                let atty = &mut atty[block.start * c + head * d..];
                let mut store = Store::Overwrite;
                for (column, rows) in block.key_ranges() {
                    let p = Matrix::rows(&p[column..], keys);
                    product(
                        [block.n_rows(), d, rows.len()],
                        p,
                        self.part(qkv, rows.start, 2, head),
                        atty,
                        c,
                        store,
                        1.0,
                    );
                    store = Store::Add;
                }
            }
        }
    }

    /// Overwrites `dqkv` with the gradient of `qkv`.
    ///
    /// With the probabilities P and dP = datty vᵀ, the gradient of the scores is P (dP - Σ datty ·
    /// atty).
    pub(super) fn backward(
        self,
        Backward { dqkv, datty, atty, lse, qkv }: Backward<'_>,
        scores: &mut ScoreBuffers,
    ) {
        let (c, d) = (self.n_embd, self.width());
        let scale = 1.0 / (d as f32).sqrt();
        dqkv.fill(0.0);
        for (span, head) in spans_and_heads(self.spans, self.n_head) {
            for block in Block::all(span) {
                let (rows, keys) = (block.n_rows(), block.n_keys());
                let (p, dp) =
                    (sized(&mut scores.p, rows * keys), sized(&mut scores.dp, rows * keys));
                self.scores(&block, head, qkv, p);
                let datty_block = Matrix::rows(&datty[block.start * c + head * d..], c);
                for (column, of) in block.key_ranges() {
                    let v = self.part(qkv, of.start, 2, head).transposed();
                    product(
                        [rows, of.len(), d],
                        datty_block,
                        v,
                        &mut dp[column..],
                        keys,
                        Store::Overwrite,
                        1.0,
                    );
                }
                widest!({
                    for (i, (p, dp)) in
                        p.chunks_exact_mut(keys).zip(dp.chunks_exact_mut(keys)).enumerate()
                    {
                        let at = (block.start + i) * c + head * d;
                        let delta = sum2(&datty[at..at + d], &atty[at..at + d], |a, b| a * b);
                        let lse = lse[(block.start + i) * self.n_head + head];
                        let visible = block.n_visible(i);
                        for (p, dp) in p[..visible].iter_mut().zip(&mut dp[..visible]) {
                            *p = exp(*p - lse);
                            *dp = *p * (*dp - delta);
                        }
                        p[visible..].fill(0.0);
                        dp[visible..].fill(0.0);
                    }
                });
                for (column, of) in block.key_ranges() {
                    let (n, at) =
                        (of.len(), |row: usize, part: usize| row * 3 * c + part * c + head * d);
                    let (p, dp) =
                        (Matrix::rows(&p[column..], keys), Matrix::rows(&dp[column..], keys));
                    let (q, k) =
                        (self.part(qkv, block.start, 0, head), self.part(qkv, of.start, 1, head));
                    product(
                        [rows, d, n],
                        dp,
                        k,
                        &mut dqkv[at(block.start, 0)..],
                        3 * c,
                        Store::Add,
                        scale,
                    );
                    product(
                        [n, d, rows],
                        dp.transposed(),
                        q,
                        &mut dqkv[at(of.start, 1)..],
                        3 * c,
                        Store::Add,
                        scale,
                    );
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

    /// Computes the scaled scores of a block of queries with all keys up to the block's last row.
    fn scores(self, block: &Block, head: usize, qkv: &[f32], p: &mut [f32]) {
        let d = self.width();
        let q = self.part(qkv, block.start, 0, head);
        for (column, rows) in block.key_ranges() {
            let k = self.part(qkv, rows.start, 1, head).transposed();
            let scale = 1.0 / (d as f32).sqrt();
            product(
                [block.n_rows(), rows.len(), d],
                q,
                k,
                &mut p[column..],
                block.n_keys(),
                Store::Overwrite,
                scale,
            );
        }
    }

    /// Returns the queries (part 0), keys (1) or values (2) of one head, starting at `row`.
    fn part(self, qkv: &[f32], row: usize, part: usize, head: usize) -> Matrix<'_> {
        let c = self.n_embd;
        Matrix::rows(&qkv[row * 3 * c + part * c + head * self.width()..], 3 * c)
    }
}

fn spans_and_heads(spans: &[Span], n_head: usize) -> impl Iterator<Item = (&Span, usize)> {
    spans.iter().flat_map(move |span| (0..n_head).map(move |head| (span, head)))
}

/// A block of queries of a span. Each query sees the span's prefix and the span's rows up to
/// itself.
struct Block<'a> {
    span: &'a Span,
    start: usize,
    end: usize,
}

impl<'a> Block<'a> {
    fn all(span: &'a Span) -> impl Iterator<Item = Self> {
        let end = span.rows.end;
        span.rows.clone().step_by(BLOCK).map(move |start| Block {
            span,
            start,
            end: (start + BLOCK).min(end),
        })
    }

    fn n_rows(&self) -> usize {
        self.end - self.start
    }

    /// Returns the number of keys that the last query of the block sees.
    fn n_keys(&self) -> usize {
        self.span.prefix.len() + self.end - self.span.rows.start
    }

    /// Returns the number of keys that query `i` of the block sees.
    fn n_visible(&self, i: usize) -> usize {
        self.span.prefix.len() + self.start + i + 1 - self.span.rows.start
    }

    /// Returns the ranges of rows of the keys, and the first column of the scores of each range.
    fn key_ranges(&self) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
        let prefix = self.span.prefix.clone();
        let column = prefix.len();
        [(0, prefix), (column, self.span.rows.start..self.end)]
            .into_iter()
            .filter(|r| !r.1.is_empty())
    }
}
