//! One pass through the model and back, over packed rows and plain slices.
//!
//! The same model as [`crate::model::Gpt::hidden`] and automatic differentiation give, written out: the forward pass
//! keeps what the backward pass cannot cheaply compute again (inputs of blocks, queries, keys and values, outputs of
//! attention, inputs of the GELU), and layer norms and the GELU itself are computed twice.

use super::attention::{Heads, Scores};
use super::gelu::{add_rows, gelu, gelu_backward, start_rows};
use super::gemm::Into;
use super::head::{self, Backward, Guesses};
use super::norm::{Moments, layer_norm, layer_norm_again, layer_norm_backward};
use super::packed::Packed;
use super::products::Products;
use super::vector::sized;
use super::weights::{BlockWeights, Purpose, Weights};
use crate::error::{Error, Result};
use crate::gradients::Gradients;

/// What one block keeps for the way back. Shapes: R rows, width C, H heads.
#[derive(Default)]
struct Kept {
    moments_1: Moments,
    /// (R, 3C)
    qkv: Vec<f32>,
    /// Output of attention, (R, C).
    y: Vec<f32>,
    /// Log-sum-exp of the scores, (R, H).
    lse: Vec<f32>,
    /// The residual stream between attention and MLP, (R, C).
    middle: Vec<f32>,
    moments_2: Moments,
    /// Input of the GELU, (R, 4C).
    wide: Vec<f32>,
}

/// Memory for passes, kept from one to the next.
#[derive(Default)]
pub struct Workspace {
    products: Products,
    scores: Scores,
    /// The residual stream before each block and behind the last, (R, C) each.
    stream: Vec<Vec<f32>>,
    kept: Vec<Kept>,
    normal: Vec<f32>,
    wide: Vec<f32>,
    /// Needed rows of the last block: output of attention, and the stream it is added to.
    needed_y: Vec<f32>,
    needed_x: Vec<f32>,
    d_stream: Vec<f32>,
    d_narrow: Vec<f32>,
    d_wide: Vec<f32>,
    /// Rows that predict a target, then those at the end of a reply, before and after the last layer norm, (N + E, C).
    picked: Vec<f32>,
    hidden: Vec<f32>,
    d_hidden: Vec<f32>,
    moments_f: Moments,
    /// What flows back, where the forward pass has already taken the head's way back with it.
    known_slopes: Option<Vec<f32>>,
    /// The pack whose activations are here, by its fingerprint.
    forwarded: Option<u64>,
}

/// What a forward pass keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: for scoring.
    Nothing,
    /// What a backward pass needs.
    Activations,
    /// Only the input of each block; the backward pass computes the rest again. A third more work, far less memory.
    BlockInputs,
}

impl Workspace {
    /// log π of every target of `packed`; with `guesses`, also what the model would have said by itself.
    ///
    /// # Shapes
    /// N reply tokens -> (N)
    ///
    /// # Errors
    /// An id or a position that the model does not have.
    pub fn forward(
        &mut self,
        weights: &Weights<'_>,
        packed: &Packed,
        keep: Keep,
        guesses: Option<&mut Guesses>,
    ) -> Result<Vec<f32>> {
        self.run(weights, packed, keep)?;
        self.known_slopes = None;
        let hidden = &self.hidden[..packed.n_targets() * weights.config.n_embd];
        Ok(head::log_probs(&mut self.products, &weights.head, hidden, &packed.targets, guesses, None))
    }

    /// The same where it is known beforehand what will flow back into each log π: the head's way back is gone at once,
    /// which saves computing the logits again. [`Workspace::backward`] must follow with the same `slopes`.
    ///
    /// # Shapes
    /// slopes (N) -> (N)
    ///
    /// # Errors
    /// An id or a position that the model does not have.
    pub fn forward_known(
        &mut self,
        weights: &Weights<'_>,
        packed: &Packed,
        keep: Keep,
        guesses: Option<&mut Guesses>,
        slopes: &[f32],
        gradients: &mut Gradients,
    ) -> Result<Vec<f32>> {
        check_lengths(weights, packed, slopes, gradients)?;
        self.run(weights, packed, keep)?;
        self.known_slopes = Some(slopes.to_vec());
        let c = weights.config.n_embd;
        let size = packed.n_targets() * c;
        let hidden = &self.hidden[..size];
        let dhidden = &mut sized(&mut self.d_hidden, size + packed.n_ends() * c)[..size];
        let backward = Backward { slopes, dhidden, dwte: &mut gradients.values_mut()[0] };
        Ok(head::log_probs(&mut self.products, &weights.head, hidden, &packed.targets, guesses, Some(backward)))
    }

    /// The last hidden states at the ends of whole replies, as the forward pass just before left them.
    ///
    /// # Shapes
    /// (E, C)
    pub fn ends(&self, weights: &Weights<'_>, packed: &Packed) -> &[f32] {
        let c = weights.config.n_embd;
        &self.hidden[packed.n_targets() * c..][..packed.n_ends() * c]
    }

    /// From ids to the hidden rows that predict a target or end a reply.
    fn run(&mut self, weights: &Weights<'_>, packed: &Packed, keep: Keep) -> Result<()> {
        let config = weights.config;
        self.forwarded = None;
        packed.check(config.vocab_size, config.block_size)?;
        if keep != Keep::Nothing && weights.purpose != Purpose::Train {
            return Err(Error::new(
                "these weights do not lie as a backward pass needs them",
                format!("{:?}", weights.purpose),
                "lend them with Purpose::Train",
            ));
        }
        let (c, n_layer, size) = (config.n_embd, config.n_layer, packed.n_rows() * config.n_embd);
        self.products.bf16 = weights.bf16;
        self.stream.resize_with(if keep == Keep::Nothing { 2 } else { n_layer + 1 }, Vec::new);
        self.kept.resize_with(if keep == Keep::Activations { n_layer } else { 1 }, Kept::default);
        let first = sized(&mut self.stream[0], size);
        for ((row, &id), &position) in first.chunks_exact_mut(c).zip(&packed.ids).zip(&packed.positions) {
            let token = &weights.wte[id as usize * c..][..c];
            let place = &weights.wpe[position as usize * c..][..c];
            row.iter_mut().zip(token).zip(place).for_each(|((x, t), p)| *x = t + p);
        }
        let last = self.stream.len() - 1;
        for layer in 0..n_layer {
            let at = layer % self.kept.len();
            // Where nothing is kept, two streams take turns.
            let (from, to) = if keep == Keep::Nothing { (layer % 2, (layer + 1) % 2) } else { (layer, layer + 1) };
            let size = if layer + 1 == n_layer { packed.needed.len() * c } else { size };
            let mut out = std::mem::take(&mut self.stream[to]);
            sized(&mut out, size);
            self.block(weights, layer, packed, from, at, Some(&mut out[..size]));
            self.stream[to] = out;
        }
        let end = &self.stream[if keep == Keep::Nothing { n_layer % 2 } else { last }];
        let n = packed.n_targets() * c;
        let picked = sized(&mut self.picked, n + packed.n_ends() * c);
        gather(end, &packed.target_rows, &mut picked[..n]);
        gather(end, &packed.end_rows, &mut picked[n..]);
        let hidden = sized(&mut self.hidden, picked.len());
        layer_norm(picked, weights.ln_f, config.layer_norm_epsilon as f32, hidden, &mut self.moments_f);
        if keep != Keep::Nothing {
            self.forwarded = Some(packed.fingerprint());
        }
        Ok(())
    }

    /// One block, from `stream[from]` to `out`; fills `kept[at]`. Without `out` the last product is left out.
    fn block(
        &mut self,
        weights: &Weights<'_>,
        layer: usize,
        packed: &Packed,
        from: usize,
        at: usize,
        out: Option<&mut [f32]>,
    ) {
        let (config, block) = (weights.config, &weights.blocks[layer]);
        let (r, c, eps) = (packed.n_rows(), config.n_embd, config.layer_norm_epsilon as f32);
        let (products, kept, x) = (&mut self.products, &mut self.kept[at], &self.stream[from][..r * c]);
        let normal = sized(&mut self.normal, r * c);
        layer_norm(x, block.ln_1, eps, normal, &mut kept.moments_1);
        let qkv = sized(&mut kept.qkv, 3 * r * c);
        start_rows(block.c_attn.bias, None, qkv);
        products.forward(&block.c_attn.weight, normal, qkv, Into::Add);
        let (y, lse) = (sized(&mut kept.y, r * c), sized(&mut kept.lse, r * config.n_head));
        heads(weights).forward(&packed.spans, qkv, y, lse, &mut self.scores);
        // Behind the last attention only some rows go on.
        let last = layer + 1 == config.n_layer;
        let (r, y, x) = if last {
            let n = packed.needed.len();
            let (needed_y, needed_x) = (sized(&mut self.needed_y, n * c), sized(&mut self.needed_x, n * c));
            gather(y, &packed.needed, needed_y);
            gather(x, &packed.needed, needed_x);
            (n, &*needed_y, &*needed_x)
        } else {
            (r, &*y, x)
        };
        let normal = &mut normal[..r * c];
        let middle = sized(&mut kept.middle, r * c);
        start_rows(block.attn_c_proj.bias, Some(x), middle);
        products.forward(&block.attn_c_proj.weight, y, middle, Into::Add);
        layer_norm(middle, block.ln_2, eps, normal, &mut kept.moments_2);
        let wide = sized(&mut kept.wide, 4 * r * c);
        start_rows(block.c_fc.bias, None, wide);
        products.forward(&block.c_fc.weight, normal, wide, Into::Add);
        if let Some(out) = out {
            let active = sized(&mut self.wide, 4 * r * c);
            gelu(wide, active);
            start_rows(block.mlp_c_proj.bias, Some(middle), out);
            products.forward(&block.mlp_c_proj.weight, active, out, Into::Add);
        }
    }

    /// Adds the gradient of Σ dlogps · log π to `gradients`; the forward pass came just before, with the same `packed`.
    ///
    /// # Shapes
    /// dlogps (N)
    ///
    /// # Errors
    /// No such forward pass came before, or something has another size or belongs to another model.
    pub fn backward(
        &mut self,
        weights: &Weights<'_>,
        packed: &Packed,
        dlogps: &[f32],
        gradients: &mut Gradients,
    ) -> Result<()> {
        self.backward_ends(weights, packed, dlogps, &[], gradients)
    }

    /// The same with a gradient of the [ends](Workspace::ends) as well; none at all stands for zeros.
    ///
    /// # Shapes
    /// dlogps (N), dends (E, C)
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
        let same_slopes = self.known_slopes.as_ref().is_none_or(|known| known == dlogps);
        if self.forwarded.take() != Some(packed.fingerprint()) || !same_slopes {
            return Err(Error::new(
                "a backward pass needs its forward pass just before it",
                "another pack, other slopes, or a pass that kept nothing",
                "call forward with the same pack and keep its activations",
            ));
        }
        let (r, c, n_layer) = (packed.n_rows(), weights.config.n_embd, weights.config.n_layer);
        let [wte, wpe, rest @ ..] = gradients.values_mut() else { unreachable!("every model has embeddings") };
        let [rest @ .., ln_f_weight, ln_f_bias] = rest else { unreachable!("every model has a last layer norm") };
        self.head_backward(weights, packed, (dlogps, dends), wte, [ln_f_weight, ln_f_bias]);
        let blocks = rest.as_chunks_mut::<12>().0;
        for layer in (0..n_layer).rev() {
            let at = layer % self.kept.len();
            if self.kept.len() < n_layer {
                self.block(weights, layer, packed, layer, at, None);
            }
            self.block_backward(weights, layer, packed, at, &mut blocks[layer]);
        }
        let rows = self.d_stream[..r * c].chunks_exact(c).zip(&packed.ids).zip(&packed.positions);
        for ((row, &id), &position) in rows {
            let add = |to: &mut [f32]| to.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            add(&mut wte[id as usize * c..][..c]);
            add(&mut wpe[position as usize * c..][..c]);
        }
        Ok(())
    }

    /// From the log-probabilities back to the end of the residual stream.
    fn head_backward(
        &mut self,
        weights: &Weights<'_>,
        packed: &Packed,
        (dlogps, dends): (&[f32], &[f32]),
        dwte: &mut [f32],
        [dweight, dbias]: [&mut Vec<f32>; 2],
    ) {
        let c = weights.config.n_embd;
        let (n, all) = (packed.n_targets(), packed.n_targets() + packed.n_ends());
        if self.known_slopes.is_none() {
            let (hidden, dhidden) = (&self.hidden[..n * c], &mut sized(&mut self.d_hidden, all * c)[..n * c]);
            let backward = Backward { slopes: dlogps, dhidden, dwte };
            head::log_probs(&mut self.products, &weights.head, hidden, &packed.targets, None, Some(backward));
        }
        match dends {
            [] => self.d_hidden[n * c..all * c].fill(0.0),
            dends => self.d_hidden[n * c..all * c].copy_from_slice(dends),
        }
        let d_hidden = &self.d_hidden[..all * c];
        let d_picked = sized(&mut self.d_wide, all * c);
        d_picked.fill(0.0);
        let picked = &self.picked[..all * c];
        layer_norm_backward(d_hidden, picked, weights.ln_f[0], &self.moments_f, d_picked, [dweight, dbias]);
        sized(&mut self.d_stream, packed.n_rows() * c);
        let d_stream = &mut self.d_stream[..packed.needed.len() * c];
        d_stream.fill(0.0);
        scatter_add(&d_picked[..n * c], &packed.target_rows, c, d_stream);
        scatter_add(&d_picked[n * c..], &packed.end_rows, c, d_stream);
    }

    /// From the gradient of the stream behind a block to that before it, both in `d_stream`.
    fn block_backward(
        &mut self,
        weights: &Weights<'_>,
        layer: usize,
        packed: &Packed,
        at: usize,
        gradients: &mut [Vec<f32>; 12],
    ) {
        let block: &BlockWeights<'_> = &weights.blocks[layer];
        let [qkv_w, qkv_b, y_w, y_b, fc_w, fc_b, out_w, out_b, ln_1_w, ln_1_b, ln_2_w, ln_2_b] = gradients;
        let (r, c) = (packed.n_rows(), weights.config.n_embd);
        let last = layer + 1 == weights.config.n_layer;
        let n = if last { packed.needed.len() } else { r };
        let (products, kept) = (&mut self.products, &mut self.kept[at]);
        sized(&mut self.normal, r * c);
        sized(&mut self.d_narrow, r * c);
        sized(&mut self.d_wide, 4 * r * c);
        let (normal, d_narrow) = (&mut self.normal[..n * c], &mut self.d_narrow[..n * c]);
        let (d_stream, d_wide) = (&mut self.d_stream[..n * c], &mut self.d_wide[..4 * n * c]);

        let wide = &mut kept.wide[..4 * n * c];
        products.backward(&block.mlp_c_proj.weight, d_stream, d_wide);
        gelu_backward(wide, d_wide);
        products.weight_gradient([4 * c, c], wide, d_stream, out_w);
        add_rows(d_stream, out_b);
        let middle = &kept.middle[..n * c];
        layer_norm_again(middle, block.ln_2, &kept.moments_2, normal);
        products.weight_gradient([c, 4 * c], normal, d_wide, fc_w);
        add_rows(d_wide, fc_b);
        products.backward(&block.c_fc.weight, d_wide, d_narrow);
        layer_norm_backward(d_narrow, middle, block.ln_2[0], &kept.moments_2, d_stream, [ln_2_w, ln_2_b]);

        let (qkv, y) = (&kept.qkv[..3 * r * c], &kept.y[..r * c]);
        let y_of_stream = if last {
            gather(y, &packed.needed, sized(&mut self.needed_y, n * c));
            &self.needed_y[..n * c]
        } else {
            y
        };
        products.weight_gradient([c, c], y_of_stream, d_stream, y_w);
        add_rows(d_stream, y_b);
        products.backward(&block.attn_c_proj.weight, d_stream, d_narrow);
        if last {
            // Back to all rows: nothing flows into those that did not go on.
            let spread = sized(&mut self.needed_x, r * c);
            for buffer in [&mut self.d_narrow, &mut self.d_stream] {
                spread.fill(0.0);
                scatter_add(&buffer[..n * c], &packed.needed, c, spread);
                buffer[..r * c].copy_from_slice(spread);
            }
        }
        let (normal, d_narrow) = (&mut self.normal[..r * c], &mut self.d_narrow[..r * c]);
        let (d_stream, d_qkv) = (&mut self.d_stream[..r * c], &mut self.d_wide[..3 * r * c]);
        heads(weights).backward(&packed.spans, qkv, (y, d_narrow, &kept.lse), d_qkv, &mut self.scores);
        let x = &self.stream[layer][..r * c];
        layer_norm_again(x, block.ln_1, &kept.moments_1, normal);
        products.weight_gradient([c, 3 * c], normal, d_qkv, qkv_w);
        add_rows(d_qkv, qkv_b);
        products.backward(&block.c_attn.weight, d_qkv, d_narrow);
        layer_norm_backward(d_narrow, x, block.ln_1[0], &kept.moments_1, d_stream, [ln_1_w, ln_1_b]);
    }
}

/// `to` becomes the rows of `from` at `rows`.
fn gather(from: &[f32], rows: &[usize], to: &mut [f32]) {
    let c = to.len() / rows.len().max(1);
    to.chunks_exact_mut(c.max(1)).zip(rows).for_each(|(to, &row)| to.copy_from_slice(&from[row * c..][..c]));
}

/// Adds the rows of `from`, c wide, to those of `to` at `rows`.
fn scatter_add(from: &[f32], rows: &[usize], c: usize, to: &mut [f32]) {
    for (from, &row) in from.chunks_exact(c).zip(rows) {
        to[row * c..][..c].iter_mut().zip(from).for_each(|(sum, x)| *sum += x);
    }
}

fn check_lengths(weights: &Weights<'_>, packed: &Packed, slopes: &[f32], gradients: &Gradients) -> Result<()> {
    packed.check_slopes(slopes)?;
    gradients.check(weights.config)
}

fn heads(weights: &Weights<'_>) -> Heads {
    Heads { n_head: weights.config.n_head, n_embd: weights.config.n_embd }
}
