//! The forward pass on a GPU. It mirrors `fused/pass.rs`: the same functions in the same order, the same names for the same
//! activations. It differs in three places, each with a comment there:
//!
//! - A bias is added by the kernel that reads the product next, and a residual sum together with the layer norm after it, so
//!   that activations go through the card's memory fewer times. A block therefore ends with a sum that is [`Pending`].
//! - Rows attend to a cache as well, for decoding ([`Attend`]).
//! - Addresses take the place of slices, and lists of integers that of the pack.

use super::attention::Attention;
use super::card::{Buffer, GrowBuf, Operand, Product, Store, download};
use super::kernels::decode::{AttentionCached, CacheAppend};
use super::kernels::head::LogProbs;
use super::kernels::rows::{Embed, GatherResidual, GatherStored, GeluForward, ResidualAdd, ResidualLayerNorm};
use super::linear::linear;
use super::lists::{List, Lists};
use super::weights::{Param, Weights};
use crate::error::{Error, Result};
use crate::fused::{Keep, Packed, TokenStats};
use crate::model::Affine;

/// The most bytes of f32 logits that exist at once.
pub(super) const LOGITS: usize = 256 << 20;

/// Activations of a block that its backward pass reads. Shapes: R rows, width C, H heads.
#[derive(Default)]
pub(super) struct BlockActivations {
    /// Mean and rstd of each row, (R, 2).
    pub(super) ln1_mean_rstd: GrowBuf,
    /// Without its bias, (R, 3C).
    pub(super) qkv: GrowBuf,
    /// Output of attention, (R, C).
    pub(super) atty: GrowBuf,
    /// Log-sum-exp of the scores, (R, H).
    pub(super) lse: GrowBuf,
    /// The residual stream between attention and MLP, (R, C) in f32.
    pub(super) residual2: GrowBuf,
    /// (R, 2)
    pub(super) ln2_mean_rstd: GrowBuf,
    /// Input of the GELU without its bias, (R, 4C).
    pub(super) fch: GrowBuf,
}

/// Memory for passes, kept from one to the next.
#[derive(Default)]
pub(super) struct Pass {
    lists: GrowBuf,
    /// The input of each block, then the output of the last (residual3), (R, C) each in f32.
    pub(super) residual: Vec<GrowBuf>,
    /// Of each block, or of the one at work.
    pub(super) acts: Vec<BlockActivations>,
    /// Output of ln1, then of ln2, (R, C).
    pub(super) ln: GrowBuf,
    /// Output of attproj, then of fcproj, without their biases, (R, C).
    proj: GrowBuf,
    /// Output of the GELU, (R, 4C).
    fch_gelu: GrowBuf,
    /// Needed rows of the last block: output of attention, and the residual stream that it is added to.
    pub(super) needed_atty: GrowBuf,
    needed_residual: GrowBuf,
    /// Rows of residual3 that predict a target, then those at the end of a reply: before and after the last layer norm,
    /// (N + E, C).
    pub(super) picked: GrowBuf,
    pub(super) lnf: GrowBuf,
    pub(super) lnf_mean_rstd: GrowBuf,
    logits: GrowBuf,
    logps: GrowBuf,
    right: GrowBuf,
    entropy: GrowBuf,
    dlogps: GrowBuf,
    dlogits: GrowBuf,
    pub(super) dlnf: GrowBuf,
    /// The gradient of the residual stream in f32, (R, C), and its successor in the last block.
    pub(super) dresidual: [GrowBuf; 2],
    /// The gradient of the residual stream as products read it, (R, C).
    pub(super) dresidual_stored: GrowBuf,
    /// Gradients of ln2, atty and ln1 in turn, (R, C).
    pub(super) dln: GrowBuf,
    /// Gradients of fch_gelu, fch and qkv in turn, (R, 4C).
    pub(super) dfch: GrowBuf,
    pub(super) delta: GrowBuf,
    pub(super) partial: GrowBuf,
    /// The pack whose activations are here.
    pub(super) forwarded: Option<Lists>,
    /// Whether the forward pass ran the head's backward pass as well.
    pub(super) constant_grad: bool,
    /// Number of targets and of ends in `lnf`.
    n_targets: usize,
    n_ends: usize,
}

/// The gradient of every parameter, on the GPU.
pub struct GpuGradients {
    pub(super) buffer: Buffer,
}

/// The upstream gradients of a pass: of every log π (N) and of the ends (E, C); no dends at all are zeros.
#[derive(Clone, Copy)]
pub(super) struct Upstream<'a> {
    pub(super) dlogps: &'a [f32],
    pub(super) dends: &'a [f32],
    /// Multiplies both, so that f16 holds small gradients.
    pub(super) scale: f32,
    /// What the parameters' gradients are added to.
    pub(super) gradients: &'a GpuGradients,
}

/// What the rows of a pass attend to.
pub(super) enum Attend<'a> {
    /// The rows of their own pack.
    Pack,
    /// The rows of their own pack; their keys and values are written to a cache.
    PackAndFill(&'a Cache),
    /// Each row to its sequence in a cache, to which its own key and value are written first.
    Cache(&'a Cache),
}

/// Keys and values of earlier tokens, for each layer (sequences, capacity, 2C).
pub(super) struct Cache {
    pub(super) layers: Vec<Buffer>,
    pub(super) capacity: usize,
}

/// A residual sum that the next kernel makes: residual + y + y_bias; without y (0) it is `residual` itself.
#[derive(Clone, Copy)]
pub(super) struct Pending {
    pub(super) residual: u64,
    pub(super) y: u64,
    pub(super) y_bias: u64,
}

/// Where a layer norm writes its outputs, and the sum that it reads.
struct NormOutputs {
    sum: u64,
    ln: u64,
    mean_rstd: u64,
}

impl Pass {
    /// log π of every target of a pack. With `constant_grad` the head's backward pass runs immediately.
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
        self.hidden(w, Lists::of(packed, keep != Keep::Nothing), keep, &Attend::Pack)?;
        self.constant_grad = constant_grad.is_some();
        let logps = self.head(w, stats, constant_grad)?;
        if keep == Keep::Nothing {
            self.forwarded = None;
        }
        Ok(logps)
    }

    /// The last hidden states at the ends of whole replies (E, C), from the forward pass just before.
    pub(super) fn ends(&self, w: &Weights) -> Result<Vec<f32>> {
        let (c, storage) = (w.config.n_embd, w.dtypes.storage);
        let mut bytes = vec![0; self.n_ends * c * storage.bytes()];
        w.card.read(self.lnf.at() + (self.n_targets * c * storage.bytes()) as u64, &mut bytes)?;
        Ok(storage.decode(&bytes))
    }

    /// From ids to the rows of lnf that predict a target or end a reply.
    pub(super) fn hidden(&mut self, w: &Weights, mut lists: Lists, keep: Keep, attend: &Attend<'_>) -> Result<()> {
        let n_layer = w.config.n_layer;
        self.forwarded = None;
        self.constant_grad = false;
        lists.upload(&w.card, &mut self.lists)?;
        self.residual.resize_with(if keep == Keep::Nothing { 1 } else { n_layer + 1 }, GrowBuf::default);
        self.acts.resize_with(if keep == Keep::Activations { n_layer } else { 1 }, BlockActivations::default);
        let mut residual = Pending { residual: self.embed(w, &lists)?, y: 0, y_bias: 0 };
        for layer in 0..n_layer {
            residual = self.block(w, &lists, layer, residual, attend)?;
        }
        self.final_norm(w, &lists, residual)?;
        self.forwarded = Some(lists);
        Ok(())
    }

    /// The first block's input: the sum of both embeddings.
    fn embed(&mut self, w: &Weights, lists: &Lists) -> Result<u64> {
        let (rows, c) = (lists.n_rows, w.config.n_embd);
        let encoded = self.residual[0].sized(&w.card, rows * c * 4)?;
        w.launch(&Embed {
            encoded,
            wte: w.value(w.params().wte),
            wpe: w.value(w.wpe()),
            ids: lists.address(lists.ids),
            positions: lists.address(lists.positions),
            rows,
            c,
        })?;
        Ok(encoded)
    }

    /// One block. Its output residual3 is the sum that the next kernel makes.
    fn block(
        &mut self,
        w: &Weights,
        lists: &Lists,
        layer: usize,
        residual: Pending,
        attend: &Attend<'_>,
    ) -> Result<Pending> {
        let n = self.block_activations(w, lists, layer, residual, attend)?;
        let (block, c, s) = (w.block(layer), w.config.n_embd, w.dtypes.storage.bytes());
        let acts = &self.acts[layer % self.acts.len()];
        let (residual2, fch) = (acts.residual2.at(), acts.fch.at());
        let fch_gelu = self.fch_gelu.sized(&w.card, 4 * lists.n_rows * c * s)?;
        w.launch(&GeluForward { fch_gelu, fch, bias: w.value(block.fc.bias()), rows: n, width: 4 * c })?;
        let fcproj = self.proj.at();
        linear(w, &block.fcproj, fch_gelu, n, fcproj)?;
        Ok(Pending { residual: residual2, y: fcproj, y_bias: w.value(block.fcproj.bias()) })
    }

    /// A block up to the input of its GELU: what its backward pass reads. Returns the number of rows that continue.
    pub(super) fn block_activations(
        &mut self,
        w: &Weights,
        lists: &Lists,
        layer: usize,
        pending: Pending,
        attend: &Attend<'_>,
    ) -> Result<usize> {
        let (card, config, s) = (&w.card, &w.config, w.dtypes.storage.bytes());
        let (r, c, h) = (lists.n_rows, config.n_embd, config.n_head);
        let (block, slot, from) = (w.block(layer), layer % self.acts.len(), layer % self.residual.len());
        // The sum that is pending becomes the block's input.
        let sum = self.residual[from].sized(card, r * c * 4)?;
        let residual = if pending.y == 0 { pending.residual } else { sum };
        let ln1 = self.ln.sized(card, r * c * s)?;
        let acts = &mut self.acts[slot];
        let ln1_mean_rstd = acts.ln1_mean_rstd.sized(card, r * 8)?;
        layer_norm(w, pending, &block.ln1, NormOutputs { sum, ln: ln1, mean_rstd: ln1_mean_rstd }, r)?;
        let qkv = acts.qkv.sized(card, 3 * r * c * s)?;
        linear(w, &block.qkv, ln1, r, qkv)?;
        let atty = acts.atty.sized(card, r * c * s)?;
        acts.lse.sized(card, r * h * 4)?;
        attention(w, lists, layer, acts, attend)?;
        // Only some rows continue after the last attention.
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
        let pending = Pending { residual, y: attproj, y_bias: w.value(block.attproj.bias()) };
        layer_norm(w, pending, &block.ln2, NormOutputs { sum: residual2, ln: ln2, mean_rstd: ln2_mean_rstd }, n)?;
        let fch = acts.fch.sized(card, 4 * r * c * s)?;
        linear(w, &block.fc, ln2, n, fch)?;
        Ok(n)
    }

    /// The last layer norm, of the rows that predict a target or end a reply.
    fn final_norm(&mut self, w: &Weights, lists: &Lists, pending: Pending) -> Result<()> {
        let (card, c, s, n) = (&w.card, w.config.n_embd, w.dtypes.storage.bytes(), lists.n_needed());
        let last = w.config.n_layer % self.residual.len();
        let residual3 = self.residual[last].sized(card, n * c * 4)?;
        let Pending { residual, y, y_bias } = pending;
        w.launch(&ResidualAdd { sum: residual3, residual, y, y_bias, rows: n, c })?;
        let n = lists.picked.len;
        let picked = self.picked.sized(card, n * c * 4)?;
        w.launch(&GatherResidual { out: picked, from: residual3, rows: lists.address(lists.picked), n, c })?;
        let (lnf, mean_rstd) = (self.lnf.sized(card, n * c * s)?, self.lnf_mean_rstd.sized(card, n * 8)?);
        let pending = Pending { residual: picked, y: 0, y_bias: 0 };
        layer_norm(w, pending, &w.params().lnf, NormOutputs { sum: picked, ln: lnf, mean_rstd }, n)?;
        (self.n_targets, self.n_ends) = (lists.targets.len, n - lists.targets.len);
        Ok(())
    }

    /// log π of every target; with `upstream`, also the gradients of lnf and of the head's weight.
    pub(super) fn head(
        &mut self,
        w: &Weights,
        stats: Option<&mut TokenStats>,
        upstream: Option<Upstream<'_>>,
    ) -> Result<Vec<f32>> {
        let lists = self.forwarded.take().ok_or_else(no_forward)?;
        let (card, c, s, wte) = (&w.card, w.config.n_embd, w.dtypes.storage.bytes(), w.params().wte);
        let (v, stride, n) = (w.config.vocab_size, w.layout.vocab, lists.targets.len);
        let chunk = (LOGITS / (4 * stride)).clamp(1, 4096).min(n.max(1));
        let logps = self.logps.sized(card, n * 4)?;
        let [right, entropy] = match stats {
            Some(_) => [self.right.sized(card, n * 4)?, self.entropy.sized(card, n * 4)?],
            None => [0, 0],
        };
        let [mut dlogps, mut dlogits, mut dlnf] = [0; 3];
        if let Some(upstream) = upstream {
            dlogps = self.dlogps.upload(card, upstream.dlogps)?;
            dlnf = self.dlnf.sized(card, lists.picked.len * c * s)?;
            dlogits = self.dlogits.sized(card, chunk * stride * s)?;
        }
        let scale = upstream.map_or(1.0, |upstream| upstream.scale);
        // Logits exist for a chunk of rows at a time.
        for first in (0..n).step_by(chunk) {
            let rows = chunk.min(n - first);
            let logits = self.logits(w, first, rows)?;
            // Null pointers stay null.
            let from = |list: u64| if list == 0 { 0 } else { list + 4 * first as u64 };
            w.launch(&LogProbs {
                logps: from(logps),
                right: from(right),
                entropy: from(entropy),
                dlogits,
                logits,
                targets: lists.address(List { offset: lists.targets.offset + first, len: rows }),
                dlogps: from(dlogps),
                v,
                stride,
                scale,
                n: rows,
            })?;
            if let Some(upstream) = upstream {
                let offset = (first * c * s) as u64;
                w.product(&Product {
                    size: [rows, c, stride],
                    a: Operand::rows(dlogits, stride),
                    b: Operand::rows(w.stored(wte), c),
                    out: dlnf + offset,
                    store: Store::Stored,
                })?;
                w.product(&Product {
                    size: [stride, c, rows],
                    a: Operand::transposed(dlogits, stride),
                    b: Operand::rows(self.lnf.at() + offset, c),
                    out: upstream.gradients.of(wte),
                    store: Store::AddF32,
                })?;
            }
        }
        let values = download(&**card, logps, n)?;
        if let Some(stats) = stats {
            stats.right = download::<f32>(&**card, right, n)?.into_iter().map(|x| x > 0.5).collect();
            stats.entropy = download(&**card, entropy, n)?;
        }
        self.forwarded = Some(lists);
        Ok(values)
    }

    /// Logits of `n` rows of lnf from `first` on, in f32 with rows of the padded vocabulary.
    pub(super) fn logits(&mut self, w: &Weights, first: usize, n: usize) -> Result<u64> {
        let (c, stride, s) = (w.config.n_embd, w.layout.vocab, w.dtypes.storage.bytes());
        let logits = self.logits.sized(&w.card, n * stride * 4)?;
        w.product(&Product {
            size: [n, stride, c],
            a: Operand::rows(self.lnf.at() + (first * c * s) as u64, c),
            b: Operand::transposed(w.stored(w.params().wte), c),
            out: logits,
            store: Store::F32,
        })?;
        Ok(logits)
    }

    /// Logits of all targets of the forward pass just before, (N, V): some rows at a time through the card's memory.
    pub(super) fn target_logits(&mut self, w: &Weights) -> Result<Vec<f32>> {
        let (n, v, stride) = (self.n_targets, w.config.vocab_size, w.layout.vocab);
        let chunk = (LOGITS / (4 * stride)).clamp(1, 4096);
        let mut all = Vec::with_capacity(n * v);
        for first in (0..n).step_by(chunk) {
            let rows = chunk.min(n - first);
            let logits = self.logits(w, first, rows)?;
            let padded: Vec<f32> = download(&*w.card, logits, rows * stride)?;
            all.extend(padded.chunks_exact(stride).flat_map(|row| &row[..v]));
        }
        Ok(all)
    }
}

/// The residual sum that is pending, and its layer norm.
fn layer_norm(w: &Weights, pending: Pending, norm: &Affine<Param>, out: NormOutputs, rows: usize) -> Result<()> {
    let (Pending { residual, y, y_bias }, NormOutputs { sum, ln, mean_rstd }) = (pending, out);
    w.launch(&ResidualLayerNorm {
        sum,
        ln,
        mean_rstd,
        residual,
        y,
        y_bias,
        weight: w.value(norm.weight),
        bias: w.value(norm.bias()),
        rows,
        c: w.config.n_embd,
        epsilon: w.config.layer_norm_epsilon as f32,
    })
}

/// Attention of one layer to the rows of the pack, or to a cache: `atty` and `lse` from `qkv`.
fn attention(w: &Weights, lists: &Lists, layer: usize, acts: &BlockActivations, attend: &Attend<'_>) -> Result<()> {
    let (qkv, atty, lse) = (acts.qkv.at(), acts.atty.at(), acts.lse.at());
    let (heads, c, rows) = (w.config.n_head, w.config.n_embd, lists.n_rows);
    let (d, bias) = (c / heads, w.value(w.block(layer).qkv.bias()));
    let (sequences, positions) = (lists.address(lists.sequences), lists.address(lists.positions));
    if let Attend::PackAndFill(cache) | Attend::Cache(cache) = attend {
        let capacity = cache.capacity;
        let cache = cache.layers[layer].at();
        w.launch(&CacheAppend { cache, qkv, bias, sequences, positions, rows, capacity, c })?;
    }
    match attend {
        Attend::Cache(cache) => w.launch(&AttentionCached {
            atty,
            qkv,
            bias,
            cache: cache.layers[layer].at(),
            sequences,
            positions,
            capacity: cache.capacity,
            heads,
            d,
            scale: 1.0 / (d as f32).sqrt(),
            rows,
        }),
        _ => Attention::of(w, lists, layer).forward(qkv, atty, lse),
    }
}

impl GpuGradients {
    /// Zeros for every parameter.
    pub(super) fn zeros(w: &Weights) -> Result<Self> {
        Ok(Self { buffer: Buffer::cleared(&w.card, w.layout.len * 4)? })
    }

    /// The address of a parameter's gradient.
    pub(super) fn of(&self, param: Param) -> u64 {
        self.buffer.at() + 4 * param.offset as u64
    }
}

/// The error of a backward pass without its forward pass.
pub(super) fn no_forward() -> Error {
    Error::new(
        "a backward pass needs its forward pass just before it",
        "no pass, or one that kept nothing",
        "call forward with the same pack and keep its activations",
    )
}
