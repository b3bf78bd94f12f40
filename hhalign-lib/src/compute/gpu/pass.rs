//! The forward pass on a GPU. It mirrors `compute/cpu/pass.rs`: the same functions with the same
//! names in the same order, and the same names of activations. There are three differences:
//!
//! - The kernel that reads a product adds the bias, and the kernel of a layer norm adds the
//!   residual sum before it, so that activations go through the card's memory fewer times. A block
//!   therefore ends with a [`PendingSum`].
//! - Rows can also attend to a cache, for decoding ([`Attend`]).
//! - Addresses replace slices, and lists of integers replace the pack.

use crate::base::error::{Error, Result};
use crate::compute::cpu::{Keep, TokenStats};
use crate::compute::gpu::attention::Attention;
pub use crate::compute::gpu::buffers::GpuGradients;
pub(super) use crate::compute::gpu::buffers::{BlockActivations, Cache, Upstream};
use crate::compute::gpu::card::GrowBuf;
use crate::compute::gpu::kernels::decode::{AttentionCached, CacheAppend};
use crate::compute::gpu::kernels::rows::{
    Embed, GatherResidual, GatherStored, GeluForward, ResidualAdd, ResidualLayerNorm,
};
use crate::compute::gpu::linear::linear;
use crate::compute::gpu::lists::Lists;
use crate::compute::gpu::weights::{Param, Weights};
use crate::data::packed::Packed;
use crate::model::Affine;

/// Buffers for passes, kept from one pass to the next.
#[derive(Default)]
pub(super) struct Pass {
    lists: GrowBuf,
    /// The input of each block, then the output of the last (residual3), (R, C) each in f32.
    pub(super) residual: Vec<GrowBuf>,
    /// The activations of each block, or of the current block only.
    pub(super) acts: Vec<BlockActivations>,
    /// Output of ln1, then of ln2, (R, C).
    pub(super) ln: GrowBuf,
    /// Output of attproj, then of fcproj, without their biases, (R, C).
    proj: GrowBuf,
    /// Output of the GELU, (R, 4C).
    fch_gelu: GrowBuf,
    /// The needed rows of the last block's attention output.
    pub(super) needed_atty: GrowBuf,
    /// The needed rows of the residual stream before the last block's attproj is added.
    needed_residual: GrowBuf,
    /// The rows of residual3 that predict a target, then those at the end of a reply, (N + E, C).
    pub(super) picked: GrowBuf,
    /// The final layer norm of `picked`, (N + E, C).
    pub(super) lnf: GrowBuf,
    pub(super) lnf_mean_rstd: GrowBuf,
    pub(super) logits: GrowBuf,
    pub(super) logps: GrowBuf,
    pub(super) right: GrowBuf,
    pub(super) entropy: GrowBuf,
    pub(super) dlogps: GrowBuf,
    pub(super) dlogits: GrowBuf,
    pub(super) dlnf: GrowBuf,
    /// The gradient of the residual stream in f32, (R, C), and a second buffer to exchange it with.
    pub(super) dresidual: [GrowBuf; 2],
    /// The gradient of the residual stream in the storage dtype, (R, C).
    pub(super) dresidual_stored: GrowBuf,
    /// The gradient of ln2, then of atty, then of ln1, (R, C).
    pub(super) dln: GrowBuf,
    /// The gradient of fch_gelu, then of fch, then of qkv, (R, 4C).
    pub(super) dfch: GrowBuf,
    pub(super) delta: GrowBuf,
    pub(super) partial: GrowBuf,
    /// The pack whose activations are stored here.
    pub(super) forwarded: Option<Lists>,
    /// Whether the forward pass has already run the head's backward pass.
    pub(super) constant_grad: bool,
    /// The number of targets in `lnf`.
    pub(super) n_targets: usize,
    /// The number of ends in `lnf`.
    n_ends: usize,
}

/// The keys and values that the rows of a pass attend to.
pub(super) enum Attend<'a> {
    /// Those of the rows of the same pack.
    Pack,
    /// Those of the rows of the same pack. They are also written to a cache.
    PackAndFill(&'a Cache),
    /// Those of each row's sequence in a cache, to which the row's own key and value are written
    /// first.
    Cache(&'a Cache),
}

/// A residual sum that the next kernel computes: residual + y + y_bias, or `residual` alone if the
/// address y is 0.
#[derive(Clone, Copy)]
pub(super) struct PendingSum {
    pub(super) residual: u64,
    pub(super) y: u64,
    pub(super) y_bias: u64,
}

/// Addresses of the outputs of a residual sum and its layer norm.
struct NormOutputs {
    sum: u64,
    ln: u64,
    mean_rstd: u64,
}

impl Pass {
    /// Computes log π of every target of a pack. With `constant_grad` the head's backward pass runs
    /// immediately.
    ///
    /// # Shapes
    /// N reply tokens -> (N)
    pub(super) fn forward(
        &mut self,
        w: &Weights,
        packed: &Packed,
        keep: Keep,
        stats: Option<&mut TokenStats>,
        constant_grad: Option<Upstream<'_>>,
    ) -> Result<Vec<f32>> {
        packed.check(w.config.vocab_size, w.config.block_size)?;
        self.hidden(w, Lists::new(packed, keep != Keep::Nothing), keep, &Attend::Pack)?;
        self.constant_grad = constant_grad.is_some();
        let logps = self.head(w, stats, constant_grad)?;
        if keep == Keep::Nothing {
            self.forwarded = None;
        }
        Ok(logps)
    }

    /// Returns the last hidden states at the ends of whole replies (E, C), from the preceding
    /// forward pass.
    pub(super) fn ends(&self, w: &Weights) -> Result<Vec<f32>> {
        let (c, storage) = (w.config.n_embd, w.dtypes.storage);
        let mut bytes = vec![0; self.n_ends * c * storage.bytes()];
        w.card
            .read(self.lnf.address() + (self.n_targets * c * storage.bytes()) as u64, &mut bytes)?;
        Ok(storage.decode(&bytes))
    }

    /// Computes the rows of lnf that predict a target or end a reply.
    pub(super) fn hidden(
        &mut self,
        w: &Weights,
        mut lists: Lists,
        keep: Keep,
        attend: &Attend<'_>,
    ) -> Result<()> {
        let n_layer = w.config.n_layer;
        self.forwarded = None;
        self.constant_grad = false;
        lists.upload(&w.card, &mut self.lists)?;
        self.residual
            .resize_with(if keep == Keep::Nothing { 1 } else { n_layer + 1 }, GrowBuf::default);
        self.acts.resize_with(
            if keep == Keep::Activations { n_layer } else { 1 },
            BlockActivations::default,
        );
        let mut residual = PendingSum { residual: self.embed(w, &lists)?, y: 0, y_bias: 0 };
        for layer in 0..n_layer {
            residual = self.block(w, &lists, layer, residual, attend)?;
        }
        self.final_norm(w, &lists, residual)?;
        self.forwarded = Some(lists);
        Ok(())
    }

    /// Computes the first block's input: the sum of both embeddings.
    fn embed(&mut self, w: &Weights, lists: &Lists) -> Result<u64> {
        let (rows, c) = (lists.n_rows, w.config.n_embd);
        let encoded = self.residual[0].sized(&w.card, rows * c * 4)?;
        w.launch(&Embed {
            encoded,
            wte: w.f32_address(w.params().wte),
            wpe: w.f32_address(w.wpe()),
            ids: lists.address(lists.ids),
            positions: lists.address(lists.positions),
            rows,
            c,
        })?;
        Ok(encoded)
    }

    /// Computes one block. Its output residual3 is the returned sum, which the next kernel
    /// computes.
    fn block(
        &mut self,
        w: &Weights,
        lists: &Lists,
        layer: usize,
        residual: PendingSum,
        attend: &Attend<'_>,
    ) -> Result<PendingSum> {
        let n = self.block_activations(w, lists, layer, residual, attend)?;
        let (block, c, s) = (w.block(layer), w.config.n_embd, w.dtypes.storage.bytes());
        let acts = &self.acts[layer % self.acts.len()];
        let (residual2, fch) = (acts.residual2.address(), acts.fch.address());
        let fch_gelu = self.fch_gelu.sized(&w.card, 4 * lists.n_rows * c * s)?;
        w.launch(&GeluForward {
            fch_gelu,
            fch,
            bias: w.f32_address(block.fc.bias()),
            rows: n,
            width: 4 * c,
        })?;
        let fcproj = self.proj.address();
        linear(w, &block.fcproj, fch_gelu, n, fcproj)?;
        Ok(PendingSum {
            residual: residual2,
            y: fcproj,
            y_bias: w.f32_address(block.fcproj.bias()),
        })
    }

    /// Computes a block up to the input of its GELU, which is all that its backward pass reads.
    /// Returns the number of rows of that input: in the last block, only the needed rows.
    pub(super) fn block_activations(
        &mut self,
        w: &Weights,
        lists: &Lists,
        layer: usize,
        pending: PendingSum,
        attend: &Attend<'_>,
    ) -> Result<usize> {
        let (card, config, s) = (&w.card, &w.config, w.dtypes.storage.bytes());
        let (r, c, h) = (lists.n_rows, config.n_embd, config.n_head);
        let (block, slot, from) =
            (w.block(layer), layer % self.acts.len(), layer % self.residual.len());
        // The pending sum becomes the block's input.
        let sum = self.residual[from].sized(card, r * c * 4)?;
        let residual = if pending.y == 0 { pending.residual } else { sum };
        let ln1 = self.ln.sized(card, r * c * s)?;
        let acts = &mut self.acts[slot];
        let ln1_mean_rstd = acts.ln1_mean_rstd.sized(card, r * 8)?;
        layer_norm(
            w,
            pending,
            &block.ln1,
            NormOutputs { sum, ln: ln1, mean_rstd: ln1_mean_rstd },
            r,
        )?;
        let qkv = acts.qkv.sized(card, 3 * r * c * s)?;
        linear(w, &block.qkv, ln1, r, qkv)?;
        let atty = acts.atty.sized(card, r * c * s)?;
        acts.lse.sized(card, r * h * 4)?;
        attention(w, lists, layer, acts, attend)?;
        // After the last attention, only some rows are needed.
        let (n, atty, residual) = if layer + 1 == config.n_layer && lists.gathers() {
            let (n, rows) = (lists.needed.len, lists.address(lists.needed));
            let needed_atty = self.needed_atty.sized(card, n * c * s)?;
            let needed_residual = self.needed_residual.sized(card, n * c * 4)?;
            w.launch(&GatherStored { out: needed_atty, from: atty, rows, n, c })?;
            w.launch(&GatherResidual { out: needed_residual, from: residual, rows, n, c })?;
            (n, needed_atty, needed_residual)
        } else {
            (r, atty, residual)
        };
        let attproj = self.proj.sized(card, r * c * s)?;
        linear(w, &block.attproj, atty, n, attproj)?;
        let acts = &mut self.acts[slot];
        let residual2 = acts.residual2.sized(card, r * c * 4)?;
        let (ln2, ln2_mean_rstd) = (ln1, acts.ln2_mean_rstd.sized(card, r * 8)?);
        let pending =
            PendingSum { residual, y: attproj, y_bias: w.f32_address(block.attproj.bias()) };
        layer_norm(
            w,
            pending,
            &block.ln2,
            NormOutputs { sum: residual2, ln: ln2, mean_rstd: ln2_mean_rstd },
            n,
        )?;
        let fch = acts.fch.sized(card, 4 * r * c * s)?;
        linear(w, &block.fc, ln2, n, fch)?;
        Ok(n)
    }

    /// Computes the final layer norm of the rows that predict a target or end a reply.
    fn final_norm(&mut self, w: &Weights, lists: &Lists, pending: PendingSum) -> Result<()> {
        let (card, c, s, n) =
            (&w.card, w.config.n_embd, w.dtypes.storage.bytes(), lists.n_needed());
        let last = w.config.n_layer % self.residual.len();
        let residual3 = self.residual[last].sized(card, n * c * 4)?;
        let PendingSum { residual, y, y_bias } = pending;
        w.launch(&ResidualAdd { sum: residual3, residual, y, y_bias, rows: n, c })?;
        let n = lists.picked.len;
        let picked = self.picked.sized(card, n * c * 4)?;
        w.launch(&GatherResidual {
            out: picked,
            from: residual3,
            rows: lists.address(lists.picked),
            n,
            c,
        })?;
        let (lnf, mean_rstd) =
            (self.lnf.sized(card, n * c * s)?, self.lnf_mean_rstd.sized(card, n * 8)?);
        let pending = PendingSum { residual: picked, y: 0, y_bias: 0 };
        layer_norm(
            w,
            pending,
            &w.params().lnf,
            NormOutputs { sum: picked, ln: lnf, mean_rstd },
            n,
        )?;
        (self.n_targets, self.n_ends) = (lists.targets.len, n - lists.targets.len);
        Ok(())
    }
}

/// Computes the pending residual sum and its layer norm.
fn layer_norm(
    w: &Weights,
    pending: PendingSum,
    norm: &Affine<Param>,
    out: NormOutputs,
    rows: usize,
) -> Result<()> {
    let (PendingSum { residual, y, y_bias }, NormOutputs { sum, ln, mean_rstd }) = (pending, out);
    w.launch(&ResidualLayerNorm {
        sum,
        ln,
        mean_rstd,
        residual,
        y,
        y_bias,
        weight: w.f32_address(norm.weight),
        bias: w.f32_address(norm.bias()),
        rows,
        c: w.config.n_embd,
        epsilon: w.config.layer_norm_epsilon as f32,
    })
}

/// Computes `atty` and `lse` of one layer from `qkv`, over the rows of the pack or over a cache.
fn attention(
    w: &Weights,
    lists: &Lists,
    layer: usize,
    acts: &BlockActivations,
    attend: &Attend<'_>,
) -> Result<()> {
    let (qkv, atty, lse) = (acts.qkv.address(), acts.atty.address(), acts.lse.address());
    let (heads, c, rows) = (w.config.n_head, w.config.n_embd, lists.n_rows);
    let (d, bias) = (c / heads, w.f32_address(w.block(layer).qkv.bias()));
    let (sequences, positions) = (lists.address(lists.sequences), lists.address(lists.positions));
    if let Attend::PackAndFill(cache) | Attend::Cache(cache) = attend {
        let capacity = cache.capacity;
        let cache = cache.layers[layer].address();
        w.launch(&CacheAppend { cache, qkv, bias, sequences, positions, rows, capacity, c })?;
    }
    match attend {
        Attend::Cache(cache) => w.launch(&AttentionCached {
            atty,
            qkv,
            bias,
            cache: cache.layers[layer].address(),
            sequences,
            positions,
            capacity: cache.capacity,
            heads,
            d,
            scale: 1.0 / (d as f32).sqrt(),
            rows,
        }),
        _ => Attention::new(w, lists, layer).forward(qkv, atty, lse),
    }
}

/// Makes the error of a backward pass without its forward pass.
pub(super) fn no_forward() -> Error {
    Error::new(
        "a backward pass must follow its forward pass",
        "no forward pass, or one that kept no activations",
        "call forward with the same pack and keep its activations",
    )
}
