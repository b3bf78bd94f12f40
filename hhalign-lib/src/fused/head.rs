//! The head and the log-probabilities in one: logits exist for a chunk of rows at a time, never as a whole.

use super::gemm::Into;
use super::products::{Products, Weight};
use super::vector::{exp, max, on_widest, sum};

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

/// log π of each target from the hidden row that predicts it.
///
/// # Shapes
/// hidden (N, C), targets (N) -> (N)
pub(super) fn log_probs(
    products: &mut Products,
    wte: &Weight<'_>,
    hidden: &[f32],
    targets: &[u32],
    mut guesses: Option<&mut Guesses>,
) -> Vec<f32> {
    let mut logps = Vec::with_capacity(targets.len());
    each_chunk(products, wte, hidden, targets, |_, _, logits, targets| {
        for (logits, &target) in logits.chunks_exact_mut(wte.n_out).zip(targets) {
            on_widest(|| {
                let (chosen, largest) = (logits[target as usize], max(logits));
                let total = sum(logits, |x| exp(x - largest));
                let lse = largest + total.ln();
                logps.push(chosen - lse);
                if let Some(guesses) = guesses.as_deref_mut() {
                    let mean = sum(logits, |x| exp(x - largest) * (x - largest)) / total;
                    guesses.right.push(chosen == largest);
                    guesses.entropy.push(total.ln() - mean);
                }
            });
        }
    });
    logps
}

/// Overwrites `dhidden` with the gradient of `hidden` and adds to that of the embedding, given that of each log π.
///
/// The logits are computed again: the gradient of one row is g (onehot - softmax).
pub(super) fn backward(
    products: &mut Products,
    wte: &Weight<'_>,
    (hidden, targets, dlogps): (&[f32], &[u32], &[f32]),
    dhidden: &mut [f32],
    dwte: &mut [f32],
) {
    let (v, c) = (wte.n_out, wte.n_in);
    each_chunk(products, wte, hidden, targets, |products, first, logits, targets| {
        let rows = targets.len();
        on_widest(|| {
            for (i, (logits, &target)) in logits.chunks_exact_mut(v).zip(targets).enumerate() {
                let largest = max(logits);
                logits.iter_mut().for_each(|x| *x = exp(*x - largest));
                let g = dlogps[first + i];
                let scale = -g / sum(logits, |x| x);
                logits.iter_mut().for_each(|x| *x *= scale);
                logits[target as usize] += g;
            }
        });
        products.backward(wte, logits, &mut dhidden[first * c..(first + rows) * c]);
        products.weight_gradient([v, c], logits, &hidden[first * c..(first + rows) * c], dwte);
    });
}

fn each_chunk(
    products: &mut Products,
    wte: &Weight<'_>,
    hidden: &[f32],
    targets: &[u32],
    mut work: impl FnMut(&mut Products, usize, &mut [f32], &[u32]),
) {
    let mut logits = std::mem::take(&mut products.logits);
    logits.resize(targets.len().min(CHUNK) * wte.n_out, 0.0);
    for (chunk, (targets, hidden)) in targets.chunks(CHUNK).zip(hidden.chunks(CHUNK * wte.n_in)).enumerate() {
        let logits = &mut logits[..targets.len() * wte.n_out];
        products.forward(wte, hidden, logits, Into::Overwrite);
        work(products, chunk * CHUNK, logits, targets);
    }
    products.logits = logits;
}
