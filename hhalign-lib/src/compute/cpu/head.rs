//! The head together with the log-probabilities. Logits exist for one chunk of rows at a time.

use crate::compute::cpu::gemm::Store;
use crate::compute::cpu::products::{Products, Weight};
use crate::compute::cpu::vector::{exp, max, sum, widest};

/// Rows of a chunk.
const CHUNK: usize = 256;

/// Statistics of the model's prediction at each target.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokenStats {
    /// Whether the target is the likeliest token.
    pub right: Vec<bool>,
    /// Entropy of the prediction, in nats.
    pub entropy: Vec<f32>,
}

/// The upstream gradient and the outputs of the head's backward pass.
pub(super) struct Backward<'a> {
    /// The gradient of each log π, (N).
    pub(super) dlogps: &'a [f32],
    /// The gradient of lnf, (N, C); overwritten.
    pub(super) dlnf: &'a mut [f32],
    /// The gradient of the embedding, (V, C); added to.
    pub(super) dwte: &'a mut [f32],
}

/// Computes log π of each target from the row of lnf that predicts it. With `backward` it computes
/// the gradients as well.
///
/// The gradient of a row of logits is g (onehot - softmax), where g is the upstream gradient. If g
/// depends on all log π of a sequence, as in DPO, the backward pass recomputes the logits.
///
/// # Shapes
/// lnf (N, C), targets (N) -> (N)
pub(super) fn log_probs(
    products: &mut Products,
    wte: &Weight<'_>,
    lnf: &[f32],
    targets: &[u32],
    mut stats: Option<&mut TokenStats>,
    mut backward: Option<Backward<'_>>,
) -> Vec<f32> {
    let (v, c) = (wte.n_out, wte.n_in);
    let mut logps = Vec::with_capacity(targets.len());
    let mut logits = std::mem::take(&mut products.logits);
    logits.resize(targets.len().min(CHUNK) * v, 0.0);
    for (chunk, (targets, lnf)) in targets.chunks(CHUNK).zip(lnf.chunks(CHUNK * c)).enumerate() {
        let logits = &mut logits[..targets.len() * v];
        products.forward(wte, lnf, logits, Store::Overwrite);
        let dlogps = backward.as_ref().map(|b| &b.dlogps[chunk * CHUNK..][..targets.len()]);
        widest!({
            for (i, (logits, &target)) in logits.chunks_exact_mut(v).zip(targets).enumerate() {
                let (chosen, largest) = (logits[target as usize], max(logits));
                if let Some(stats) = stats.as_deref_mut() {
                    let total = sum(logits, |x| exp(x - largest));
                    let mean = sum(logits, |x| exp(x - largest) * (x - largest)) / total;
                    let first = logits.iter().position(|x| *x == largest);
                    stats.right.push(first == Some(target as usize));
                    stats.entropy.push(total.ln() - mean);
                }
                let total = match dlogps {
                    None => sum(logits, |x| exp(x - largest)),
                    Some(dlogps) => {
                        logits.iter_mut().for_each(|x| *x = exp(*x - largest));
                        let total = sum(logits, |x| x);
                        let scale = -dlogps[i] / total;
                        logits.iter_mut().for_each(|x| *x *= scale);
                        logits[target as usize] += dlogps[i];
                        total
                    }
                };
                logps.push(chosen - largest - total.ln());
            }
        });
        if let Some(b) = &mut backward {
            let dlnf = &mut b.dlnf[chunk * CHUNK * c..][..lnf.len()];
            products.backward(wte, logits, dlnf);
            products.weight_gradient([v, c], logits, lnf, b.dwte);
        }
    }
    products.logits = logits;
    logps
}
