//! Perplexity of held-out replies: how surprised the model is by what people wrote.

use serde::Serialize;

use super::stats::{Estimate, bootstrap, bootstrap_mean};
use crate::batch::{Side, TokenizedPairs};
use crate::data::Pair;
use crate::error::Result;
use crate::model::Gpt;
use crate::nn::Dropout;
use crate::parallel;
use crate::score;

/// Perplexity on one side of the held-out pairs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Perplexity {
    /// exp(Σ NLL / Σ tokens): long replies weigh more.
    pub token_weighted: Estimate,
    /// Mean over replies of exp(NLL / tokens): every reply weighs the same.
    pub per_example: Estimate,
    /// Σ NLL / (ln 2 · bytes) over replies that were not cut: comparable between tokenizers.
    pub bits_per_byte: Estimate,
    /// Reply tokens scored.
    pub tokens: usize,
}

/// Perplexity of `model` on one side of `pairs`, reply tokens only; the end of text counts as a token.
///
/// Intervals are bootstrapped over replies. `texts` are the pairs that `pairs` was tokenised from.
///
/// # Errors
/// The pairs do not fit the model.
pub fn perplexity(model: &Gpt, pairs: &TokenizedPairs, texts: &[Pair], side: Side, seed: u64) -> Result<Perplexity> {
    let frozen = model.freeze()?;
    let (mut nll, mut tokens) = (vec![0f64; pairs.len()], vec![0usize; pairs.len()]);
    let work = pairs.by_length(32);
    let scored = parallel::map(&work, |indices| {
        let batch = pairs.batch(indices, side)?;
        let logps = score::sequence_logps(&frozen, &batch, &mut Dropout::off())?.to_vec1::<f32>()?;
        Ok((logps, batch.reply_lengths))
    })?;
    for (indices, (logps, lengths)) in work.iter().zip(scored) {
        for (row, &i) in indices.iter().enumerate() {
            (nll[i], tokens[i]) = (-f64::from(logps[row]), lengths[row]);
        }
    }
    let bytes: Vec<usize> =
        texts.iter().map(|p| if side == Side::Chosen { p.chosen.len() } else { p.rejected.len() }).collect();
    let ratio = |rows: &[usize], below: &[usize]| {
        rows.iter().map(|&i| nll[i]).sum::<f64>() / rows.iter().map(|&i| below[i] as f64).sum::<f64>()
    };
    // A cut reply has bytes that were not scored; it stays out of the figure per byte.
    let whole: Vec<usize> = (0..pairs.len()).filter(|&i| pairs.is_whole(i, side)).collect();
    let each: Vec<f64> = nll.iter().zip(&tokens).map(|(l, &t)| (l / t as f64).exp()).collect();
    Ok(Perplexity {
        token_weighted: bootstrap(nll.len(), seed, |rows| ratio(rows, &tokens).exp()),
        per_example: bootstrap_mean(&each, seed),
        bits_per_byte: bootstrap(whole.len(), seed, |rows| {
            let rows: Vec<usize> = rows.iter().map(|&r| whole[r]).collect();
            ratio(&rows, &bytes) / std::f64::consts::LN_2
        }),
        tokens: tokens.iter().sum(),
    })
}
