//! The backward pass. `compute/gpu/backward.rs` mirrors this file: the same functions with the same
//! names in the same order.

use crate::base::error::{Error, Result};
use crate::compute::cpu::attention::{self, Attention};
use crate::compute::cpu::gelu::{add_rows, gelu_backward};
use crate::compute::cpu::norm::{layer_norm_again, layer_norm_backward};
use crate::compute::cpu::pass::{HeadGradients, Workspace, check_lengths, gather};
use crate::compute::cpu::products::Products;
use crate::compute::cpu::vector::sized;
use crate::compute::cpu::weights::Weights;
use crate::compute::gradients::Gradients;
use crate::data::packed::Packed;
use crate::model::{Affine, BlockParameters, Parameters};

impl Workspace {
    /// Adds the gradient of Σ dlogps · log π to `gradients`. The previous call must be the forward
    /// pass with the same `packed`.
    ///
    /// # Shapes
    /// dlogps (N)
    ///
    /// # Errors
    /// The previous call was not this forward pass, a size differs, or the gradients belong to
    /// another model.
    pub fn backward(
        &mut self,
        weights: &Weights<'_>,
        packed: &Packed,
        dlogps: &[f32],
        gradients: &mut Gradients,
    ) -> Result<()> {
        self.backward_ends(weights, packed, dlogps, &[], gradients)
    }

    /// Adds the gradient of Σ dlogps · log π + Σ dends · [ends](Workspace::ends) to `gradients`. An
    /// empty `dends` means zeros.
    ///
    /// # Shapes
    /// dlogps (N), dends (E, C) or empty
    ///
    /// # Errors
    /// As [`Workspace::backward`].
    pub fn backward_ends(
        &mut self,
        weights: &Weights<'_>,
        packed: &Packed,
        dlogps: &[f32],
        dends: &[f32],
        gradients: &mut Gradients,
    ) -> Result<()> {
        check_lengths(weights, packed, dlogps, gradients)?;
        packed.check_ends(dends, weights.config.n_embd)?;
        let same_grad = self.constant_grad.as_ref().is_none_or(|constant| constant == dlogps);
        if self.forwarded.take() != Some(packed.fingerprint()) || !same_grad {
            return Err(Error::new(
                "a backward pass must follow its forward pass",
                "another pack, another upstream gradient, or a pass that kept no activations",
                "call forward with the same pack and keep its activations",
            ));
        }
        let Parameters { wte: dwte, wpe, blocks, lnf, .. } = gradients.values_mut();
        let dwpe = wpe.as_mut().expect("a GPT-2 has learned positions");
        if self.constant_grad.is_none() {
            self.head(weights, packed, None, Some(HeadGradients { dlogps, dwte }));
        }
        self.final_norm_backward(weights, packed, dends, lnf);
        for layer in (0..weights.config.n_layer).rev() {
            if self.acts.len() < weights.config.n_layer {
                self.block_activations(weights, packed, layer);
            }
            self.block_backward(weights, packed, layer, &mut blocks[layer]);
        }
        self.embed_backward(weights, packed, dwte, dwpe);
        Ok(())
    }

    /// Computes the gradient of the last block's output from the gradient of lnf.
    fn final_norm_backward(
        &mut self,
        weights: &Weights<'_>,
        packed: &Packed,
        dends: &[f32],
        gradients: &mut Affine<Vec<f32>>,
    ) {
        let c = weights.config.n_embd;
        let (n, all) = (packed.n_targets(), packed.n_targets() + packed.n_ends());
        match dends {
            [] => self.dlnf[n * c..all * c].fill(0.0),
            dends => self.dlnf[n * c..all * c].copy_from_slice(dends),
        }
        // Scratch memory that the first block_backward overwrites.
        let dpicked = sized(&mut self.dfch, all * c);
        dpicked.fill(0.0);
        let (dlnf, picked, weight) =
            (&self.dlnf[..all * c], &self.picked[..all * c], &weights.parameters.lnf.weight);
        layer_norm_backward(
            dlnf,
            picked,
            weight.values(),
            &self.lnf_mean_rstd,
            dpicked,
            weight_and_bias(gradients),
        );
        sized(&mut self.dresidual, packed.n_rows() * c);
        let dresidual3 = &mut self.dresidual[..packed.needed.len() * c];
        dresidual3.fill(0.0);
        scatter_add(&dpicked[..n * c], &packed.target_rows, c, dresidual3);
        scatter_add(&dpicked[n * c..], &packed.end_rows, c, dresidual3);
    }

    /// Computes the gradient of a block's input from that of its output, both in `dresidual`.
    fn block_backward(
        &mut self,
        weights: &Weights<'_>,
        packed: &Packed,
        layer: usize,
        gradients: &mut BlockParameters<Vec<f32>>,
    ) {
        let block = &weights.parameters.blocks[layer];
        let (r, c) = (packed.n_rows(), weights.config.n_embd);
        let gathers = layer + 1 == weights.config.n_layer;
        let n = if gathers { packed.needed.len() } else { r };
        let slot = layer % self.acts.len();
        let (products, acts) = (&mut self.products, &mut self.acts[slot]);
        sized(&mut self.ln, r * c);
        sized(&mut self.dln, r * c);
        sized(&mut self.dfch, 4 * r * c);
        let (ln2, dln2) = (&mut self.ln[..n * c], &mut self.dln[..n * c]);
        let (dresidual, dfch_gelu) = (&mut self.dresidual[..n * c], &mut self.dfch[..4 * n * c]);
        let (qkv, atty, lse) = (&acts.qkv[..3 * r * c], &acts.atty[..r * c], &acts.lse[..]);
        let (residual, residual2) = (&self.residual[layer][..r * c], &acts.residual2[..n * c]);
        let fch = &mut acts.fch[..4 * n * c];

        products.backward(&block.fcproj.weight, dresidual, dfch_gelu);
        // In place: dfch_gelu becomes dfch, and fch becomes fch_gelu.
        gelu_backward(fch, dfch_gelu);
        let (dfch, fch_gelu) = (dfch_gelu, fch);
        weight_gradient(products, fch_gelu, dresidual, &mut gradients.fcproj);
        layer_norm_again(residual2, block.ln2.weight_and_bias(), &acts.ln2_mean_rstd, ln2);
        weight_gradient(products, ln2, dfch, &mut gradients.fc);
        products.backward(&block.fc.weight, dfch, dln2);
        let weight = block.ln2.weight.values();
        layer_norm_backward(
            dln2,
            residual2,
            weight,
            &acts.ln2_mean_rstd,
            dresidual,
            weight_and_bias(&mut gradients.ln2),
        );

        // The rows of atty that attproj read.
        let mut needed_atty = atty;
        if gathers {
            gather(atty, &packed.needed, sized(&mut self.needed_atty, n * c));
            needed_atty = &self.needed_atty[..n * c];
        }
        weight_gradient(products, needed_atty, dresidual, &mut gradients.attproj);
        let datty = dln2;
        products.backward(&block.attproj.weight, dresidual, datty);
        if gathers {
            // Expands to all rows. The gradient of rows that are not needed is zero.
            let all = sized(&mut self.needed_residual, r * c);
            for buffer in [&mut self.dln, &mut self.dresidual] {
                all.fill(0.0);
                scatter_add(&buffer[..n * c], &packed.needed, c, all);
                buffer[..r * c].copy_from_slice(all);
            }
        }
        let (ln1, datty) = (&mut self.ln[..r * c], &mut self.dln[..r * c]);
        let (dresidual, dqkv) = (&mut self.dresidual[..r * c], &mut self.dfch[..3 * r * c]);
        let backward = attention::Backward { dqkv, datty, atty, lse, qkv };
        Attention::new(weights.config, packed).backward(backward, &mut self.scores);
        let dln1 = datty;
        layer_norm_again(residual, block.ln1.weight_and_bias(), &acts.ln1_mean_rstd, ln1);
        let dqkv = &self.dfch[..3 * r * c];
        weight_gradient(products, ln1, dqkv, &mut gradients.qkv);
        products.backward(&block.qkv.weight, dqkv, dln1);
        let weight = block.ln1.weight.values();
        layer_norm_backward(
            dln1,
            residual,
            weight,
            &acts.ln1_mean_rstd,
            dresidual,
            weight_and_bias(&mut gradients.ln1),
        );
    }

    /// Adds the gradients of both embeddings from that of the first block's input.
    fn embed_backward(
        &mut self,
        weights: &Weights<'_>,
        packed: &Packed,
        dwte: &mut [f32],
        dwpe: &mut [f32],
    ) {
        let (r, c) = (packed.n_rows(), weights.config.n_embd);
        let rows = self.dresidual[..r * c].chunks_exact(c).zip(&packed.ids).zip(&packed.positions);
        for ((row, &id), &position) in rows {
            let add = |to: &mut [f32]| to.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            add(&mut dwte[id as usize * c..][..c]);
            add(&mut dwpe[position as usize * c..][..c]);
        }
    }
}

/// Adds the gradients of a layer's weight and bias, from x (R, in) and dout (R, out).
fn weight_gradient(
    products: &mut Products,
    x: &[f32],
    dout: &[f32],
    gradients: &mut Affine<Vec<f32>>,
) {
    let [dweight, dbias] = weight_and_bias(gradients);
    let n_out = dbias.len();
    products.weight_gradient([dweight.len() / n_out, n_out], x, dout, dweight);
    add_rows(dout, dbias);
}

/// Returns the gradients of a weight and of its bias.
fn weight_and_bias(layer: &mut Affine<Vec<f32>>) -> [&mut [f32]; 2] {
    [&mut layer.weight, layer.bias.as_mut().expect("every layer of a GPT-2 has a bias")]
}

/// Adds the rows of `from`, each of width c, to the rows of `to` at `rows`.
fn scatter_add(from: &[f32], rows: &[usize], c: usize, to: &mut [f32]) {
    for (from, &row) in from.chunks_exact(c).zip(rows) {
        to[row * c..][..c].iter_mut().zip(from).for_each(|(sum, x)| *sum += x);
    }
}
