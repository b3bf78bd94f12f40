//! A model and a batch give log-probabilities: of every reply token, and summed over each reply.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use candle_core::{D, DType, Device, Tensor};

use crate::batch::{Batch, Side, TokenizedPairs};
use crate::checkpoint;
use crate::error::{Error, Result};
use crate::fused::{Compute, Guesses, Keep, Packed, Purpose, Workspace, with_weights};
use crate::gpu::GpuPass;
use crate::loss::{PairLogps, Values};
use crate::model::Gpt;
use crate::nn::{self, Dropout};
use crate::parallel::{self, Pool};

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
    logps_of_targets(&reply_logits(model, batch, dropout)?, batch)
}

/// log softmax of the logits of each reply token, at that token.
///
/// # Shapes
/// logits (N, V) -> (N)
///
/// # Errors
/// A failure of the tensor library.
pub fn logps_of_targets(logits: &Tensor, batch: &Batch) -> Result<Tensor> {
    Ok(nn::log_softmax(logits)?.gather(&batch.targets.unsqueeze(1)?, 1)?.squeeze(1)?)
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

/// What the model would have said by itself at each reply token.
///
/// # Shapes
/// logits (N, V), targets (N)
///
/// # Errors
/// A failure of the tensor library.
pub fn guesses(logits: &Tensor, targets: &Tensor) -> Result<Guesses> {
    let logits = logits.detach();
    let right = logits.argmax(D::Minus1)?.eq(targets)?.to_vec1::<u8>()?.into_iter().map(|r| r == 1).collect();
    let logp = nn::log_softmax(&logits)?;
    let entropy = (logp.exp()? * &logp)?.sum(D::Minus1)?.neg()?.to_dtype(DType::F32)?.to_vec1()?;
    Ok(Guesses { right, entropy })
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

/// Pairs scored in one pass.
const SCORE_BATCH: usize = 16;

/// Scores both replies of every pair, without gradients and without dropout.
///
/// # Errors
/// The pairs do not fit the model.
pub fn score_pairs(model: &Gpt, pairs: &TokenizedPairs) -> Result<ReferenceLogps> {
    score_pairs_with(model, pairs, &Compute::default())
}

/// [`score_pairs`] in the way that a run computes: what is compared must be computed alike.
///
/// # Errors
/// The pairs do not fit the model, or the processor cannot do what `compute` asks for.
pub fn score_pairs_with(model: &Gpt, pairs: &TokenizedPairs, compute: &Compute) -> Result<ReferenceLogps> {
    let mut sides = score_replies(model, pairs, &[Side::Chosen, Side::Rejected], compute)?;
    let (rejected, chosen) = (sides.remove(1), sides.remove(0));
    Ok(ReferenceLogps { chosen, rejected, from_cache: false })
}

/// log π(reply | prompt) of every pair, for each of the `sides`, without gradients and without dropout.
///
/// # Errors
/// The pairs do not fit the model, or the processor cannot do what `compute` asks for.
pub fn score_replies(model: &Gpt, pairs: &TokenizedPairs, sides: &[Side], compute: &Compute) -> Result<Vec<Vec<f32>>> {
    if sides.is_empty() {
        return Ok(vec![]);
    }
    let batches = pairs.by_length(SCORE_BATCH);
    let scored = if compute.composed {
        // A frozen copy builds no graph, so that nothing is kept for a backward pass.
        let frozen = model.freeze()?;
        parallel::map(&batches, |indices| {
            let batch = pairs.batch_of(indices, sides)?;
            Ok(sequence_logps(&frozen, &batch, &mut Dropout::off())?.to_vec1::<f32>()?)
        })?
    } else {
        let packs = batches.iter().map(|indices| pairs.packed(indices, sides, compute.share_prompts));
        packed_logps(model, &packs.collect::<Result<Vec<_>>>()?, compute)?
    };
    let mut logps = vec![vec![0f32; pairs.len()]; sides.len()];
    for (indices, values) in batches.iter().zip(scored) {
        for (&i, values) in indices.iter().zip(values.chunks_exact(sides.len())) {
            (0..sides.len()).for_each(|side| logps[side][i] = values[side]);
        }
    }
    Ok(logps)
}

/// log π of every reply in each of the packs, which are scored side by side.
///
/// # Errors
/// Sequences that do not fit the model.
pub fn packed_logps(model: &Gpt, packs: &[Packed], compute: &Compute) -> Result<Vec<Vec<f32>>> {
    static WORKSPACES: Pool<Workspace> = Pool::new();
    if let Some(gpu) = compute.gpu()? {
        let mut pass = GpuPass::new(&gpu, model, compute)?;
        return parallel::one_by_one(packs, |packed| {
            Ok(packed.sum_by_sequence(&pass.forward(packed, Keep::Nothing, None)?))
        });
    }
    with_weights(model, compute.precision, Purpose::Score, |weights| {
        parallel::map(packs, |packed| {
            let logps = WORKSPACES.with(|w| w.forward(weights, packed, Keep::Nothing, None))?;
            Ok(packed.sum_by_sequence(&logps))
        })
    })
}

/// [`score_pairs`] of a reference model, kept in `cache` under a key of its weights and of the pairs' ids.
///
/// The ids stand for data and tokenizer together, so a change of any of the three gives another key.
///
/// # Errors
/// The pairs do not fit the model, or the cache cannot be written. A damaged cache file is computed again.
pub fn reference_logps(reference: &Gpt, pairs: &TokenizedPairs, cache: Option<&Path>) -> Result<ReferenceLogps> {
    reference_logps_with(reference, pairs, cache, &Compute::default())
}

/// [`reference_logps`] in the way that a run computes.
///
/// # Errors
/// As [`reference_logps`].
pub fn reference_logps_with(
    reference: &Gpt,
    pairs: &TokenizedPairs,
    cache: Option<&Path>,
    compute: &Compute,
) -> Result<ReferenceLogps> {
    let Some(folder) = cache else {
        return score_pairs_with(reference, pairs, compute);
    };
    // Runs that begin together share one scoring: the others find it in the cache.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let how = compute.name()?;
    let path = folder.join(format!("ref_logps-{}-{}-{how}.safetensors", reference.hash()?, pairs.hash));
    if path.exists()
        && let Ok(mut tensors) = checkpoint::read_tensors(&path)
    {
        let mut take =
            |name: &str| tensors.remove(name).and_then(|t| t.to_vec1::<f32>().ok()).filter(|v| v.len() == pairs.len());
        if let (Some(chosen), Some(rejected)) = (take("chosen"), take("rejected")) {
            return Ok(ReferenceLogps { chosen, rejected, from_cache: true });
        }
    }
    let logps = score_pairs_with(reference, pairs, compute)?;
    let tensor = |v: &[f32]| Tensor::new(v, &Device::Cpu);
    let tensors =
        BTreeMap::from([("chosen".into(), tensor(&logps.chosen)?), ("rejected".into(), tensor(&logps.rejected)?)]);
    checkpoint::write_tensors(&path, &tensors, HashMap::new())?;
    Ok(logps)
}

impl ReferenceLogps {
    fn check(&self, pairs: &TokenizedPairs, indices: &[usize]) -> Result<()> {
        let n = self.chosen.len().min(self.rejected.len()).min(pairs.len());
        match indices.iter().find(|&&i| i >= n) {
            Some(i) => Err(Error::new("no such pair", i.to_string(), format!("choose indices below {n}"))),
            None => Ok(()),
        }
    }

    /// The reference's log-probabilities beside a policy's of the first so many pairs, one scoring beside the other.
    ///
    /// # Errors
    /// More pairs than the reference has scored.
    pub fn beside_scores(&self, policy: ReferenceLogps, pairs: &TokenizedPairs) -> Result<PairLogps> {
        let indices: Vec<usize> = (0..pairs.len()).collect();
        let tensor = |v: Vec<f32>| Tensor::from_vec(v, pairs.len(), &Device::Cpu);
        self.beside(tensor(policy.chosen)?, tensor(policy.rejected)?, pairs, &indices)
    }

    /// The same from log π of every reply token, with their gradients: all tokens of the first pair's chosen reply, of
    /// its rejected reply, of the next pair's chosen reply, and so on.
    ///
    /// # Shapes
    /// token_logps (N), B indices -> four vectors (B)
    ///
    /// # Errors
    /// An index outside.
    pub fn beside_tokens(&self, token_logps: &Tensor, pairs: &TokenizedPairs, indices: &[usize]) -> Result<PairLogps> {
        self.check(pairs, indices)?;
        let mut sequence = vec![];
        for (i, &index) in indices.iter().enumerate() {
            for (side, reply) in [Side::Chosen, Side::Rejected].into_iter().enumerate() {
                sequence.extend(std::iter::repeat_n((2 * i + side) as u32, pairs.pairs[index].reply(reply).len()));
            }
        }
        let (n, device) = (sequence.len(), token_logps.device());
        let zeros = Tensor::zeros(2 * indices.len(), token_logps.dtype(), device)?;
        let sums = zeros.index_add(&Tensor::from_vec(sequence, n, device)?, token_logps, 0)?;
        let sums = sums.reshape((indices.len(), 2))?;
        let side = |i: usize| -> Result<Tensor> { Ok(sums.narrow(1, i, 1)?.squeeze(1)?) };
        self.beside(side(0)?, side(1)?, pairs, indices)
    }

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
        self.check(pairs, indices)?;
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
