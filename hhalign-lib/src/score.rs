//! A model and a batch give log-probabilities: of every reply token, and summed over each reply.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{D, DType, Tensor};

use crate::batch::{Batch, Side, TokenizedPairs};
use crate::checkpoint;
use crate::error::{Error, Result};
use crate::loss::{PairLogps, Values};
use crate::model::Gpt;
use crate::nn::{self, Dropout};
use crate::parallel;

/// log π(token | everything before it) of every reply token in the batch.
///
/// Only the N positions that predict a reply token go through the head: prompts and padding cost no logits.
///
/// # Shapes
/// batch of B sequences with N reply tokens in all -> (N)
///
/// # Errors
/// The batch does not fit the model.
pub fn token_logps(model: &Gpt, batch: &Batch, dropout: &mut Dropout) -> Result<Tensor> {
    let logits = reply_logits(model, batch, dropout)?;
    let index = batch.targets.unsqueeze(1)?;
    Ok(nn::log_softmax(&logits)?.gather(&index, 1)?.squeeze(1)?)
}

/// The logits that predict each reply token.
///
/// # Shapes
/// batch of B sequences with N reply tokens in all -> (N, V)
///
/// # Errors
/// The batch does not fit the model.
pub fn reply_logits(model: &Gpt, batch: &Batch, dropout: &mut Dropout) -> Result<Tensor> {
    let hidden = model.hidden(&batch.input_ids, dropout)?.reshape(((), model.config.n_embd))?;
    model.head(&hidden.index_select(&batch.predicted_from, 0)?)
}

/// Sums per-token values over each sequence of the batch.
///
/// # Shapes
/// (N) -> (B)
///
/// # Errors
/// A failure of the tensor library.
pub fn sum_by_sequence(values: &Tensor, batch: &Batch) -> Result<Tensor> {
    let zeros = Tensor::zeros(batch.n_sequences(), values.dtype(), values.device())?;
    Ok(zeros.index_add(&batch.sequence, values, 0)?)
}

/// log π(reply | prompt) of every sequence: the sum over its reply tokens.
///
/// # Shapes
/// batch of B sequences -> (B)
///
/// # Errors
/// The batch does not fit the model.
pub fn sequence_logps(model: &Gpt, batch: &Batch, dropout: &mut Dropout) -> Result<Tensor> {
    sum_by_sequence(&token_logps(model, batch, dropout)?, batch)
}

/// Share of reply tokens that the model's first guess gets right, and the mean entropy of its guesses in nats.
///
/// # Shapes
/// logits (N, V), targets (N)
///
/// # Errors
/// A failure of the tensor library.
pub fn guess_quality(logits: &Tensor, targets: &Tensor) -> Result<(f64, f64)> {
    let logits = logits.detach();
    let right = logits.argmax(D::Minus1)?.eq(targets)?.to_dtype(DType::F32)?.mean_all()?.to_scalar::<f32>()?;
    let logp = nn::log_softmax(&logits)?;
    let entropy = (logp.exp()? * &logp)?.sum(D::Minus1)?.mean_all()?.neg()?.to_dtype(DType::F32)?.to_scalar::<f32>()?;
    Ok((f64::from(right), f64::from(entropy)))
}

/// log ref(y | x) of both replies of every pair, computed once.
#[derive(Debug, Clone, PartialEq)]
pub struct ReferenceLogps {
    /// Of the chosen replies, in the order of the pairs.
    pub chosen: Vec<f32>,
    /// Of the rejected replies.
    pub rejected: Vec<f32>,
    /// Whether they were read from the cache.
    pub from_cache: bool,
}

/// Pairs scored at once where no gradient is kept.
const SCORE_BATCH: usize = 32;

/// Scores both replies of every pair, without gradients and without dropout.
///
/// # Errors
/// The pairs do not fit the model.
pub fn score_pairs(model: &Gpt, pairs: &TokenizedPairs) -> Result<ReferenceLogps> {
    let mut sides = score_replies(model, pairs, &[Side::Chosen, Side::Rejected])?;
    let (rejected, chosen) = (sides.remove(1), sides.remove(0));
    Ok(ReferenceLogps { chosen, rejected, from_cache: false })
}

/// log π(reply | prompt) of every pair, for each of the `sides`, without gradients and without dropout.
///
/// # Errors
/// The pairs do not fit the model.
pub fn score_replies(model: &Gpt, pairs: &TokenizedPairs, sides: &[Side]) -> Result<Vec<Vec<f32>>> {
    // A frozen copy builds no graph, so that nothing is kept for a backward pass.
    let frozen = model.freeze()?;
    let batches = pairs.by_length(SCORE_BATCH);
    let work: Vec<(usize, &[usize])> =
        batches.iter().flat_map(|i| (0..sides.len()).map(move |s| (s, i.as_slice()))).collect();
    let scored = parallel::map(&work, |&(side, indices)| {
        let batch = pairs.batch(indices, sides[side])?;
        Ok(sequence_logps(&frozen, &batch, &mut Dropout::off())?.to_vec1::<f32>()?)
    })?;
    let mut logps = vec![vec![0f32; pairs.len()]; sides.len()];
    for ((side, indices), values) in work.iter().zip(scored) {
        indices.iter().zip(values).for_each(|(&i, value)| logps[*side][i] = value);
    }
    Ok(logps)
}

/// [`score_pairs`] of a reference model, kept in `cache` under a key of its weights and of the pairs' ids.
///
/// The ids stand for data and tokenizer together, so a change of any of the three gives another key.
///
/// # Errors
/// The pairs do not fit the model, or the cache cannot be written. A damaged cache file is computed again.
pub fn reference_logps(reference: &Gpt, pairs: &TokenizedPairs, cache: Option<&Path>) -> Result<ReferenceLogps> {
    let Some(folder) = cache else {
        return score_pairs(reference, pairs);
    };
    let path = folder.join(format!("ref_logps-{}-{}.safetensors", reference.hash()?, pairs.hash));
    if path.exists()
        && let Ok(mut tensors) = checkpoint::read_tensors(&path)
    {
        let mut take =
            |name: &str| tensors.remove(name).and_then(|t| t.to_vec1::<f32>().ok()).filter(|v| v.len() == pairs.len());
        if let (Some(chosen), Some(rejected)) = (take("chosen"), take("rejected")) {
            return Ok(ReferenceLogps { chosen, rejected, from_cache: true });
        }
    }
    let logps = score_pairs(reference, pairs)?;
    let tensor = |v: &[f32]| Tensor::new(v, &candle_core::Device::Cpu);
    let tensors =
        BTreeMap::from([("chosen".into(), tensor(&logps.chosen)?), ("rejected".into(), tensor(&logps.rejected)?)]);
    checkpoint::write_tensors(&path, &tensors, HashMap::new())?;
    Ok(logps)
}

impl ReferenceLogps {
    /// The reference's log-probabilities of some pairs, beside those that a policy gave them.
    ///
    /// # Errors
    /// An index outside.
    pub fn beside(
        &self,
        policy_chosen: Tensor,
        policy_rejected: Tensor,
        pairs: &TokenizedPairs,
        indices: &[usize],
    ) -> Result<PairLogps> {
        if let Some(&i) = indices.iter().find(|&&i| i >= self.chosen.len() || i >= pairs.len()) {
            return Err(Error::new(
                "no such pair",
                i.to_string(),
                format!("choose indices below {}", self.chosen.len().min(pairs.len())),
            ));
        }
        let pick = |v: &[f32]| -> Result<Values> {
            let picked: Vec<f32> = indices.iter().map(|&i| v[i]).collect();
            Ok(Values::from_tensor(
                Tensor::from_vec(picked, indices.len(), policy_chosen.device())?.to_dtype(policy_chosen.dtype())?,
            ))
        };
        Ok(PairLogps {
            ref_chosen: pick(&self.chosen)?,
            ref_rejected: pick(&self.rejected)?,
            chosen_tokens: indices.iter().map(|&i| pairs.pairs[i].chosen.len()).collect(),
            rejected_tokens: indices.iter().map(|&i| pairs.pairs[i].rejected.len()).collect(),
            policy_chosen: Values::from_tensor(policy_chosen),
            policy_rejected: Values::from_tensor(policy_rejected),
        })
    }
}

/// Log-probabilities of the pairs at `indices` under the policy (with its gradient) and the reference.
///
/// # Shapes
/// B indices -> four vectors (B)
///
/// # Errors
/// An index outside, or pairs that do not fit the model.
pub fn pair_logps(
    policy: &Gpt,
    reference: &ReferenceLogps,
    pairs: &TokenizedPairs,
    indices: &[usize],
    dropout: &mut Dropout,
) -> Result<PairLogps> {
    let chosen = sequence_logps(policy, &pairs.batch(indices, Side::Chosen)?, dropout)?;
    let rejected = sequence_logps(policy, &pairs.batch(indices, Side::Rejected)?, dropout)?;
    reference.beside(chosen, rejected, pairs, indices)
}
