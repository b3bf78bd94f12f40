//! The backward pass on a GPU. It mirrors `compute/cpu/backward.rs`: the same functions with the
//! same names in the same order.

use crate::base::error::Result;
use crate::compute::gpu::attention::{self, Attention};
use crate::compute::gpu::card::{Operand, Product, Store};
use crate::compute::gpu::kernels::rows::{
    AddPartials, ColumnSums, EmbedBackward, GatherStored, GeluBackward, LayerNormAgain,
    LayerNormBackward, LayerNormSums, SUM_ROWS, ScatterSumResidual, ScatterSumStored,
};
use crate::compute::gpu::linear::linear_backward;
use crate::compute::gpu::lists::{Groups, KeyedGroups, Lists};
use crate::compute::gpu::pass::{Attend, GpuGradients, Pass, PendingSum, Upstream, no_forward};
use crate::compute::gpu::weights::{Param, Weights};
use crate::model::Affine;

/// A layer norm of the forward pass: the addresses of its input x (rows, C) and of its mean and
/// rstd (rows, 2).
#[derive(Clone, Copy)]
struct Norm<'a> {
    params: &'a Affine<Param>,
    x: u64,
    mean_rstd: u64,
    rows: usize,
}

impl Pass {
    /// Adds the gradient of scale (Σ dlogps · log π + Σ dends · ends) to `upstream.gradients`. The
    /// previous call must be the forward pass.
    pub(super) fn backward(&mut self, w: &Weights, upstream: Upstream<'_>) -> Result<()> {
        if !self.constant_grad {
            self.head(w, None, Some(upstream))?;
        }
        let lists = self.forwarded.take().ok_or_else(no_forward)?;
        self.final_norm_backward(w, &lists, upstream)?;
        for layer in (0..w.config.n_layer).rev() {
            if self.acts.len() < w.config.n_layer {
                let residual =
                    PendingSum { residual: self.residual[layer].address(), y: 0, y_bias: 0 };
                self.block_activations(w, &lists, layer, residual, &Attend::Pack)?;
            }
            self.block_backward(w, &lists, layer, upstream.gradients)?;
        }
        self.embed_backward(w, &lists, upstream.gradients)
    }

    /// Computes the gradient of the last block's output from the gradient of lnf.
    fn final_norm_backward(
        &mut self,
        w: &Weights,
        lists: &Lists,
        upstream: Upstream<'_>,
    ) -> Result<()> {
        let (card, c, s) = (&w.card, w.config.n_embd, w.dtypes.storage.bytes());
        let (r, n, all) = (lists.n_rows, lists.targets.len, lists.picked.len);
        let dends = self.dlnf.address() + (n * c * s) as u64;
        if upstream.dends.is_empty() {
            card.clear(dends, (all - n) * c * s)?;
        } else {
            let scaled: Vec<f32> = upstream.dends.iter().map(|d| d * upstream.scale).collect();
            card.write(dends, &w.dtypes.storage.encode(&scaled))?;
        }
        let dpicked = self.dresidual[0].sized(card, r.max(all) * c * 4)?;
        let dresidual3 = self.dresidual[1].sized(card, r.max(all) * c * 4)?;
        let stored = self.dresidual_stored.sized(card, r.max(all) * c * s)?;
        card.clear(dpicked, all * c * 4)?;
        let (x, mean_rstd) = (self.picked.address(), self.lnf_mean_rstd.address());
        let lnf = Norm { params: &w.params().lnf, x, mean_rstd, rows: all };
        self.layer_norm_backward(w, lnf, self.dlnf.address(), upstream.gradients)?;
        let [starts, order] = addresses(lists, lists.picked_by_needed);
        let n = lists.n_needed();
        w.launch(&ScatterSumResidual {
            out: dresidual3,
            stored,
            from: dpicked,
            starts,
            order,
            n,
            c,
        })?;
        self.dresidual.swap(0, 1);
        Ok(())
    }

    /// Computes the gradient of a block's input from that of its output, both in `dresidual[0]` and
    /// `dresidual_stored`.
    fn block_backward(
        &mut self,
        w: &Weights,
        lists: &Lists,
        layer: usize,
        gradients: &GpuGradients,
    ) -> Result<()> {
        let (card, config, s) = (&w.card, &w.config, w.dtypes.storage.bytes());
        let (r, c, h) = (lists.n_rows, config.n_embd, config.n_head);
        let block = w.block(layer);
        let gathers = layer + 1 == config.n_layer && lists.gathers();
        let n = if gathers { lists.needed.len } else { r };
        let ln2 = self.ln.sized(card, r * c * s)?;
        let dln2 = self.dln.sized(card, r * c * s)?;
        let dfch_gelu = self.dfch.sized(card, 4 * r * c * s)?;
        let dresidual_stored = self.dresidual_stored.address();
        let acts = &self.acts[layer % self.acts.len()];
        let (qkv, atty, lse, fch) =
            (acts.qkv.address(), acts.atty.address(), acts.lse.address(), acts.fch.address());
        let (residual, residual2) = (self.residual[layer].address(), acts.residual2.address());
        let norm1 = Norm {
            params: &block.ln1,
            x: residual,
            mean_rstd: acts.ln1_mean_rstd.address(),
            rows: r,
        };
        let norm2 = Norm {
            params: &block.ln2,
            x: residual2,
            mean_rstd: acts.ln2_mean_rstd.address(),
            rows: n,
        };

        linear_backward(w, &block.fcproj, dresidual_stored, n, dfch_gelu)?;
        // In place: dfch_gelu becomes dfch, and fch becomes fch_gelu.
        let (dfch, fch_gelu) = (dfch_gelu, fch);
        w.launch(&GeluBackward {
            dfch,
            fch,
            bias: w.f32_address(block.fc.bias()),
            rows: n,
            width: 4 * c,
        })?;
        self.weight_gradient(w, &block.fcproj, fch_gelu, dresidual_stored, n, gradients)?;
        norm2.again(w, ln2)?;
        self.weight_gradient(w, &block.fc, ln2, dfch, n, gradients)?;
        linear_backward(w, &block.fc, dfch, n, dln2)?;
        self.layer_norm_backward(w, norm2, dln2, gradients)?;

        // The rows of atty that attproj read.
        let mut needed_atty = atty;
        if gathers {
            needed_atty = self.needed_atty.sized(card, n * c * s)?;
            w.launch(&GatherStored {
                out: needed_atty,
                from: atty,
                rows: lists.address(lists.needed),
                n,
                c,
            })?;
        }
        self.weight_gradient(w, &block.attproj, needed_atty, dresidual_stored, n, gradients)?;
        let mut datty = dln2;
        linear_backward(w, &block.attproj, dresidual_stored, n, datty)?;
        if gathers {
            // Expands to all rows. The gradient of rows that are not needed is zero.
            let ([starts, order], needed_datty) = (addresses(lists, lists.needed_by_row), datty);
            datty = ln2;
            w.launch(&ScatterSumStored { out: datty, from: needed_datty, starts, order, n: r, c })?;
            let (from, out) =
                (self.dresidual[0].address(), self.dresidual[1].sized(card, r * c * 4)?);
            w.launch(&ScatterSumResidual { out, stored: 0, from, starts, order, n: r, c })?;
            self.dresidual.swap(0, 1);
        }
        let (dqkv, delta) = (dfch, self.delta.sized(card, r * h * 4)?);
        let backward = attention::Backward { dqkv, datty, atty, lse, qkv, delta };
        Attention::new(w, lists, layer).backward(backward)?;
        let (ln1, dln1) = (ln2, dln2);
        norm1.again(w, ln1)?;
        self.weight_gradient(w, &block.qkv, ln1, dqkv, r, gradients)?;
        linear_backward(w, &block.qkv, dqkv, r, dln1)?;
        self.layer_norm_backward(w, norm1, dln1, gradients)
    }

    /// Adds the gradients of both embeddings from that of the first block's input.
    fn embed_backward(
        &mut self,
        w: &Weights,
        lists: &Lists,
        gradients: &GpuGradients,
    ) -> Result<()> {
        let (dresidual, c) = (self.dresidual[0].address(), w.config.n_embd);
        for (param, KeyedGroups { keys, groups }) in
            [(w.params().wte, lists.by_id), (w.wpe(), lists.by_position)]
        {
            let [starts, order] = addresses(lists, groups);
            let (dembedding, n_keys) = (gradients.address_of(param), keys.len);
            let keys = lists.address(keys);
            w.launch(&EmbedBackward { dembedding, dresidual, keys, starts, order, c, n_keys })?;
        }
        Ok(())
    }

    /// Adds the gradients of a layer's weight and bias, from x (rows, in) and dout (rows, out).
    fn weight_gradient(
        &mut self,
        w: &Weights,
        layer: &Affine<Param>,
        x: u64,
        dout: u64,
        rows: usize,
        gradients: &GpuGradients,
    ) -> Result<()> {
        let Param { rows: n_in, columns: n_out, .. } = layer.weight;
        w.product(&Product {
            size: [n_in, n_out, rows],
            a: Operand::transposed(x, n_in),
            b: Operand::rows(dout, n_out),
            out: gradients.address_of(layer.weight),
            store: Store::AddF32,
        })?;
        let chunks = rows.div_ceil(SUM_ROWS);
        let partial = self.partial.sized(&w.card, chunks * n_out * 4)?;
        w.launch(&ColumnSums { partial, x: dout, rows, width: n_out })?;
        let out = gradients.address_of(layer.bias());
        w.launch(&AddPartials { out, partial, chunks, stride: n_out, offset: 0, width: n_out })
    }

    /// Adds the gradients of a layer norm's weight and bias to `gradients`, and that of its input
    /// to `dresidual[0]`, from dln (rows, C).
    fn layer_norm_backward(
        &mut self,
        w: &Weights,
        norm: Norm<'_>,
        dln: u64,
        gradients: &GpuGradients,
    ) -> Result<()> {
        let Norm { params, x, mean_rstd, rows } = norm;
        let (c, chunks) = (w.config.n_embd, rows.div_ceil(SUM_ROWS));
        let partial = self.partial.sized(&w.card, chunks * 2 * c * 4)?;
        w.launch(&LayerNormSums { partial, dln, x, mean_rstd, rows, c })?;
        for (param, offset) in [(params.weight, 0), (params.bias(), c)] {
            w.launch(&AddPartials {
                out: gradients.address_of(param),
                partial,
                chunks,
                stride: 2 * c,
                offset,
                width: c,
            })?;
        }
        let (dresidual, dresidual_stored) =
            (self.dresidual[0].address(), self.dresidual_stored.address());
        let weight = w.f32_address(params.weight);
        w.launch(&LayerNormBackward {
            dresidual,
            dresidual_stored,
            dln,
            x,
            mean_rstd,
            weight,
            rows,
            c,
        })
    }
}

impl Norm<'_> {
    /// Recomputes the output ln (rows, C).
    fn again(&self, w: &Weights, ln: u64) -> Result<()> {
        let Self { params, x, mean_rstd, rows } = *self;
        let (weight, bias) = (w.f32_address(params.weight), w.f32_address(params.bias()));
        w.launch(&LayerNormAgain { ln, x, mean_rstd, weight, bias, rows, c: w.config.n_embd })
    }
}

/// Returns the addresses of `starts` and `order`.
fn addresses(lists: &Lists, groups: Groups) -> [u64; 2] {
    [lists.address(groups.starts), lists.address(groups.order)]
}
