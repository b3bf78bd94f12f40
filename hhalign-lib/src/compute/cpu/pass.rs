//! The forward pass over packed rows and plain slices.
//!
//! The formulas are those of [`crate::model::Gpt::hidden`] and of its automatic differentiation.
//! The forward pass keeps the values that are expensive to recompute: inputs of blocks, queries,
//! keys and values, outputs of attention, inputs of the GELU. The backward pass recomputes layer
//! norms and the GELU.
//!
//! Activations have the names of llm.c; gradients have the prefix `d`. `compute/gpu/pass.rs`
//! mirrors this file: the same functions with the same names in the same order.

use crate::base::error::{Error, Result};
use crate::compute::cpu::attention::{Attention, ScoreBuffers};
use crate::compute::cpu::gelu::{gelu, init_rows};
use crate::compute::cpu::gemm::Store;
use crate::compute::cpu::head::{self, TokenStats};
use crate::compute::cpu::norm::{MeanRstd, layer_norm};
use crate::compute::cpu::products::{Products, Weight};
use crate::compute::cpu::vector::sized;
use crate::compute::cpu::weights::{Purpose, Weights, embed};
use crate::compute::gradients::Gradients;
use crate::data::packed::Packed;
use crate::model::Affine;

/// Activations of a block that its backward pass reads. Shapes: R rows, width C, H heads.
#[derive(Default)]
pub(super) struct BlockActivations {
    pub(super) ln1_mean_rstd: MeanRstd,
    /// (R, 3C)
    pub(super) qkv: Vec<f32>,
    /// Output of attention, (R, C).
    pub(super) atty: Vec<f32>,
    /// Log-sum-exp of the scores, (R, H).
    pub(super) lse: Vec<f32>,
    /// The residual stream between attention and MLP, (R, C).
    pub(super) residual2: Vec<f32>,
    pub(super) ln2_mean_rstd: MeanRstd,
    /// Input of the GELU, (R, 4C).
    pub(super) fch: Vec<f32>,
}

/// Buffers for passes, kept from one pass to the next.
#[derive(Default)]
pub struct Workspace {
    pub(super) products: Products,
    pub(super) scores: ScoreBuffers,
    /// The input of each block, then the output of the last (residual3), (R, C) each.
    pub(super) residual: Vec<Vec<f32>>,
    /// The activations of each block, or of the current block only.
    pub(super) acts: Vec<BlockActivations>,
    /// Output of ln1, then of ln2, (R, C).
    pub(super) ln: Vec<f32>,
    /// Output of the GELU, (R, 4C).
    fch_gelu: Vec<f32>,
    /// The needed rows of the last block's attention output.
    pub(super) needed_atty: Vec<f32>,
    /// The needed rows of the residual stream before the last block's attproj is added.
    pub(super) needed_residual: Vec<f32>,
    /// The rows of residual3 that predict a target, then those at the end of a reply, (N + E, C).
    pub(super) picked: Vec<f32>,
    /// The final layer norm of `picked`, (N + E, C).
    pub(super) lnf: Vec<f32>,
    pub(super) lnf_mean_rstd: MeanRstd,
    pub(super) dlnf: Vec<f32>,
    /// The gradient of the residual stream, (R, C).
    pub(super) dresidual: Vec<f32>,
    /// The gradient of ln2, then of atty, then of ln1, (R, C).
    pub(super) dln: Vec<f32>,
    /// The gradient of fch_gelu, then of fch, then of qkv, (R, 4C).
    pub(super) dfch: Vec<f32>,
    /// The upstream gradient, if the forward pass has already run the head's backward pass.
    pub(super) constant_grad: Option<Vec<f32>>,
    /// The fingerprint of the pack whose activations are stored here.
    pub(super) forwarded: Option<u64>,
}

/// The activations that a forward pass keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// None, for scoring.
    Nothing,
    /// All that a backward pass needs.
    Activations,
    /// Only the input of each block. The backward pass computes the rest again: a third more work,
    /// and far less memory.
    BlockInputs,
}

/// The upstream gradient of every log π (N), and the gradient of the head's weight (V, C), which is
/// accumulated.
pub(super) struct HeadGradients<'a> {
    pub(super) dlogps: &'a [f32],
    pub(super) dwte: &'a mut [f32],
}

impl Workspace {
    /// Computes log π of every target of `packed`. `stats` receives statistics of the model's
    /// predictions.
    ///
    /// # Shapes
    /// N reply tokens -> (N)
    ///
    /// # Errors
    /// The model does not have an id or a position.
    pub fn forward(
        &mut self,
        weights: &Weights<'_>,
        packed: &Packed,
        keep: Keep,
        stats: Option<&mut TokenStats>,
    ) -> Result<Vec<f32>> {
        self.hidden(weights, packed, keep)?;
        Ok(self.head(weights, packed, stats, None))
    }

    /// Runs [`Workspace::forward`] for a loss whose gradient with respect to each log π does not
    /// depend on log π, such as a mean. The head's backward pass runs immediately, which saves
    /// recomputing the logits. [`Workspace::backward`] must follow with the same `dlogps`.
    ///
    /// # Shapes
    /// dlogps (N) -> (N)
    ///
    /// # Errors
    /// The model does not have an id or a position, or `dlogps` or `gradients` do not fit.
    pub fn forward_constant_grad(
        &mut self,
        weights: &Weights<'_>,
        packed: &Packed,
        keep: Keep,
        stats: Option<&mut TokenStats>,
        dlogps: &[f32],
        gradients: &mut Gradients,
    ) -> Result<Vec<f32>> {
        check_lengths(weights, packed, dlogps, gradients)?;
        self.hidden(weights, packed, keep)?;
        self.constant_grad = Some(dlogps.to_vec());
        let dwte = &mut gradients.values_mut().wte;
        Ok(self.head(weights, packed, stats, Some(HeadGradients { dlogps, dwte })))
    }

    /// Returns the last hidden states at the ends of whole replies, from the preceding forward
    /// pass.
    ///
    /// # Shapes
    /// (E, C)
    pub fn ends(&self, weights: &Weights<'_>, packed: &Packed) -> &[f32] {
        let c = weights.config.n_embd;
        &self.lnf[packed.n_targets() * c..][..packed.n_ends() * c]
    }

    /// Computes the rows of lnf that predict a target or end a reply.
    fn hidden(&mut self, weights: &Weights<'_>, packed: &Packed, keep: Keep) -> Result<()> {
        let config = weights.config;
        self.forwarded = None;
        self.constant_grad = None;
        packed.check(config.vocab_size, config.block_size)?;
        if keep != Keep::Nothing && weights.purpose != Purpose::Train {
            return Err(Error::new(
                "these weights are not laid out for a backward pass",
                format!("{:?}", weights.purpose),
                "lend them with Purpose::Train",
            ));
        }
        let n_layer = config.n_layer;
        self.products.bf16 = weights.bf16;
        // If nothing is kept, input and output of a block alternate between two buffers.
        self.residual.resize_with(if keep == Keep::Nothing { 2 } else { n_layer + 1 }, Vec::new);
        self.acts.resize_with(
            if keep == Keep::Activations { n_layer } else { 1 },
            BlockActivations::default,
        );
        self.embed(weights, packed);
        for layer in 0..n_layer {
            self.block(weights, packed, layer);
        }
        self.final_norm(weights, packed);
        if keep != Keep::Nothing {
            self.forwarded = Some(packed.fingerprint());
        }
        Ok(())
    }

    /// Computes the first block's input: the sum of both embeddings.
    fn embed(&mut self, weights: &Weights<'_>, packed: &Packed) {
        let (r, c) = (packed.n_rows(), weights.config.n_embd);
        let encoded = sized(&mut self.residual[0], r * c);
        for ((row, &id), &position) in
            encoded.chunks_exact_mut(c).zip(&packed.ids).zip(&packed.positions)
        {
            embed(&weights.parameters, id, position, row);
        }
    }

    /// Computes one block.
    fn block(&mut self, weights: &Weights<'_>, packed: &Packed, layer: usize) {
        let n = self.block_activations(weights, packed, layer);
        let (block, c) = (&weights.parameters.blocks[layer], weights.config.n_embd);
        let (acts, to) = (layer % self.acts.len(), (layer + 1) % self.residual.len());
        let acts = &self.acts[acts];
        let (residual2, fch) = (&acts.residual2[..n * c], &acts.fch[..4 * n * c]);
        let fch_gelu = sized(&mut self.fch_gelu, 4 * n * c);
        gelu(fch, fch_gelu);
        let residual3 = sized(&mut self.residual[to], n * c);
        linear(&mut self.products, &block.fcproj, fch_gelu, Some(residual2), residual3);
    }

    /// Computes a block up to the input of its GELU, which is all that its backward pass reads.
    /// Returns the number of rows of that input: in the last block, only the needed rows.
    pub(super) fn block_activations(
        &mut self,
        weights: &Weights<'_>,
        packed: &Packed,
        layer: usize,
    ) -> usize {
        let (config, block) = (weights.config, &weights.parameters.blocks[layer]);
        let (r, c, eps) = (packed.n_rows(), config.n_embd, config.layer_norm_epsilon as f32);
        let (slot, from) = (layer % self.acts.len(), layer % self.residual.len());
        let (products, acts, residual) =
            (&mut self.products, &mut self.acts[slot], &self.residual[from][..r * c]);
        let ln1 = sized(&mut self.ln, r * c);
        layer_norm(residual, block.ln1.weight_and_bias(), eps, ln1, &mut acts.ln1_mean_rstd);
        let qkv = sized(&mut acts.qkv, 3 * r * c);
        linear(products, &block.qkv, ln1, None, qkv);
        let (atty, lse) = (sized(&mut acts.atty, r * c), sized(&mut acts.lse, r * config.n_head));
        Attention::new(config, packed).forward(qkv, atty, lse, &mut self.scores);
        // After the last attention, only some rows are needed.
        let (n, atty, residual) = if layer + 1 == config.n_layer {
            let n = packed.needed.len();
            let needed_atty = sized(&mut self.needed_atty, n * c);
            let needed_residual = sized(&mut self.needed_residual, n * c);
            gather(atty, &packed.needed, needed_atty);
            gather(residual, &packed.needed, needed_residual);
            (n, &*needed_atty, &*needed_residual)
        } else {
            (r, &*atty, residual)
        };
        let residual2 = sized(&mut acts.residual2, n * c);
        linear(products, &block.attproj, atty, Some(residual), residual2);
        let ln2 = &mut ln1[..n * c];
        layer_norm(residual2, block.ln2.weight_and_bias(), eps, ln2, &mut acts.ln2_mean_rstd);
        let fch = sized(&mut acts.fch, 4 * n * c);
        linear(products, &block.fc, ln2, None, fch);
        n
    }

    /// Computes the final layer norm of the rows that predict a target or end a reply.
    fn final_norm(&mut self, weights: &Weights<'_>, packed: &Packed) {
        let (config, c) = (weights.config, weights.config.n_embd);
        let residual3 = &self.residual[config.n_layer % self.residual.len()];
        let n = packed.n_targets() * c;
        let picked = sized(&mut self.picked, n + packed.n_ends() * c);
        gather(residual3, &packed.target_rows, &mut picked[..n]);
        gather(residual3, &packed.end_rows, &mut picked[n..]);
        let lnf = sized(&mut self.lnf, picked.len());
        let eps = config.layer_norm_epsilon as f32;
        layer_norm(
            picked,
            weights.parameters.lnf.weight_and_bias(),
            eps,
            lnf,
            &mut self.lnf_mean_rstd,
        );
    }

    /// Computes log π of every target. With `upstream` it also computes the gradients of lnf and of
    /// the head's weight.
    pub(super) fn head(
        &mut self,
        weights: &Weights<'_>,
        packed: &Packed,
        stats: Option<&mut TokenStats>,
        upstream: Option<HeadGradients<'_>>,
    ) -> Vec<f32> {
        let c = weights.config.n_embd;
        let (n, all) = (packed.n_targets(), packed.n_targets() + packed.n_ends());
        let lnf = &self.lnf[..n * c];
        let backward = upstream.map(|HeadGradients { dlogps, dwte }| {
            let dlnf = &mut sized(&mut self.dlnf, all * c)[..n * c];
            head::Backward { dlogps, dlnf, dwte }
        });
        head::log_probs(&mut self.products, &weights.head, lnf, &packed.targets, stats, backward)
    }
}

/// Computes out = x W + bias, plus `residual` if given.
fn linear(
    products: &mut Products,
    layer: &Affine<Weight<'_>>,
    x: &[f32],
    residual: Option<&[f32]>,
    out: &mut [f32],
) {
    init_rows(layer.bias(), residual, out);
    products.forward(&layer.weight, x, out, Store::Add);
}

/// Copies the rows of `from` at `rows` to `to`.
pub(super) fn gather(from: &[f32], rows: &[usize], to: &mut [f32]) {
    let c = to.len() / rows.len().max(1);
    to.chunks_exact_mut(c.max(1))
        .zip(rows)
        .for_each(|(to, &row)| to.copy_from_slice(&from[row * c..][..c]));
}

/// Returns an error if the upstream gradients do not fit the pack, or the gradients do not fit the
/// model.
pub(super) fn check_lengths(
    weights: &Weights<'_>,
    packed: &Packed,
    dlogps: &[f32],
    gradients: &Gradients,
) -> Result<()> {
    packed.check_dlogps(dlogps)?;
    gradients.check(weights.config)
}
