//! The distance of a policy from its reference: KL(π || ref) on replies that the policy draws.

use candle_core::{D, Tensor};

use crate::base::error::{Error, Result};
use crate::base::parallel;
use crate::compute::Compute;
use crate::compute::executor;
use crate::data::batch::TokenizedPairs;
use crate::data::packed::Packed;
use crate::infer::sample::Sampler;
use crate::infer::score;
use crate::model::Gpt;
use crate::model::ops;

/// Sequences in one pass, whose logits over the whole vocabulary are all in memory.
const BATCH: usize = 8;

/// Computes KL(π || ref) of each whole reply, in nats: the sum over its tokens of Σ_v π(v | before)
/// · log(π(v | before) / ref(v | before)).
///
/// The sum over the vocabulary is exact at each token. With replies drawn from the policy, the
/// result is an unbiased estimate of the KL of whole replies. The frontier of reward against KL
/// plots its mean over prompts.
///
/// # Shapes
/// B prompts and B replies, as ids -> (B)
///
/// # Errors
/// The lists have different lengths, a prompt or reply is empty, or a sequence does not fit the
/// models.
///
/// # Source
/// arXiv 2305.18290, section 6.1: sequence-level KL as the sum of the KL of the tokens.
///
/// # Example
/// ```
/// use hhalign::infer::kl::reply_kl;
/// use hhalign::model::{Gpt, GptConfig};
/// let (n_layer, n_head, n_embd, dropout) = (1, 2, 8, 0.0);
/// let config = GptConfig {
///     vocab_size: 20, block_size: 16, n_layer, n_head, n_embd, dropout, layer_norm_epsilon: 1e-5,
/// };
/// let (policy, other) = (Gpt::new(config.clone(), 1)?, Gpt::new(config, 2)?);
/// let (prompts, replies) = (vec![vec![1, 2]], vec![vec![3, 4, 5]]);
/// assert_eq!(reply_kl(&policy, &policy, &prompts, &replies)?, [0.0]);
/// assert!(reply_kl(&policy, &other, &prompts, &replies)?[0] > 0.0);
/// # Ok::<(), hhalign::base::error::Error>(())
/// ```
pub fn reply_kl(
    policy: &Gpt,
    reference: &Gpt,
    prompts: &[Vec<u32>],
    replies: &[Vec<u32>],
) -> Result<Vec<f64>> {
    reply_kl_with(policy, reference, prompts, replies, &Compute::default())
}

/// Computes [`reply_kl`] with the given compute settings.
///
/// # Errors
/// As [`reply_kl`], or the hardware does not support `compute`.
pub fn reply_kl_with(
    policy: &Gpt,
    reference: &Gpt,
    prompts: &[Vec<u32>],
    replies: &[Vec<u32>],
    compute: &Compute,
) -> Result<Vec<f64>> {
    if prompts.len() != replies.len() {
        let got = format!("{} prompts, {} replies", prompts.len(), replies.len());
        return Err(Error::new(
            "each prompt needs one reply",
            got,
            "draw replies to the same prompts",
        ));
    }
    let dialogues: Vec<(&Vec<u32>, &Vec<u32>)> = prompts.iter().zip(replies).collect();
    let packs = dialogues.chunks(BATCH).map(|sequences| {
        let mut packed = Packed::default();
        sequences
            .iter()
            .try_for_each(|(prompt, reply)| packed.push(prompt, &[reply.as_slice()]))?;
        Ok(packed)
    });
    let packs = packs.collect::<Result<Vec<_>>>()?;
    let (mut policy, mut reference) =
        (executor::for_model(compute, policy)?, executor::for_model(compute, reference)?);
    let mut kl = vec![];
    // Whole rows of logits are large, so at most as many packs as threads are in memory.
    for packs in packs.chunks(parallel::threads()) {
        let logits: Vec<(Tensor, Tensor)> =
            policy.logits(packs)?.into_iter().zip(reference.logits(packs)?).collect();
        let inputs: Vec<(&Packed, &(Tensor, Tensor))> = packs.iter().zip(&logits).collect();
        let sums = parallel::map(&inputs, |(packed, (policy, reference))| {
            let (pi, reference) = (ops::log_softmax(policy)?, ops::log_softmax(reference)?);
            let tokens = (pi.exp()? * (&pi - &reference)?)?.sum(D::Minus1)?;
            Ok(score::sum_by_sequence(&tokens, packed.layout())?.to_vec1::<f32>()?)
        })?;
        kl.extend(sums.into_iter().flatten().map(f64::from));
    }
    Ok(kl)
}

/// Computes [`reply_kl_with`] for replies that the policy draws at temperature 1 to the first `n`
/// prompts of held-out pairs.
///
/// # Errors
/// As [`Sampler::ids`] and [`reply_kl_with`].
pub fn from_held_out(
    policy: &Gpt,
    reference: &Gpt,
    pairs: &TokenizedPairs,
    n: usize,
    seed: u64,
    compute: &Compute,
) -> Result<Vec<f64>> {
    let prompts: Vec<Vec<u32>> = pairs.pairs.iter().take(n).map(|p| p.prompt.clone()).collect();
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let free = policy.config.block_size.saturating_sub(longest);
    let max_new_tokens = MAX_REPLY.min(free.max(1));
    let sampler = Sampler { max_new_tokens, seed, compute: compute.clone(), ..Sampler::default() };
    let replies = sampler.ids(policy, prompts.clone(), Some(pairs.eos_id()))?;
    reply_kl_with(policy, reference, &prompts, &replies, compute)
}

/// The maximum number of tokens of a drawn reply.
pub const MAX_REPLY: usize = 64;
