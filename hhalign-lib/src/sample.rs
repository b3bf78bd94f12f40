//! Seeded decoding with a cache of keys and values.

use candle_core::{DType, Device, Tensor};
use rand::Rng as _;

use crate::error::{Error, Result};
use crate::model::{Gpt, KvCache};
use crate::parallel;
use crate::rng::{Rng, stream};
use crate::tokenize::Tokenizer;

/// How replies are drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampler {
    /// Logits are divided by it; 0 takes the likeliest token each time.
    pub temperature: f64,
    /// Only the likeliest tokens that together hold this probability are drawn from; 1 draws from all.
    pub top_p: f64,
    /// Longest reply, in tokens.
    pub max_new_tokens: usize,
    /// Seed; every prompt has a random stream of its own, so a reply does not depend on its neighbours.
    pub seed: u64,
}

impl Default for Sampler {
    fn default() -> Self {
        Self { temperature: 1.0, top_p: 1.0, max_new_tokens: 64, seed: 0 }
    }
}

/// A drawn reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its text, without the end of text.
    pub text: String,
    /// Its ids, the end of text among them where it was drawn.
    pub ids: Vec<u32>,
    /// Whether it ended by itself, and not by `max_new_tokens` or the model's block.
    pub ended: bool,
}

/// Prompts decoded together at most; they share a length.
const MAX_BATCH: usize = 32;

impl Sampler {
    /// Says what is wrong with the settings, if anything.
    ///
    /// # Errors
    /// The setting, its value and its range.
    pub fn check(&self) -> Result<()> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(Error::new(
                "temperature must not be negative",
                self.temperature.to_string(),
                "0 is greedy, 1 the model's own distribution",
            ));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(Error::new("top_p must lie in (0, 1]", self.top_p.to_string(), "1 draws from all tokens"));
        }
        if self.max_new_tokens == 0 {
            return Err(Error::new("max_new_tokens must be at least 1", "0", "64 is the default"));
        }
        Ok(())
    }

    /// One reply to each prompt, in order.
    ///
    /// A prompt that leaves too little of the model's block for a reply is cut in front. The reply to a prompt depends
    /// on the model, the settings, the prompt and its place in the list, and on nothing else.
    ///
    /// # Errors
    /// A setting out of range, an empty prompt, or a failure of the model.
    ///
    /// # Example
    /// ```
    /// use hhalign::{data::Dataset, model::{Gpt, Preset}, sample::Sampler, tokenize::Tokenizer};
    /// let tokenizer = Tokenizer::train(&Dataset::embedded(1, 100)?.pairs, 300)?;
    /// let model = Gpt::new(Preset::Toy.config(tokenizer.vocab_size()), 1)?;
    /// let sampler = Sampler { max_new_tokens: 4, ..Sampler::default() };
    /// let prompt = "\n\nHuman: Hi\n\nAssistant:".to_string();
    /// assert_eq!(sampler.replies(&model, &tokenizer, &[prompt.clone()])?, sampler.replies(&model, &tokenizer, &[prompt])?);
    /// # Ok::<(), hhalign::error::Error>(())
    /// ```
    pub fn replies(&self, model: &Gpt, tokenizer: &Tokenizer, prompts: &[String]) -> Result<Vec<Reply>> {
        self.check()?;
        let frozen = model.freeze()?;
        let room = model.config.block_size.saturating_sub(self.max_new_tokens).max(1);
        let mut encoded = Vec::with_capacity(prompts.len());
        for (i, prompt) in prompts.iter().enumerate() {
            let mut ids = tokenizer.encode(prompt)?;
            if ids.is_empty() {
                return Err(Error::new(
                    format!("prompt {i} is empty"),
                    "no token",
                    "a prompt ends with \"\\n\\nAssistant:\"",
                ));
            }
            ids.drain(..ids.len().saturating_sub(room));
            encoded.push((i, ids));
        }
        // Prompts of one length share a cache without padding, so that a batch changes nothing but speed.
        encoded.sort_by_key(|(i, ids)| (ids.len(), *i));
        let mut groups: Vec<Vec<(usize, Vec<u32>)>> = vec![];
        for item in encoded {
            match groups.last_mut() {
                Some(group) if group.len() < MAX_BATCH && group[0].1.len() == item.1.len() => group.push(item),
                _ => groups.push(vec![item]),
            }
        }
        let mut replies: Vec<(usize, Reply)> =
            parallel::map(&groups, |group| self.decode_group(&frozen, tokenizer, group))?
                .into_iter()
                .flatten()
                .collect();
        replies.sort_by_key(|r| r.0);
        Ok(replies.into_iter().map(|r| r.1).collect())
    }

    fn decode_group(
        &self,
        model: &Gpt,
        tokenizer: &Tokenizer,
        group: &[(usize, Vec<u32>)],
    ) -> Result<Vec<(usize, Reply)>> {
        let mut rngs: Vec<Rng> = group.iter().map(|(i, _)| stream(self.seed, "sample", &[*i as u64])).collect();
        let mut drawn: Vec<Vec<u32>> = vec![vec![]; group.len()];
        let mut cache = KvCache::new(model);
        let mut alive: Vec<usize> = (0..group.len()).collect();
        let mut input: Vec<u32> = group.iter().flat_map(|(_, ids)| ids.iter().copied()).collect();
        let limit =
            self.max_new_tokens.min(model.config.block_size - group[0].1.len().min(model.config.block_size - 1));
        while !alive.is_empty() {
            let t = input.len() / alive.len();
            let ids = Tensor::from_vec(std::mem::take(&mut input), (alive.len(), t), &Device::Cpu)?;
            let hidden = model.hidden_cached(&ids, &mut cache)?;
            let logits =
                model.head(&hidden.narrow(1, t - 1, 1)?.squeeze(1)?)?.to_dtype(DType::F32)?.to_vec2::<f32>()?;
            let mut rows = vec![];
            let mut still = vec![];
            for (row, &g) in alive.iter().enumerate() {
                let id = self.draw(&logits[row], &mut rngs[g]);
                drawn[g].push(id);
                if id != tokenizer.eos_id() && drawn[g].len() < limit {
                    rows.push(row as u32);
                    still.push(g);
                    input.push(id);
                }
            }
            if still.len() < alive.len() && !still.is_empty() {
                let n = rows.len();
                cache.keep_rows(&Tensor::from_vec(rows, n, &Device::Cpu)?)?;
            }
            alive = still;
        }
        let replies = group.iter().zip(drawn).map(|((i, _), ids)| {
            let ended = ids.last() == Some(&tokenizer.eos_id());
            Ok((*i, Reply { text: tokenizer.decode(&ids)?, ids, ended }))
        });
        replies.collect()
    }

    /// Draws an id from logits.
    fn draw(&self, logits: &[f32], rng: &mut Rng) -> u32 {
        let best = (0..logits.len())
            .max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)))
            .expect("a vocabulary") as u32;
        if self.temperature == 0.0 {
            return best;
        }
        let max = f64::from(logits[best as usize]);
        let mut weights: Vec<(u32, f64)> = logits
            .iter()
            .enumerate()
            .map(|(i, &l)| (i as u32, ((f64::from(l) - max) / self.temperature).exp()))
            .collect();
        let mut total: f64 = weights.iter().map(|w| w.1).sum();
        if self.top_p < 1.0 {
            weights.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            let mut held = 0.0;
            let keep = weights
                .iter()
                .take_while(|w| {
                    let more = held < self.top_p * total;
                    held += w.1;
                    more
                })
                .count();
            weights.truncate(keep);
            total = weights.iter().map(|w| w.1).sum();
        }
        let mut point = rng.random::<f64>() * total;
        for &(id, weight) in &weights {
            point -= weight;
            if point < 0.0 {
                return id;
            }
        }
        best
    }
}
