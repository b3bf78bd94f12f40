//! Log-probabilities under a model: of every reply token, and summed over each reply.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use candle_core::{Device, Tensor};

use crate::base::error::{Error, Result};
use crate::compute::Compute;
use crate::compute::executor;
pub use crate::compute::executor::composed::{
    logps_of_targets, reply_logits, sequence_logps, sum_by_sequence, token_logps, token_stats,
};
use crate::compute::executor::{Executor, Forward, TokenLogps};
use crate::data::batch::{Side, TokenizedPairs};
use crate::data::packed::Packed;
use crate::loss::PairLogps;
use crate::model::Gpt;
use crate::model::checkpoint;
use crate::model::ops::Dropout;

/// The log-probabilities log ref(y | x) of both replies of every pair, computed once.
#[derive(Debug, Clone, PartialEq)]
pub struct ReferenceLogps {
    /// Those of the chosen replies, in the order of the pairs.
    pub chosen: Vec<f32>,
    /// Those of the rejected replies, in the order of the pairs.
    pub rejected: Vec<f32>,
    /// Whether the values were read from the cache.
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

/// Scores both replies of every pair as [`score_pairs`] does, with the given compute settings.
/// Scores that are compared need the same settings.
///
/// # Errors
/// The pairs do not fit the model, or the hardware does not support `compute`.
pub fn score_pairs_with(
    model: &Gpt,
    pairs: &TokenizedPairs,
    compute: &Compute,
) -> Result<ReferenceLogps> {
    score_pairs_on(&mut *executor::for_model(compute, model)?, pairs, compute.share_prompts)
}

/// Scores both replies of every pair with an executor's weights.
pub(crate) fn score_pairs_on(
    executor: &mut dyn Executor,
    pairs: &TokenizedPairs,
    share_prompts: bool,
) -> Result<ReferenceLogps> {
    let mut sides =
        score_replies_on(executor, pairs, &[Side::Chosen, Side::Rejected], share_prompts)?;
    let (rejected, chosen) = (sides.remove(1), sides.remove(0));
    Ok(ReferenceLogps { chosen, rejected, from_cache: false })
}

/// Computes log π(reply | prompt) of every pair for each of the `sides`, without gradients and
/// without dropout.
///
/// # Errors
/// The pairs do not fit the model, or the hardware does not support `compute`.
pub fn score_replies(
    model: &Gpt,
    pairs: &TokenizedPairs,
    sides: &[Side],
    compute: &Compute,
) -> Result<Vec<Vec<f32>>> {
    score_replies_on(
        &mut *executor::for_model(compute, model)?,
        pairs,
        sides,
        compute.share_prompts,
    )
}

/// Computes [`score_replies`] with an executor's weights.
pub(crate) fn score_replies_on(
    executor: &mut dyn Executor,
    pairs: &TokenizedPairs,
    sides: &[Side],
    share_prompts: bool,
) -> Result<Vec<Vec<f32>>> {
    if sides.is_empty() {
        return Ok(vec![]);
    }
    let batches = pairs.by_length(SCORE_BATCH);
    let packs = batches.iter().map(|indices| pairs.packed(indices, sides, share_prompts));
    let scored = executor.score(&packs.collect::<Result<Vec<_>>>()?, &by_sequence)?;
    let mut logps = vec![vec![0f32; pairs.len()]; sides.len()];
    for (indices, values) in batches.iter().zip(scored) {
        for (&i, values) in indices.iter().zip(values.chunks_exact(sides.len())) {
            (0..sides.len()).for_each(|side| logps[side][i] = values[side]);
        }
    }
    Ok(logps)
}

/// Computes log π of every reply in each pack.
///
/// # Errors
/// A sequence does not fit the model.
pub fn packed_logps(model: &Gpt, packs: &[Packed], compute: &Compute) -> Result<Vec<Vec<f32>>> {
    executor::for_model(compute, model)?.score(packs, &by_sequence)
}

fn by_sequence(forward: &Forward) -> Result<Vec<f32>> {
    Ok(forward.logps.by_sequence())
}

/// Scores both replies of every pair with a reference model, and caches the result in the folder
/// `cache`. The key is the hash of the weights and of the pairs' ids.
///
/// The ids depend on data and tokenizer, so a change of data, tokenizer or weights changes the key.
///
/// # Errors
/// The pairs do not fit the model, or the cache cannot be written. A damaged cache file is not an
/// error: it is computed again.
pub fn reference_logps(
    reference: &Gpt,
    pairs: &TokenizedPairs,
    cache: Option<&Path>,
) -> Result<ReferenceLogps> {
    reference_logps_with(reference, pairs, cache, &Compute::default())
}

/// Computes [`reference_logps`] with the given compute settings.
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
    // Runs that start together share one scoring: the first one computes it, the others read the
    // cache.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let rounding = compute.name()?;
    let path = folder.join(format!(
        "ref_logps-{}-{}-{rounding}.safetensors",
        reference.hash()?,
        pairs.hash
    ));
    if path.exists()
        && let Ok(mut tensors) = checkpoint::read_tensors(&path)
    {
        let mut take = |name: &str| {
            tensors
                .remove(name)
                .and_then(|t| t.to_vec1::<f32>().ok())
                .filter(|v| v.len() == pairs.len())
        };
        if let (Some(chosen), Some(rejected)) = (take("chosen"), take("rejected")) {
            return Ok(ReferenceLogps { chosen, rejected, from_cache: true });
        }
    }
    let logps = score_pairs_with(reference, pairs, compute)?;
    let tensor = |v: &[f32]| Tensor::new(v, &Device::Cpu);
    let tensors = BTreeMap::from([
        ("chosen".into(), tensor(&logps.chosen)?),
        ("rejected".into(), tensor(&logps.rejected)?),
    ]);
    checkpoint::write_tensors(&path, &tensors, HashMap::new())?;
    Ok(logps)
}

impl ReferenceLogps {
    fn check(&self, pairs: &TokenizedPairs, indices: &[usize]) -> Result<()> {
        let n = self.chosen.len().min(self.rejected.len()).min(pairs.len());
        match indices.iter().find(|&&i| i >= n) {
            Some(i) => {
                Err(Error::new("no such pair", i.to_string(), format!("choose indices below {n}")))
            }
            None => Ok(()),
        }
    }

    /// Combines the reference's log-probabilities with a policy's, for the first `pairs.len()`
    /// pairs.
    ///
    /// # Errors
    /// There are more pairs than the reference has scored.
    pub fn with_policy_scores(
        &self,
        policy: ReferenceLogps,
        pairs: &TokenizedPairs,
    ) -> Result<PairLogps> {
        let indices: Vec<usize> = (0..pairs.len()).collect();
        let tensor = |v: Vec<f32>| Tensor::from_vec(v, pairs.len(), &Device::Cpu);
        self.with_policy(tensor(policy.chosen)?, tensor(policy.rejected)?, pairs, &indices)
    }

    /// Combines the reference's log-probabilities with a policy's.
    ///
    /// # Errors
    /// As [`ReferenceLogps::with_policy_scores`].
    #[deprecated(since = "0.2.0", note = "renamed to with_policy_scores")]
    pub fn beside_scores(
        &self,
        policy: ReferenceLogps,
        pairs: &TokenizedPairs,
    ) -> Result<PairLogps> {
        self.with_policy_scores(policy, pairs)
    }

    /// Combines the reference's log-probabilities with a policy's.
    ///
    /// # Errors
    /// As [`ReferenceLogps::with_policy`].
    #[deprecated(since = "0.2.0", note = "renamed to with_policy")]
    pub fn beside(
        &self,
        policy_chosen: Tensor,
        policy_rejected: Tensor,
        pairs: &TokenizedPairs,
        indices: &[usize],
    ) -> Result<PairLogps> {
        self.with_policy(policy_chosen, policy_rejected, pairs, indices)
    }

    /// Combines the reference's log-probabilities with log π of every reply token, which keep their
    /// gradients. The sequences are the chosen and the rejected reply of each pair in turn.
    pub(crate) fn with_policy_tokens(
        &self,
        token_logps: &TokenLogps<Tensor>,
        pairs: &TokenizedPairs,
        indices: &[usize],
    ) -> Result<PairLogps> {
        self.check(pairs, indices)?;
        let sums = token_logps.by_sequence()?.reshape((indices.len(), 2))?;
        let side = |i: usize| -> Result<Tensor> { Ok(sums.narrow(1, i, 1)?.squeeze(1)?) };
        self.with_policy(side(0)?, side(1)?, pairs, indices)
    }

    /// Combines the reference's log-probabilities of the pairs at `indices` with a policy's.
    ///
    /// # Shapes
    /// two vectors (B), B indices -> four vectors (B)
    ///
    /// # Errors
    /// An index is out of range, or the policy has not one number for each index.
    pub fn with_policy(
        &self,
        policy_chosen: Tensor,
        policy_rejected: Tensor,
        pairs: &TokenizedPairs,
        indices: &[usize],
    ) -> Result<PairLogps> {
        self.check(pairs, indices)?;
        let dtype = policy_chosen.dtype();
        let fits =
            |t: &Tensor| t.dims() == [indices.len()] && t.dtype() == dtype && dtype.is_float();
        if !fits(&policy_chosen) || !fits(&policy_rejected) {
            return Err(Error::new(
                "a policy's log-probabilities must be one number for each pair, in one dtype",
                format!("{policy_chosen:?} and {policy_rejected:?} for {} pairs", indices.len()),
                "sum over the tokens of each reply, as sequence_logps does",
            ));
        }
        let pick = |v: &[f32]| -> Result<Tensor> {
            let picked: Vec<f32> = indices.iter().map(|&i| v[i]).collect();
            Ok(Tensor::from_vec(picked, indices.len(), policy_chosen.device())?.to_dtype(dtype)?)
        };
        Ok(PairLogps {
            ref_chosen: pick(&self.chosen)?,
            ref_rejected: pick(&self.rejected)?,
            chosen_tokens: indices.iter().map(|&i| pairs.pairs[i].chosen.len()).collect(),
            rejected_tokens: indices.iter().map(|&i| pairs.pairs[i].rejected.len()).collect(),
            policy_chosen,
            policy_rejected,
        })
    }
}

/// Computes the log-probabilities of the pairs at `indices` under the policy, with its gradient,
/// and under the reference.
///
/// # Shapes
/// B indices -> four vectors (B)
///
/// # Errors
/// An index is out of range, or a pair does not fit the model.
pub fn pair_logps(
    policy: &Gpt,
    reference: &ReferenceLogps,
    pairs: &TokenizedPairs,
    indices: &[usize],
    dropout: &mut Dropout,
) -> Result<PairLogps> {
    let chosen = sequence_logps(policy, &pairs.batch(indices, Side::Chosen)?, dropout)?;
    let rejected = sequence_logps(policy, &pairs.batch(indices, Side::Rejected)?, dropout)?;
    reference.with_policy(chosen, rejected, pairs, indices)
}
