//! Perplexity of held-out replies.

use crate::base::error::Result;
use crate::compute::Compute;
use crate::data::Pair;
use crate::data::batch::{Side, TokenizedPairs};
use crate::eval::measure::Metrics;
use crate::eval::measure::{Better, Cases, Measure, PERPLEXITIES};
use crate::infer::score;
use crate::model::Gpt;

/// Perplexity on one side of the held-out pairs.
#[derive(Debug, Clone)]
pub struct Perplexity {
    /// exp(Σ NLL / Σ tokens): long replies have more weight.
    pub token_weighted: Measure,
    /// Mean over replies of exp(NLL / tokens): every reply has the same weight.
    pub per_example: Measure,
    /// Σ NLL / (ln 2 · bytes) over replies that were not truncated: comparable between tokenizers.
    pub bits_per_byte: Measure,
    /// Number of scored reply tokens.
    pub tokens: usize,
}

impl Metrics for Perplexity {
    fn title(&self) -> String {
        format!("Perplexity, {} reply tokens", crate::show::table::grouped(self.tokens as i64))
    }

    fn measures(&self) -> Vec<&Measure> {
        vec![&self.token_weighted, &self.per_example, &self.bits_per_byte]
    }
}

/// Returns the perplexity of `model` on one side of `pairs`, on reply tokens only; the end of text
/// counts as a token.
///
/// Intervals are over replies. `texts` are the pairs that `pairs` was tokenised from.
///
/// # Errors
/// The pairs do not fit the model.
pub fn perplexity(
    model: &Gpt,
    pairs: &TokenizedPairs,
    texts: &[Pair],
    side: Side,
    seed: u64,
) -> Result<Perplexity> {
    perplexity_with(model, pairs, texts, side, seed, &Compute::default())
}

/// Returns [`perplexity`] with given settings of the computation.
///
/// # Errors
/// The pairs do not fit the model, or the hardware lacks what `compute` requires.
pub fn perplexity_with(
    model: &Gpt,
    pairs: &TokenizedPairs,
    texts: &[Pair],
    side: Side,
    seed: u64,
    compute: &Compute,
) -> Result<Perplexity> {
    let logps = score::score_replies(model, pairs, &[side], compute)?.remove(0);
    let nll: Vec<f64> = logps.into_iter().map(|logp| -f64::from(logp)).collect();
    let tokens: Vec<f64> = pairs.pairs.iter().map(|p| p.reply(side).len() as f64).collect();
    let bits = |p: &Pair| {
        let text = if side == Side::Chosen { &p.chosen } else { &p.rejected };
        text.len() as f64 * std::f64::consts::LN_2
    };
    // A truncated reply has bytes that were not scored, so the value per byte leaves it out.
    let whole: Vec<usize> = (0..pairs.len()).filter(|&i| pairs.is_whole(i, side)).collect();
    let (names, better) = match side {
        Side::Chosen => (
            [PERPLEXITIES[0], "mean over chosen replies", "bits per byte of chosen replies"],
            Better::Lower,
        ),
        Side::Rejected => (
            [PERPLEXITIES[1], "mean over rejected replies", "bits per byte of rejected replies"],
            Better::Neither,
        ),
    };
    let ratio = |name, above: Vec<f64>, below: Vec<f64>, exp| {
        Measure::plain(name, better, Cases::Ratio { above, below, exp }, seed)
    };
    let n_tokens = tokens.iter().sum::<f64>() as usize;
    let each: Vec<f64> = nll.iter().zip(&tokens).map(|(l, t)| (l / t).exp()).collect();
    let of_whole = |values: &dyn Fn(usize) -> f64| whole.iter().map(|&i| values(i)).collect();
    Ok(Perplexity {
        bits_per_byte: ratio(
            names[2],
            of_whole(&|i| nll[i]),
            of_whole(&|i| bits(&texts[i])),
            false,
        )
        .into_detail(),
        per_example: Measure::plain(names[1], better, Cases::Mean(each), seed).into_detail(),
        token_weighted: ratio(names[0], nll, tokens, true),
        tokens: n_tokens,
    })
}
