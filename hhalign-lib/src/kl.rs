//! How far a policy has gone from its reference: KL(π || ref), along replies that the policy itself draws.

use candle_core::{D, Tensor};

use crate::batch::TokenizedPairs;
use crate::error::{Error, Result};
use crate::executor;
use crate::fused::{Compute, Packed};
use crate::model::Gpt;
use crate::nn;
use crate::parallel;
use crate::sample::Sampler;
use crate::score;

/// Sequences in one pass: their logits over the whole vocabulary are held at once.
const BATCH: usize = 8;

/// KL(π || ref) of each reply as a whole, in nats: the sum over its tokens of Σ_v π(v | before) · log(π(v | before) / ref(v | before)).
///
/// Exact over the vocabulary at each token, and with replies drawn from the policy an unbiased estimate of the KL of whole
/// replies; its mean over prompts is what the frontier of reward against KL shows.
///
/// # Shapes
/// B prompts and B replies, as ids -> (B)
///
/// # Errors
/// Lists of different lengths, an empty prompt or reply, or sequences that do not fit the models.
///
/// # Source
/// arXiv 2305.18290, section 6.1: sequence-level KL as the sum of the KL of the tokens.
///
/// # Example
/// ```
/// use hhalign::{kl::reply_kl, model::{Gpt, GptConfig}};
/// let config = GptConfig { vocab_size: 20, block_size: 16, n_layer: 1, n_head: 2, n_embd: 8, dropout: 0.0, layer_norm_epsilon: 1e-5 };
/// let (policy, other) = (Gpt::new(config.clone(), 1)?, Gpt::new(config, 2)?);
/// let (prompts, replies) = (vec![vec![1, 2]], vec![vec![3, 4, 5]]);
/// assert_eq!(reply_kl(&policy, &policy, &prompts, &replies)?, [0.0]);
/// assert!(reply_kl(&policy, &other, &prompts, &replies)?[0] > 0.0);
/// # Ok::<(), hhalign::error::Error>(())
/// ```
pub fn reply_kl(policy: &Gpt, reference: &Gpt, prompts: &[Vec<u32>], replies: &[Vec<u32>]) -> Result<Vec<f64>> {
    reply_kl_with(policy, reference, prompts, replies, &Compute::default())
}

/// [`reply_kl`] in the way that a run computes.
///
/// # Errors
/// As [`reply_kl`], or the hardware cannot do what `compute` asks for.
pub fn reply_kl_with(
    policy: &Gpt,
    reference: &Gpt,
    prompts: &[Vec<u32>],
    replies: &[Vec<u32>],
    compute: &Compute,
) -> Result<Vec<f64>> {
    if prompts.len() != replies.len() {
        let got = format!("{} prompts, {} replies", prompts.len(), replies.len());
        return Err(Error::new("one reply to each prompt is needed", got, "draw replies to the same prompts"));
    }
    let both: Vec<(&Vec<u32>, &Vec<u32>)> = prompts.iter().zip(replies).collect();
    let packs = both.chunks(BATCH).map(|sequences| {
        let mut packed = Packed::default();
        sequences.iter().try_for_each(|(prompt, reply)| packed.push(prompt, &[reply.as_slice()]))?;
        Ok(packed)
    });
    let packs = packs.collect::<Result<Vec<_>>>()?;
    let (mut policy, mut reference) = (executor::for_model(compute, policy)?, executor::for_model(compute, reference)?);
    let mut kl = vec![];
    // Whole rows of logits are large: only as many packs as there are threads exist at once.
    for packs in packs.chunks(parallel::threads()) {
        let logits: Vec<(Tensor, Tensor)> = policy.logits(packs)?.into_iter().zip(reference.logits(packs)?).collect();
        let work: Vec<(&Packed, &(Tensor, Tensor))> = packs.iter().zip(&logits).collect();
        let sums = parallel::map(&work, |(packed, (policy, reference))| {
            let (pi, reference) = (nn::log_softmax(policy)?, nn::log_softmax(reference)?);
            let tokens = (pi.exp()? * (&pi - &reference)?)?.sum(D::Minus1)?;
            Ok(score::sum_by_sequence(&tokens, packed.layout())?.to_vec1::<f32>()?)
        })?;
        kl.extend(sums.into_iter().flatten().map(f64::from));
    }
    Ok(kl)
}

/// [`reply_kl_with`] of replies that the policy draws to the first `n` prompts of held-out pairs, at temperature 1.
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
    let room = policy.config.block_size - prompts.iter().map(Vec::len).max().unwrap_or(0);
    let max_new_tokens = MAX_REPLY.min(room.max(1));
    let sampler = Sampler { max_new_tokens, seed, compute: compute.clone(), ..Sampler::default() };
    let replies = sampler.ids(policy, prompts.clone(), Some(pairs.eos_id()))?;
    reply_kl_with(policy, reference, &prompts, &replies, compute)
}

/// Tokens of a drawn reply at most.
pub const MAX_REPLY: usize = 64;
