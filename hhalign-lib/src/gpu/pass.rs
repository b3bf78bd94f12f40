//! One pass through the model and back on a GPU: [`crate::fused::Workspace`] once more, operation by operation.
//!
//! Biases are added where the next kernel reads a product's result, and the residual sum together with the layer norm that
//! follows it, so that the activations travel through the card's memory as seldom as possible.

use super::attention::Attention;
use super::calls::{at, each, int, kernel, linear, product};
use super::card::{Arg, Buffer, Operand, Room, download};
use super::lists::{List, Lists};
use super::weights::{Part, Weights, Which};
use crate::error::{Error, Result};
use crate::fused::{Guesses, Keep, Packed};

/// Bytes of f32 logits that exist at once, at most.
pub(super) const LOGITS: usize = 256 << 20;
/// Rows that one block of the sums over rows adds up, as in `kernels/rows.cu`.
pub(super) const SUM_ROWS: usize = 128;

/// What one block keeps for the way back; sizes as in [`crate::fused`].
#[derive(Default)]
pub(super) struct Kept {
    pub(super) moments_1: Room,
    pub(super) qkv: Room,
    pub(super) y: Room,
    pub(super) lse: Room,
    pub(super) middle: Room,
    pub(super) moments_2: Room,
    pub(super) wide: Room,
}

/// Memory for passes, kept from one to the next.
#[derive(Default)]
pub(super) struct Pass {
    pub(super) lists: Room,
    /// The residual stream before each block and behind the last, (R, C) in f32.
    pub(super) stream: Vec<Room>,
    pub(super) kept: Vec<Kept>,
    pub(super) normal: Room,
    pub(super) narrow: Room,
    pub(super) wide: Room,
    pub(super) needed_x: Room,
    pub(super) needed_y: Room,
    /// Rows that predict a target, then ends of replies: before and behind the last layer norm.
    pub(super) picked: Room,
    pub(super) hidden: Room,
    pub(super) moments_f: Room,
    pub(super) logits: Room,
    pub(super) d_logits: Room,
    pub(super) logps: Room,
    pub(super) guesses: [Room; 2],
    pub(super) slopes: Room,
    pub(super) d_hidden: Room,
    pub(super) d_stream: [Room; 2],
    pub(super) d_stored: Room,
    pub(super) d_narrow: Room,
    pub(super) d_wide: Room,
    pub(super) delta: Room,
    pub(super) partial: Room,
    /// The pack whose activations are here, and its lists' address.
    pub(super) forwarded: Option<(Lists, u64)>,
    pub(super) known_slopes: bool,
    /// Where in `hidden` the ends of whole replies begin, and how many there are.
    ends: (usize, usize),
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
pub(super) struct Pending {
    pub(super) x: u64,
    pub(super) y: u64,
    pub(super) bias: u64,
}

impl Pass {
    /// The sum that is pending, or a stream as it stands, and its layer norm.
    pub(super) fn add_norm(
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
        kernel(w, "add_norm", [rows.div_ceil(4), 1], 128, 0, &args)
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
        each(w, "embed", r * c, &args)?;
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
        each(w, "add_rows", n * c, &[at(end), at(pending.x), at(pending.y), at(pending.bias), int(n), int(c)])?;
        let n = lists.picked.len;
        let picked = self.picked.sized(card, n * c * 4)?;
        each(w, "gather_stream", n * c, &[at(picked), at(end), list(lists.picked), int(n), int(c)])?;
        let outs = (picked, self.hidden.sized(card, n * c * s)?, self.moments_f.sized(card, n * 8)?);
        Self::add_norm(w, LAST_NORM, &Pending { x: picked, y: 0, bias: 0 }, outs, n)?;
        self.ends = (lists.targets.len, n - lists.targets.len);
        self.forwarded = Some((lists, numbers));
        Ok(())
    }

    /// The last hidden states at the ends of whole replies (E, C), as the forward pass just before left them.
    pub(super) fn ends(&self, w: &Weights) -> Result<Vec<f32>> {
        let (c, storage, (first, n)) = (w.config.n_embd, w.numbers.storage, self.ends);
        let mut bytes = vec![0; n * c * storage.bytes()];
        w.card.read(self.hidden.at() + (first * c * storage.bytes()) as u64, &mut bytes)?;
        Ok(storage.decode(&bytes))
    }

    /// One block; what it leaves is the sum that the next one makes. Fills `kept[slot]`, and the stream before it at `sum`.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn block(
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
        linear(w, of(Part::QkvWeight), normal, r, [c, 3 * c], qkv)?;
        let (y, lse) = (kept.y.sized(card, r * c * s)?, kept.lse.sized(card, r * h * 4)?);
        let (d, bias) = (c / h, at(w.value(of(Part::QkvBias))));
        let scale = Arg::Float(1.0 / (d as f32).sqrt());
        if let Attend::AndRemember(cache) | Attend::Cache(cache) = attend {
            let to = at(cache.layers[layer].at());
            let args =
                [to, at(qkv), bias, list(lists.sequences), list(lists.positions), int(r), int(cache.room), int(c)];
            each(w, "remember", 2 * r * c, &args)?;
        }
        match attend {
            Attend::Cache(cache) => {
                let from = at(cache.layers[layer].at());
                let shared = (cache.room + d + 4 * d) * 4;
                let (sequences, positions) = (list(lists.sequences), list(lists.positions));
                let args = [at(y), at(qkv), bias, from, sequences, positions, int(cache.room), int(h), int(d), scale];
                kernel(w, "attend", [r, h], 128, shared, &args)?;
            }
            _ => {
                Attention::of(w, layer).forward([y, lse, qkv], lists.queries(numbers))?;
            }
        }
        // Behind the last attention only some rows go on.
        let (n, y, x) = if layer + 1 == config.n_layer && lists.needed.len > 0 {
            let n = lists.needed.len;
            let (to_y, to_x) = (self.needed_y.sized(card, n * c * s)?, self.needed_x.sized(card, n * c * 4)?);
            each(w, "gather_stored", n * c, &[at(to_y), at(y), list(lists.needed), int(n), int(c)])?;
            each(w, "gather_stream", n * c, &[at(to_x), at(x), list(lists.needed), int(n), int(c)])?;
            (n, to_y, to_x)
        } else {
            (r, y, x)
        };
        linear(w, of(Part::ProjWeight), y, n, [c, c], narrow)?;
        let kept = &mut self.kept[slot];
        let (middle, moments) = (kept.middle.sized(card, r * c * 4)?, kept.moments_2.sized(card, r * 8)?);
        let sum = Pending { x, y: narrow, bias: w.value(of(Part::ProjBias)) };
        Self::add_norm(w, [of(Part::Norm2Weight), of(Part::Norm2Bias)], &sum, (middle, normal, moments), n)?;
        let wide = kept.wide.sized(card, 4 * r * c * s)?;
        linear(w, of(Part::FcWeight), normal, n, [c, 4 * c], wide)?;
        let active = self.wide.sized(card, 4 * r * c * s)?;
        let args = [at(active), at(wide), at(w.value(of(Part::FcBias))), int(n), int(4 * c)];
        each(w, "gelu_forward", 4 * n * c, &args)?;
        linear(w, of(Part::OutWeight), active, n, [4 * c, c], narrow)?;
        Ok(Pending { x: middle, y: narrow, bias: w.value(of(Part::OutBias)) })
    }

    /// Logits of some of the picked rows, in f32 with rows of the padded vocabulary.
    pub(super) fn logits(&mut self, w: &Weights, first: usize, n: usize) -> Result<u64> {
        let (c, v, s) = (w.config.n_embd, w.layout.vocab, w.numbers.storage.bytes());
        let logits = self.logits.sized(&w.card, n * v * 4)?;
        let rows = Operand::rows(self.hidden.at() + (first * c * s) as u64, c);
        let head = Operand::transposed(w.stored(Which::Token), c);
        product(w, [n, v, c], rows, head, (logits, true, false))?;
        Ok(logits)
    }

    /// log π of every target; with slopes, also the head's way back.
    pub(super) fn head(
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
            kernel(w, "log_probs", [rows, 1], 256, 0, &args)?;
            if let Some((_, _, sums)) = backward {
                let (d_hidden, hidden) = (self.d_hidden.at(), self.hidden.at());
                let from = (first * c * s) as u64;
                let (d, wte) = (Operand::rows(d_logits, v), Operand::rows(w.stored(Which::Token), c));
                product(w, [rows, c, v], d, wte, (d_hidden + from, false, false))?;
                let (d, hidden) = (Operand::transposed(d_logits, v), Operand::rows(hidden + from, c));
                product(w, [v, c, rows], d, hidden, (sums.of(w, Which::Token), true, true))?;
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
}

pub(super) const LAST_NORM: [Which; 2] = [Which::LastNormWeight, Which::LastNormBias];

impl Sums {
    pub(super) fn new(w: &Weights) -> Result<Self> {
        Ok(Self { buffer: Buffer::cleared(&w.card, w.layout.len * 4)? })
    }

    pub(super) fn of(&self, w: &Weights, which: Which) -> u64 {
        self.buffer.at() + 4 * w.offset(which) as u64
    }
}

pub(super) fn no_forward() -> Error {
    Error::new(
        "a backward pass needs its forward pass just before it",
        "no pass, or one that kept nothing",
        "call forward with the same pack and keep its activations",
    )
}
