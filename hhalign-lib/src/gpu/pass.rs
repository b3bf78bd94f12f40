//! One pass through the model and back on a GPU: [`crate::fused::Workspace`] once more, operation by operation.
//!
//! Biases are added where the next kernel reads a product's result, and the residual sum together with the layer norm that
//! follows it, so that the activations travel through the card's memory as seldom as possible.

use super::card::{Arg, Buffer, Launch, Operand, Product, Room, download};
use super::lists::{Groups, List, Lists};
use super::weights::{Part, Weights, Which};
use super::{Gpu, Storage};
use crate::error::{Error, Result};
use crate::fused::{Compute, Guesses, Keep, Packed};
use crate::gradients::Gradients;
use crate::model::Gpt;

/// Bytes of f32 logits that exist at once, at most.
pub(super) const LOGITS: usize = 256 << 20;
/// Rows that one block of the sums over rows adds up, as in `kernels/rows.cu`.
const SUM_ROWS: usize = 128;

/// What one block keeps for the way back; sizes as in [`crate::fused`].
#[derive(Default)]
struct Kept {
    moments_1: Room,
    qkv: Room,
    y: Room,
    lse: Room,
    middle: Room,
    moments_2: Room,
    wide: Room,
}

/// Memory for passes, kept from one to the next.
#[derive(Default)]
pub(super) struct Pass {
    lists: Room,
    /// The residual stream before each block and behind the last, (R, C) in f32.
    stream: Vec<Room>,
    kept: Vec<Kept>,
    normal: Room,
    narrow: Room,
    wide: Room,
    needed_x: Room,
    needed_y: Room,
    /// Rows that predict a target, then ends of replies: before and behind the last layer norm.
    picked: Room,
    hidden: Room,
    moments_f: Room,
    logits: Room,
    d_logits: Room,
    logps: Room,
    guesses: [Room; 2],
    slopes: Room,
    d_hidden: Room,
    d_stream: [Room; 2],
    d_stored: Room,
    d_narrow: Room,
    d_wide: Room,
    delta: Room,
    partial: Room,
    /// The pack whose activations are here, and its lists' address.
    forwarded: Option<(Lists, u64)>,
    known_slopes: bool,
}

/// The gradient of every parameter, on a card.
pub(super) struct Sums {
    pub(super) buffer: Buffer,
}

/// How the rows of a pass attend.
pub(super) enum Attend<'a> {
    /// To the rows of their own pack.
    Pack,
    /// As `Pack`, and keys and values are put into a cache.
    AndRemember(&'a Cache),
    /// Each row to its sequence in a cache, into which its own key and value are put first.
    Cache(&'a Cache),
}

/// Keys and values of earlier tokens, for each layer (sequences, room, 2C).
pub(super) struct Cache {
    pub(super) layers: Vec<Buffer>,
    pub(super) room: usize,
}

/// The residual sum that the next layer norm still has to make: x + y + bias.
struct Pending {
    x: u64,
    y: u64,
    bias: u64,
}

impl Pass {
    pub(super) fn kernel(
        w: &Weights,
        kernel: &'static str,
        grid: [usize; 2],
        block: u32,
        shared: usize,
        args: &[Arg],
    ) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        w.card.launch(w.numbers.storage, &Launch { kernel, grid, block, shared, args })
    }

    /// A kernel that goes over `n` numbers, four at a time.
    fn each(w: &Weights, kernel: &'static str, n: usize, args: &[Arg]) -> Result<()> {
        Self::kernel(w, kernel, [(n / 4).div_ceil(256).min(4096), 1], 256, 0, args)
    }

    /// `out (+)= a b` of stored numbers; nothing where there is nothing to add up.
    fn product(
        w: &Weights,
        size: [usize; 3],
        a: Operand,
        b: Operand,
        (out, wide, add): (u64, bool, bool),
    ) -> Result<()> {
        if size.contains(&0) {
            return Ok(());
        }
        w.card.product(w.numbers, &Product { size, a, b, out, out_row: size[1], wide, add })
    }

    /// x (R, in) by the weight (in, out) -> stored (R, out)
    fn linear(w: &Weights, which: Which, x: u64, rows: usize, [n_in, n_out]: [usize; 2], out: u64) -> Result<()> {
        let weight = Operand::rows(w.stored(which), n_out);
        Self::product(w, [rows, n_out, n_in], Operand::rows(x, n_in), weight, (out, false, false))
    }

    /// The way back: d (R, out) by the weight transposed -> stored (R, in)
    fn linear_back(w: &Weights, which: Which, d: u64, rows: usize, [n_in, n_out]: [usize; 2], out: u64) -> Result<()> {
        let weight = Operand::transposed(w.stored(which), n_out);
        Self::product(w, [rows, n_in, n_out], Operand::rows(d, n_out), weight, (out, false, false))
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
        Self::product(w, [n_in, n_out, rows], a, b, (to, true, true))?;
        let chunks = rows.div_ceil(SUM_ROWS);
        let partial = self.partial.sized(&w.card, chunks * n_out * 4)?;
        let grid = [n_out.div_ceil(128), chunks];
        Self::kernel(w, "column_sums", grid, 256, 0, &[at(partial), at(d), int(rows), int(n_out)])?;
        Self::add_partials(w, sums.of(w, Which::Block(layer, bias)), partial, chunks, [n_out, 0, n_out])
    }

    fn add_partials(w: &Weights, to: u64, partial: u64, chunks: usize, [stride, offset, n]: [usize; 3]) -> Result<()> {
        let args = [at(to), at(partial), int(chunks), int(stride), int(offset), int(n)];
        Self::kernel(w, "add_partials", [n.div_ceil(128), 1], 128, 0, &args)
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
        Self::kernel(w, "norm_sums", [c.div_ceil(128), chunks], 256, 0, &args)?;
        Self::add_partials(w, sums.of(w, weight), partial, chunks, [2 * c, 0, c])?;
        Self::add_partials(w, sums.of(w, bias), partial, chunks, [2 * c, c, c])?;
        let args =
            [at(d_stream), at(d_stored), at(d_normal), at(x), at(moments), at(w.value(weight)), int(rows), int(c)];
        Self::kernel(w, "norm_backward", [rows.div_ceil(4), 1], 128, 0, &args)
    }

    /// The sum that is pending, or a stream as it stands, and its layer norm.
    fn add_norm(
        w: &Weights,
        norm: [Which; 2],
        pending: &Pending,
        (sum, normal, moments): (u64, u64, u64),
        rows: usize,
    ) -> Result<()> {
        let (c, epsilon) = (w.config.n_embd, w.config.layer_norm_epsilon as f32);
        let [weight, bias] = norm.map(|n| at(w.value(n)));
        let Pending { x, y, bias: add } = *pending;
        let args = [
            at(sum),
            at(normal),
            at(moments),
            at(x),
            at(y),
            at(add),
            weight,
            bias,
            int(rows),
            int(c),
            Arg::Float(epsilon),
        ];
        Self::kernel(w, "add_norm", [rows.div_ceil(4), 1], 128, 0, &args)
    }

    /// From ids to the hidden rows that predict a target or end a reply.
    pub(super) fn run(&mut self, w: &Weights, lists: Lists, keep: Keep, attend: &Attend<'_>) -> Result<()> {
        let (card, config, s) = (&w.card, &w.config, w.numbers.storage.bytes());
        let (r, c, n_layer) = (lists.n_rows, config.n_embd, config.n_layer);
        self.forwarded = None;
        self.known_slopes = false;
        let numbers = self.lists.upload(card, &lists.numbers)?;
        let list = |l: List| at(numbers + 4 * l.offset as u64);
        self.stream.resize_with(if keep == Keep::Nothing { 1 } else { n_layer + 1 }, Room::default);
        self.kept.resize_with(if keep == Keep::Activations { n_layer } else { 1 }, Kept::default);
        let first = self.stream[0].sized(card, r * c * 4)?;
        let args = [
            at(first),
            at(w.value(Which::Token)),
            at(w.value(Which::Place)),
            list(lists.ids),
            list(lists.positions),
            int(r),
            int(c),
        ];
        Self::each(w, "embed", r * c, &args)?;
        let mut pending = Pending { x: first, y: 0, bias: 0 };
        for layer in 0..n_layer {
            let slot = layer % self.kept.len();
            let from = layer % self.stream.len();
            let sum = self.stream[from].sized(card, r * c * 4)?;
            pending = self.block(w, &lists, numbers, layer, (slot, sum), pending, attend)?;
        }
        let n = lists.n_needed();
        let last = n_layer % self.stream.len();
        let end = self.stream[last].sized(card, n * c * 4)?;
        Self::each(w, "add_rows", n * c, &[at(end), at(pending.x), at(pending.y), at(pending.bias), int(n), int(c)])?;
        let n = lists.picked.len;
        let picked = self.picked.sized(card, n * c * 4)?;
        Self::each(w, "gather_stream", n * c, &[at(picked), at(end), list(lists.picked), int(n), int(c)])?;
        let outs = (picked, self.hidden.sized(card, n * c * s)?, self.moments_f.sized(card, n * 8)?);
        Self::add_norm(w, LAST_NORM, &Pending { x: picked, y: 0, bias: 0 }, outs, n)?;
        self.forwarded = Some((lists, numbers));
        Ok(())
    }

    /// One block; what it leaves is the sum that the next one makes. Fills `kept[slot]`, and the stream before it at `sum`.
    #[allow(clippy::too_many_arguments)]
    fn block(
        &mut self,
        w: &Weights,
        lists: &Lists,
        numbers: u64,
        layer: usize,
        (slot, sum): (usize, u64),
        pending: Pending,
        attend: &Attend<'_>,
    ) -> Result<Pending> {
        let (card, config, s) = (&w.card, &w.config, w.numbers.storage.bytes());
        let (r, c, h) = (lists.n_rows, config.n_embd, config.n_head);
        let list = |l: List| at(numbers + 4 * l.offset as u64);
        let of = |part| Which::Block(layer, part);
        let normal = self.normal.sized(card, r * c * s)?;
        let narrow = self.narrow.sized(card, r * c * s)?;
        let kept = &mut self.kept[slot];
        let moments = kept.moments_1.sized(card, r * 8)?;
        let x = if pending.y == 0 { pending.x } else { sum };
        Self::add_norm(w, [of(Part::Norm1Weight), of(Part::Norm1Bias)], &pending, (sum, normal, moments), r)?;
        let qkv = kept.qkv.sized(card, 3 * r * c * s)?;
        Self::linear(w, of(Part::QkvWeight), normal, r, [c, 3 * c], qkv)?;
        let (y, lse) = (kept.y.sized(card, r * c * s)?, kept.lse.sized(card, r * h * 4)?);
        let (d, bias) = (c / h, at(w.value(of(Part::QkvBias))));
        let scale = Arg::Float(1.0 / (d as f32).sqrt());
        if let Attend::AndRemember(cache) | Attend::Cache(cache) = attend {
            let to = at(cache.layers[layer].at());
            let args =
                [to, at(qkv), bias, list(lists.sequences), list(lists.positions), int(r), int(cache.room), int(c)];
            Self::each(w, "remember", 2 * r * c, &args)?;
        }
        match attend {
            Attend::Cache(cache) => {
                let from = at(cache.layers[layer].at());
                let shared = (cache.room + d + 4 * d) * 4;
                let (sequences, positions) = (list(lists.sequences), list(lists.positions));
                let args = [at(y), at(qkv), bias, from, sequences, positions, int(cache.room), int(h), int(d), scale];
                Self::kernel(w, "attend", [r, h], 128, shared, &args)?;
            }
            _ => {
                let args = [at(y), at(lse), at(qkv), bias, list(lists.query_blocks), int(h), int(d), scale];
                let grid = [lists.query_blocks.len / 5, h];
                Self::kernel(w, "attention", grid, 128, 3 * 32 * (d + 1) * 4, &args)?;
            }
        }
        // Behind the last attention only some rows go on.
        let (n, y, x) = if layer + 1 == config.n_layer && lists.needed.len > 0 {
            let n = lists.needed.len;
            let (to_y, to_x) = (self.needed_y.sized(card, n * c * s)?, self.needed_x.sized(card, n * c * 4)?);
            Self::each(w, "gather_stored", n * c, &[at(to_y), at(y), list(lists.needed), int(n), int(c)])?;
            Self::each(w, "gather_stream", n * c, &[at(to_x), at(x), list(lists.needed), int(n), int(c)])?;
            (n, to_y, to_x)
        } else {
            (r, y, x)
        };
        Self::linear(w, of(Part::ProjWeight), y, n, [c, c], narrow)?;
        let kept = &mut self.kept[slot];
        let (middle, moments) = (kept.middle.sized(card, r * c * 4)?, kept.moments_2.sized(card, r * 8)?);
        let sum = Pending { x, y: narrow, bias: w.value(of(Part::ProjBias)) };
        Self::add_norm(w, [of(Part::Norm2Weight), of(Part::Norm2Bias)], &sum, (middle, normal, moments), n)?;
        let wide = kept.wide.sized(card, 4 * r * c * s)?;
        Self::linear(w, of(Part::FcWeight), normal, n, [c, 4 * c], wide)?;
        let active = self.wide.sized(card, 4 * r * c * s)?;
        let args = [at(active), at(wide), at(w.value(of(Part::FcBias))), int(n), int(4 * c)];
        Self::each(w, "gelu_forward", 4 * n * c, &args)?;
        Self::linear(w, of(Part::OutWeight), active, n, [4 * c, c], narrow)?;
        Ok(Pending { x: middle, y: narrow, bias: w.value(of(Part::OutBias)) })
    }

    /// Logits of some of the picked rows, in f32 with rows of the padded vocabulary.
    pub(super) fn logits(&mut self, w: &Weights, first: usize, n: usize) -> Result<u64> {
        let (c, v, s) = (w.config.n_embd, w.layout.vocab, w.numbers.storage.bytes());
        let logits = self.logits.sized(&w.card, n * v * 4)?;
        let rows = Operand::rows(self.hidden.at() + (first * c * s) as u64, c);
        let head = Operand::transposed(w.stored(Which::Token), c);
        Self::product(w, [n, v, c], rows, head, (logits, true, false))?;
        Ok(logits)
    }

    /// log π of every target; with slopes, also the head's way back.
    fn head(
        &mut self,
        w: &Weights,
        guesses: Option<&mut Guesses>,
        backward: Option<(&[f32], f32, &Sums)>,
    ) -> Result<Vec<f32>> {
        let (lists, numbers) = self.forwarded.take().ok_or_else(no_forward)?;
        let (card, c, v, s) = (&w.card, w.config.n_embd, w.layout.vocab, w.numbers.storage.bytes());
        let n = lists.targets.len;
        let chunk = (LOGITS / (4 * v)).clamp(1, 4096).min(n.max(1));
        let logps = self.logps.sized(card, n * 4)?;
        let [right, entropy] = match guesses {
            Some(_) => [self.guesses[0].sized(card, n * 4)?, self.guesses[1].sized(card, n * 4)?],
            None => [0, 0],
        };
        if let Some((slopes, ..)) = backward {
            self.slopes.upload(card, slopes)?;
            self.d_hidden.sized(card, lists.picked.len * c * s)?;
            self.d_logits.sized(card, chunk * v * s)?;
        }
        for first in (0..n).step_by(chunk) {
            let rows = chunk.min(n - first);
            let logits = self.logits(w, first, rows)?;
            let place = |base: u64| at(if base == 0 { 0 } else { base + 4 * first as u64 });
            let targets = at(numbers + 4 * (lists.targets.offset + first) as u64);
            let (slopes, d_logits) =
                if backward.is_some() { (place(self.slopes.at()), self.d_logits.at()) } else { (at(0), 0) };
            let scale = Arg::Float(backward.as_ref().map_or(1.0, |b| b.1));
            let outs = [place(logps), place(right), place(entropy), at(d_logits)];
            let [a, b, e, d] = outs;
            let args = [a, b, e, d, at(logits), targets, slopes, int(w.config.vocab_size), int(v), scale];
            Self::kernel(w, "log_probs", [rows, 1], 256, 0, &args)?;
            if let Some((_, _, sums)) = backward {
                let (d_hidden, hidden) = (self.d_hidden.at(), self.hidden.at());
                let from = (first * c * s) as u64;
                let (d, wte) = (Operand::rows(d_logits, v), Operand::rows(w.stored(Which::Token), c));
                Self::product(w, [rows, c, v], d, wte, (d_hidden + from, false, false))?;
                let (d, hidden) = (Operand::transposed(d_logits, v), Operand::rows(hidden + from, c));
                Self::product(w, [v, c, rows], d, hidden, (sums.of(w, Which::Token), true, true))?;
            }
        }
        let values = download(&**card, logps, n)?;
        if let Some(guesses) = guesses {
            guesses.right = download::<f32>(&**card, right, n)?.into_iter().map(|x| x > 0.5).collect();
            guesses.entropy = download(&**card, entropy, n)?;
        }
        self.forwarded = Some((lists, numbers));
        Ok(values)
    }

    /// log π of every target of a pack. With `known` slopes the head's way back is gone at once.
    pub(super) fn forward(
        &mut self,
        w: &Weights,
        packed: &Packed,
        keep: Keep,
        guesses: Option<&mut Guesses>,
        known: Option<(&[f32], f32, &Sums)>,
    ) -> Result<Vec<f32>> {
        packed.check(w.config.vocab_size, w.config.block_size)?;
        self.run(w, Lists::of(packed, keep != Keep::Nothing), keep, &Attend::Pack)?;
        let is_known = known.is_some();
        let logps = self.head(w, guesses, known)?;
        self.known_slopes = is_known;
        if keep == Keep::Nothing {
            self.forwarded = None;
        }
        Ok(logps)
    }

    /// Adds the gradient of Σ slopes · log π times `scale` to `sums`; the forward pass came just before.
    pub(super) fn backward(&mut self, w: &Weights, slopes: &[f32], scale: f32, sums: &Sums) -> Result<()> {
        if !self.known_slopes {
            self.head(w, None, Some((slopes, scale, sums)))?;
        }
        let (lists, numbers) = self.forwarded.take().ok_or_else(no_forward)?;
        let (card, c, s) = (&w.card, w.config.n_embd, w.numbers.storage.bytes());
        let list = |l: List| at(numbers + 4 * l.offset as u64);
        let (r, n, picked) = (lists.n_rows, lists.n_needed(), lists.picked.len);
        let ends = picked - lists.targets.len;
        if ends > 0 {
            // Rewards read the ends; nothing flows back from them here.
            card.clear(self.d_hidden.at() + (lists.targets.len * c * s) as u64, ends * c * s)?;
        }
        let d_picked = self.d_stream[1].sized(card, r.max(picked) * c * 4)?;
        let d_stream = self.d_stream[0].sized(card, r.max(picked) * c * 4)?;
        let d_stored = self.d_stored.sized(card, r.max(picked) * c * s)?;
        card.clear(d_picked, picked * c * 4)?;
        let from = (self.d_hidden.at(), self.picked.at(), self.moments_f.at());
        self.norm_backward(w, LAST_NORM, from, picked, (d_picked, d_stored), sums)?;
        let Groups { starts, order } = lists.of_needed;
        let args = [at(d_stream), at(d_stored), at(d_picked), list(starts), list(order), int(n), int(c)];
        Self::each(w, "spread_stream", n * c, &args)?;
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
            Self::kernel(w, "embed_backward", [keys.len, 1], 192, 0, &args)?;
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

        Self::linear_back(w, of(Part::OutWeight), d_stored, n, [4 * c, c], d_wide)?;
        let bias = at(w.value(of(Part::FcBias)));
        Self::each(w, "gelu_backward", 4 * n * c, &[at(d_wide), at(wide), bias, int(n), int(4 * c)])?;
        self.weight_gradient(w, layer, [Part::OutWeight, Part::OutBias], (wide, d_stored, n), [4 * c, c], sums)?;
        let norm_2 = [of(Part::Norm2Weight), of(Part::Norm2Bias)];
        Self::norm_again(w, norm_2, (normal, middle, moments_2), n)?;
        self.weight_gradient(w, layer, [Part::FcWeight, Part::FcBias], (normal, d_wide, n), [c, 4 * c], sums)?;
        Self::linear_back(w, of(Part::FcWeight), d_wide, n, [c, 4 * c], d_narrow)?;
        self.norm_backward(w, norm_2, (d_narrow, middle, moments_2), n, (d_stream, d_stored), sums)?;

        let mut y_of_stream = y;
        if gathers {
            y_of_stream = self.needed_y.sized(card, n * c * s)?;
            Self::each(w, "gather_stored", n * c, &[at(y_of_stream), at(y), list(lists.needed), int(n), int(c)])?;
        }
        self.weight_gradient(w, layer, [Part::ProjWeight, Part::ProjBias], (y_of_stream, d_stored, n), [c, c], sums)?;
        Self::linear_back(w, of(Part::ProjWeight), d_stored, n, [c, c], d_narrow)?;
        let mut d_y = d_narrow;
        if gathers {
            // Back to all rows: nothing flows into those that did not go on.
            let Groups { starts, order } = lists.of_rows;
            d_y = normal;
            let args = [at(d_y), at(d_narrow), list(starts), list(order), int(r), int(c)];
            Self::each(w, "spread_stored", r * c, &args)?;
            let spread = self.d_stream[1].sized(card, r * c * 4)?;
            let args = [at(spread), at(0), at(d_stream), list(starts), list(order), int(r), int(c)];
            Self::each(w, "spread_stream", r * c, &args)?;
            self.d_stream.swap(0, 1);
            d_stream = spread;
        }
        let (d, delta) = (c / h, self.delta.sized(card, r * h * 4)?);
        let d_qkv = d_wide;
        let delta_args = [at(delta), at(d_y), at(y), int(r), int(h), int(d)];
        Self::kernel(w, "attention_delta", [(r * h).div_ceil(4), 1], 128, 0, &delta_args)?;
        let (bias, scale) = (at(w.value(of(Part::QkvBias))), Arg::Float(1.0 / (d as f32).sqrt()));
        let shared = 4 * 32 * (d + 1) * 4;
        for (kernel, blocks, width) in
            [("attention_queries", lists.query_blocks, 5), ("attention_keys", lists.key_blocks, 3)]
        {
            let args = [at(d_qkv), at(d_y), at(delta), at(lse), at(qkv), bias, list(blocks), int(h), int(d), scale];
            Self::kernel(w, kernel, [blocks.len / width, h], 128, shared, &args)?;
        }
        let x = self.stream[layer].at();
        let norm_1 = [of(Part::Norm1Weight), of(Part::Norm1Bias)];
        Self::norm_again(w, norm_1, (normal, x, moments_1), r)?;
        self.weight_gradient(w, layer, [Part::QkvWeight, Part::QkvBias], (normal, d_qkv, r), [c, 3 * c], sums)?;
        Self::linear_back(w, of(Part::QkvWeight), d_qkv, r, [c, 3 * c], d_narrow)?;
        self.norm_backward(w, norm_1, (d_narrow, x, moments_1), r, (d_stream, d_stored), sums)
    }

    fn norm_again(w: &Weights, norm: [Which; 2], (out, x, moments): (u64, u64, u64), rows: usize) -> Result<()> {
        let c = w.config.n_embd;
        let [weight, bias] = norm.map(|n| at(w.value(n)));
        Self::each(w, "norm_again", rows * c, &[at(out), at(x), at(moments), weight, bias, int(rows), int(c)])
    }
}

const LAST_NORM: [Which; 2] = [Which::LastNormWeight, Which::LastNormBias];

impl Sums {
    pub(super) fn new(w: &Weights) -> Result<Self> {
        Ok(Self { buffer: Buffer::cleared(&w.card, w.layout.len * 4)? })
    }

    fn of(&self, w: &Weights, which: Which) -> u64 {
        self.buffer.at() + 4 * w.offset(which) as u64
    }
}

fn at(address: u64) -> Arg {
    Arg::At(address)
}

fn int(n: usize) -> Arg {
    Arg::Int(n as i32)
}

fn no_forward() -> Error {
    Error::new(
        "a backward pass needs its forward pass just before it",
        "no pass, or one that kept nothing",
        "call forward with the same pack and keep its activations",
    )
}

/// Passes over one model's weights on a GPU, for scoring and for tests; training runs them itself.
pub struct GpuPass {
    weights: Weights,
    pass: Pass,
}

/// The gradient of every parameter, on the GPU.
pub struct GpuGradients(Sums);

impl GpuPass {
    /// Copies a model's weights to the GPU.
    ///
    /// # Errors
    /// The GPU has no such precision or not enough memory, or its kernels do not fit the model.
    pub fn new(gpu: &Gpu, model: &Gpt, compute: &Compute) -> Result<Self> {
        let numbers = gpu.numbers(compute.precision, compute.tf32)?;
        Ok(Self { weights: Weights::new(gpu, model, numbers)?, pass: Pass::default() })
    }

    /// How activations are stored.
    pub fn storage(&self) -> Storage {
        self.weights.numbers.storage
    }

    /// As [`crate::fused::Workspace::forward`].
    ///
    /// # Errors
    /// An id or a position that the model does not have, or the GPU's memory is full.
    pub fn forward(&mut self, packed: &Packed, keep: Keep, guesses: Option<&mut Guesses>) -> Result<Vec<f32>> {
        self.pass.forward(&self.weights, packed, keep, guesses, None)
    }

    /// As [`crate::fused::Workspace::forward_known`].
    ///
    /// # Errors
    /// As [`GpuPass::forward`].
    pub fn forward_known(
        &mut self,
        packed: &Packed,
        keep: Keep,
        slopes: &[f32],
        gradients: &mut GpuGradients,
    ) -> Result<Vec<f32>> {
        check(slopes, packed)?;
        self.pass.forward(&self.weights, packed, keep, None, Some((slopes, 1.0, &gradients.0)))
    }

    /// Adds the gradient of Σ slopes · log π to `gradients`; the forward pass came just before.
    ///
    /// # Errors
    /// No such forward pass came before.
    pub fn backward(&mut self, packed: &Packed, slopes: &[f32], gradients: &mut GpuGradients) -> Result<()> {
        check(slopes, packed)?;
        self.pass.backward(&self.weights, slopes, 1.0, &gradients.0)
    }

    /// Zeros for every parameter.
    ///
    /// # Errors
    /// The GPU's memory is full.
    pub fn zeros(&self) -> Result<GpuGradients> {
        Ok(GpuGradients(Sums::new(&self.weights)?))
    }

    /// Gradients back on the processor.
    ///
    /// # Errors
    /// The GPU fails.
    pub fn download(&self, gradients: &GpuGradients) -> Result<Gradients> {
        let w = &self.weights;
        let all: Vec<f32> = download(&*w.card, gradients.0.buffer.at(), w.layout.len)?;
        Gradients::from_tensors(&w.config, &w.layout.scatter(&all)?)
    }
}

fn check(slopes: &[f32], packed: &Packed) -> Result<()> {
    if slopes.len() == packed.n_targets() {
        return Ok(());
    }
    let got = format!("{} slopes for {} targets", slopes.len(), packed.n_targets());
    Err(Error::new("the slopes do not fit the pack", got, "one gradient for each target"))
}
