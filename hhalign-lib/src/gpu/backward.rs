//! The way back through the model.

use super::attention::Attention;
use super::calls::{at, each, int, kernel, linear_back, product};
use super::card::Operand;
use super::lists::{Groups, List, Lists};
use super::pass::{Attend, LAST_NORM, Pass, Pending, SUM_ROWS, Sums, no_forward};
use super::weights::{Part, Weights, Which};
use crate::error::Result;

impl Pass {
    /// Adds the gradient of Σ slopes · log π + Σ d_ends · ends, times `scale`, to `sums`; the forward pass came just before.
    /// No `d_ends` (E, C) at all stand for zeros.
    pub(super) fn backward(
        &mut self,
        w: &Weights,
        slopes: &[f32],
        d_ends: &[f32],
        scale: f32,
        sums: &Sums,
    ) -> Result<()> {
        if !self.known_slopes {
            self.head(w, None, Some((slopes, scale, sums)))?;
        }
        let (lists, numbers) = self.forwarded.take().ok_or_else(no_forward)?;
        let (card, c, s) = (&w.card, w.config.n_embd, w.numbers.storage.bytes());
        let list = |l: List| at(numbers + 4 * l.offset as u64);
        let (r, n, picked) = (lists.n_rows, lists.n_needed(), lists.picked.len);
        let behind_targets = self.d_hidden.at() + (lists.targets.len * c * s) as u64;
        if d_ends.is_empty() {
            card.clear(behind_targets, (picked - lists.targets.len) * c * s)?;
        } else {
            let scaled: Vec<f32> = d_ends.iter().map(|d| d * scale).collect();
            card.write(behind_targets, &w.numbers.storage.encode(&scaled))?;
        }
        let d_picked = self.d_stream[1].sized(card, r.max(picked) * c * 4)?;
        let d_stream = self.d_stream[0].sized(card, r.max(picked) * c * 4)?;
        let d_stored = self.d_stored.sized(card, r.max(picked) * c * s)?;
        card.clear(d_picked, picked * c * 4)?;
        let from = (self.d_hidden.at(), self.picked.at(), self.moments_f.at());
        self.norm_backward(w, LAST_NORM, from, picked, (d_picked, d_stored), sums)?;
        let Groups { starts, order } = lists.of_needed;
        let args = [at(d_stream), at(d_stored), at(d_picked), list(starts), list(order), int(n), int(c)];
        each(w, "spread_stream", n * c, &args)?;
        for layer in (0..w.config.n_layer).rev() {
            let slot = layer % self.kept.len();
            if self.kept.len() < w.config.n_layer {
                let x = self.stream[layer].at();
                self.block(w, &lists, numbers, layer, (slot, x), Pending { x, y: 0, bias: 0 }, &Attend::Pack)?;
            }
            self.block_backward(w, &lists, numbers, layer, slot, sums)?;
        }
        let d_stream = self.d_stream[0].at();
        for (which, (keys, Groups { starts, order })) in
            [(Which::Token, lists.by_id), (Which::Place, lists.by_position)]
        {
            let args = [at(sums.of(w, which)), at(d_stream), list(keys), list(starts), list(order), int(c)];
            kernel(w, "embed_backward", [keys.len, 1], 192, 0, &args)?;
        }
        Ok(())
    }

    /// From the gradient of the stream behind a block to that before it, both in `d_stream[0]` and stored in `d_stored`.
    fn block_backward(
        &mut self,
        w: &Weights,
        lists: &Lists,
        numbers: u64,
        layer: usize,
        slot: usize,
        sums: &Sums,
    ) -> Result<()> {
        let (card, config, s) = (&w.card, &w.config, w.numbers.storage.bytes());
        let (r, c, h) = (lists.n_rows, config.n_embd, config.n_head);
        let list = |l: List| at(numbers + 4 * l.offset as u64);
        let of = |part| Which::Block(layer, part);
        let gathers = layer + 1 == config.n_layer && lists.needed.len > 0;
        let n = if gathers { lists.needed.len } else { r };
        let (normal, d_narrow) = (self.normal.sized(card, r * c * s)?, self.d_narrow.sized(card, r * c * s)?);
        let d_wide = self.d_wide.sized(card, 4 * r * c * s)?;
        let (mut d_stream, d_stored) = (self.d_stream[0].at(), self.d_stored.at());
        let kept = &self.kept[slot];
        let (qkv, y, lse, middle, wide) = (kept.qkv.at(), kept.y.at(), kept.lse.at(), kept.middle.at(), kept.wide.at());
        let (moments_1, moments_2) = (kept.moments_1.at(), kept.moments_2.at());

        linear_back(w, of(Part::OutWeight), d_stored, n, [4 * c, c], d_wide)?;
        let bias = at(w.value(of(Part::FcBias)));
        each(w, "gelu_backward", 4 * n * c, &[at(d_wide), at(wide), bias, int(n), int(4 * c)])?;
        self.weight_gradient(w, layer, [Part::OutWeight, Part::OutBias], (wide, d_stored, n), [4 * c, c], sums)?;
        let norm_2 = [of(Part::Norm2Weight), of(Part::Norm2Bias)];
        Self::norm_again(w, norm_2, (normal, middle, moments_2), n)?;
        self.weight_gradient(w, layer, [Part::FcWeight, Part::FcBias], (normal, d_wide, n), [c, 4 * c], sums)?;
        linear_back(w, of(Part::FcWeight), d_wide, n, [c, 4 * c], d_narrow)?;
        self.norm_backward(w, norm_2, (d_narrow, middle, moments_2), n, (d_stream, d_stored), sums)?;

        let mut y_of_stream = y;
        if gathers {
            y_of_stream = self.needed_y.sized(card, n * c * s)?;
            each(w, "gather_stored", n * c, &[at(y_of_stream), at(y), list(lists.needed), int(n), int(c)])?;
        }
        self.weight_gradient(w, layer, [Part::ProjWeight, Part::ProjBias], (y_of_stream, d_stored, n), [c, c], sums)?;
        linear_back(w, of(Part::ProjWeight), d_stored, n, [c, c], d_narrow)?;
        let mut d_y = d_narrow;
        if gathers {
            // Back to all rows: nothing flows into those that did not go on.
            let Groups { starts, order } = lists.of_rows;
            d_y = normal;
            let args = [at(d_y), at(d_narrow), list(starts), list(order), int(r), int(c)];
            each(w, "spread_stored", r * c, &args)?;
            let spread = self.d_stream[1].sized(card, r * c * 4)?;
            let args = [at(spread), at(0), at(d_stream), list(starts), list(order), int(r), int(c)];
            each(w, "spread_stream", r * c, &args)?;
            self.d_stream.swap(0, 1);
            d_stream = spread;
        }
        let (d_qkv, delta) = (d_wide, self.delta.sized(card, r * h * 4)?);
        let (queries, keys) = (lists.queries(numbers), lists.keys(numbers));
        Attention::of(w, layer).backward(d_qkv, [d_y, y, delta, lse, qkv], r, queries, keys)?;
        let x = self.stream[layer].at();
        let norm_1 = [of(Part::Norm1Weight), of(Part::Norm1Bias)];
        Self::norm_again(w, norm_1, (normal, x, moments_1), r)?;
        self.weight_gradient(w, layer, [Part::QkvWeight, Part::QkvBias], (normal, d_qkv, r), [c, 3 * c], sums)?;
        linear_back(w, of(Part::QkvWeight), d_qkv, r, [c, 3 * c], d_narrow)?;
        self.norm_backward(w, norm_1, (d_narrow, x, moments_1), r, (d_stream, d_stored), sums)
    }

    fn norm_again(w: &Weights, norm: [Which; 2], (out, x, moments): (u64, u64, u64), rows: usize) -> Result<()> {
        let c = w.config.n_embd;
        let [weight, bias] = norm.map(|n| at(w.value(n)));
        each(w, "norm_again", rows * c, &[at(out), at(x), at(moments), weight, bias, int(rows), int(c)])
    }
    /// Gradients of a weight (in, out) and its bias, from x (R, in) and d (R, out).
    fn weight_gradient(
        &mut self,
        w: &Weights,
        layer: usize,
        [weight, bias]: [Part; 2],
        (x, d, rows): (u64, u64, usize),
        [n_in, n_out]: [usize; 2],
        sums: &Sums,
    ) -> Result<()> {
        let to = sums.of(w, Which::Block(layer, weight));
        let (a, b) = (Operand::transposed(x, n_in), Operand::rows(d, n_out));
        product(w, [n_in, n_out, rows], a, b, (to, true, true))?;
        let chunks = rows.div_ceil(SUM_ROWS);
        let partial = self.partial.sized(&w.card, chunks * n_out * 4)?;
        let grid = [n_out.div_ceil(128), chunks];
        kernel(w, "column_sums", grid, 256, 0, &[at(partial), at(d), int(rows), int(n_out)])?;
        Self::add_partials(w, sums.of(w, Which::Block(layer, bias)), partial, chunks, [n_out, 0, n_out])
    }

    fn add_partials(w: &Weights, to: u64, partial: u64, chunks: usize, [stride, offset, n]: [usize; 3]) -> Result<()> {
        let args = [at(to), at(partial), int(chunks), int(stride), int(offset), int(n)];
        kernel(w, "add_partials", [n.div_ceil(128), 1], 128, 0, &args)
    }

    /// Gradients of a layer norm's weight and bias, and of what it read, which is added to `d_stream`.
    fn norm_backward(
        &mut self,
        w: &Weights,
        [weight, bias]: [Which; 2],
        (d_normal, x, moments): (u64, u64, u64),
        rows: usize,
        (d_stream, d_stored): (u64, u64),
        sums: &Sums,
    ) -> Result<()> {
        let c = w.config.n_embd;
        let chunks = rows.div_ceil(SUM_ROWS);
        let partial = self.partial.sized(&w.card, chunks * 2 * c * 4)?;
        let args = [at(partial), at(d_normal), at(x), at(moments), int(rows), int(c)];
        kernel(w, "norm_sums", [c.div_ceil(128), chunks], 256, 0, &args)?;
        Self::add_partials(w, sums.of(w, weight), partial, chunks, [2 * c, 0, c])?;
        Self::add_partials(w, sums.of(w, bias), partial, chunks, [2 * c, c, c])?;
        let args =
            [at(d_stream), at(d_stored), at(d_normal), at(x), at(moments), at(w.value(weight)), int(rows), int(c)];
        kernel(w, "norm_backward", [rows.div_ceil(4), 1], 128, 0, &args)
    }
}
