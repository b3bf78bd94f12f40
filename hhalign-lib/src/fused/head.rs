//! The head and the log-probabilities in one: logits exist for a chunk of rows at a time, never as a whole.

use super::gemm::Into;
use super::products::{Products, Weight};
use super::vector::{exp, max, sum, widest};

/// Rows whose logits exist at once.
const CHUNK: usize = 256;

/// What the model would have said by itself at each target.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Guesses {
    /// Whether the target is the likeliest token.
    pub right: Vec<bool>,
    /// Entropy of the prediction, in nats.
    pub entropy: Vec<f32>,
}

/// Where gradients go, and what flows back into each log π.
pub(super) struct Backward<'a> {
    /// The gradient of each log π, (N).
    pub(super) slopes: &'a [f32],
    /// The gradient of the hidden rows, (N, C); overwritten.
    pub(super) dhidden: &'a mut [f32],
    /// The gradient of the embedding, (V, C); added to.
    pub(super) dwte: &'a mut [f32],
}

/// log π of each target from the hidden row that predicts it; with `backward`, the gradients in the same go.
///
/// The gradient of a row of logits is g (onehot - softmax). Where g depends on all log π of a sequence, as in DPO, the
/// logits are computed once more for the way back.
///
/// # Shapes
/// hidden (N, C), targets (N) -> (N)
pub(super) fn log_probs(
    products: &mut Products,
    wte: &Weight<'_>,
    hidden: &[f32],
    targets: &[u32],
    mut guesses: Option<&mut Guesses>,
    mut backward: Option<Backward<'_>>,
) -> Vec<f32> {
    let (v, c) = (wte.n_out, wte.n_in);
    let mut logps = Vec::with_capacity(targets.len());
    let mut logits = std::mem::take(&mut products.logits);
    logits.resize(targets.len().min(CHUNK) * v, 0.0);
    for (chunk, (targets, hidden)) in targets.chunks(CHUNK).zip(hidden.chunks(CHUNK * c)).enumerate() {
        let logits = &mut logits[..targets.len() * v];
        products.forward(wte, hidden, logits, Into::Overwrite);
        let slopes = backward.as_ref().map(|b| &b.slopes[chunk * CHUNK..][..targets.len()]);
        widest!({
            for (i, (logits, &target)) in logits.chunks_exact_mut(v).zip(targets).enumerate() {
                let (chosen, largest) = (logits[target as usize], max(logits));
                if let Some(guesses) = guesses.as_deref_mut() {
                    let total = sum(logits, |x| exp(x - largest));
                    let mean = sum(logits, |x| exp(x - largest) * (x - largest)) / total;
                    let first = logits.iter().position(|x| *x == largest);
                    guesses.right.push(first == Some(target as usize));
                    guesses.entropy.push(total.ln() - mean);
                }
                let total = match slopes {
                    None => sum(logits, |x| exp(x - largest)),
                    Some(slopes) => {
                        logits.iter_mut().for_each(|x| *x = exp(*x - largest));
                        let total = sum(logits, |x| x);
                        let scale = -slopes[i] / total;
                        logits.iter_mut().for_each(|x| *x *= scale);
                        logits[target as usize] += slopes[i];
                        total
                    }
                };
                logps.push(chosen - largest - total.ln());
            }
        });
        if let Some(b) = &mut backward {
            let dhidden = &mut b.dhidden[chunk * CHUNK * c..][..hidden.len()];
            products.backward(wte, logits, dhidden);
            products.weight_gradient([v, c], logits, hidden, b.dwte);
        }
    }
    products.logits = logits;
    logps
}
