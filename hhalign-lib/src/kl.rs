//! How far a policy has gone from its reference: KL(π || ref), along replies that the policy itself draws.

use candle_core::D;

use crate::batch::{Batch, TokenizedPairs};
use crate::error::{Error, Result};
use crate::model::Gpt;
use crate::nn::{self, Dropout};
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
    if prompts.len() != replies.len() {
        let got = format!("{} prompts, {} replies", prompts.len(), replies.len());
        return Err(Error::new("one reply to each prompt is needed", got, "draw replies to the same prompts"));
    }
    // Frozen copies build no graph.
    let (policy, reference) = (policy.freeze()?, reference.freeze()?);
    let both: Vec<(&[u32], &[u32])> =
        prompts.iter().map(Vec::as_slice).zip(replies.iter().map(Vec::as_slice)).collect();
    let batches: Vec<&[(&[u32], &[u32])]> = both.chunks(BATCH).collect();
    let kl = parallel::map(&batches, |sequences| {
        let batch = Batch::new(sequences, 0)?;
        let of = |model: &Gpt| nn::log_softmax(&score::reply_logits(model, &batch, &mut Dropout::off())?);
        let (pi, reference) = (of(&policy)?, of(&reference)?);
        let tokens = (pi.exp()? * (&pi - &reference)?)?.sum(D::Minus1)?;
        Ok(score::sum_by_sequence(&tokens, &batch)?.to_vec1::<f32>()?)
    })?;
    Ok(kl.into_iter().flatten().map(f64::from).collect())
}

/// [`reply_kl`] of replies that the policy draws to the first `n` prompts of held-out pairs, at temperature 1.
///
/// # Errors
/// As [`Sampler::ids`] and [`reply_kl`].
pub fn from_held_out(policy: &Gpt, reference: &Gpt, pairs: &TokenizedPairs, n: usize, seed: u64) -> Result<Vec<f64>> {
    let prompts: Vec<Vec<u32>> = pairs.pairs.iter().take(n).map(|p| p.prompt.clone()).collect();
    let room = policy.config.block_size - prompts.iter().map(Vec::len).max().unwrap_or(0);
    let sampler = Sampler { max_new_tokens: MAX_REPLY.min(room.max(1)), seed, ..Sampler::default() };
    let replies = sampler.ids(policy, prompts.clone(), Some(pairs.eos_id()))?;
    reply_kl(policy, reference, &prompts, &replies)
}

/// Tokens of a drawn reply at most.
pub const MAX_REPLY: usize = 64;
