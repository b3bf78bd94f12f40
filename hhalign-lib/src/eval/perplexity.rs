//! Perplexity of held-out replies: how surprised the model is by what people wrote.

use serde::Serialize;

use super::comparison::Metrics;
use super::stats::{Estimate, bootstrap, bootstrap_mean};
use crate::batch::{Side, TokenizedPairs};
use crate::data::Pair;
use crate::error::Result;
use crate::fused::Compute;
use crate::model::Gpt;
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

impl Metrics for Perplexity {
    fn title(&self) -> String {
        format!("Perplexity, {} reply tokens", crate::table::grouped(self.tokens as i64))
    }

    fn estimates(&self) -> Vec<(&'static str, &Estimate)> {
        vec![
            ("token-weighted", &self.token_weighted),
            ("mean over replies", &self.per_example),
            ("bits per byte", &self.bits_per_byte),
        ]
    }
}

/// Perplexity of `model` on one side of `pairs`, reply tokens only; the end of text counts as a token.
///
/// Intervals are bootstrapped over replies. `texts` are the pairs that `pairs` was tokenised from.
///
/// # Errors
/// The pairs do not fit the model.
pub fn perplexity(model: &Gpt, pairs: &TokenizedPairs, texts: &[Pair], side: Side, seed: u64) -> Result<Perplexity> {
    let logps = score::score_replies(model, pairs, &[side], &Compute::default())?.remove(0);
    let nll: Vec<f64> = logps.into_iter().map(|logp| -f64::from(logp)).collect();
    let tokens: Vec<usize> = pairs.pairs.iter().map(|p| p.reply(side).len()).collect();
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
