//! Seeded decoding with a cache of keys and values.

use rand::Rng as _;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::fused::{Decoder, Precision, Purpose, Weights, with_weights};
use crate::gpu::{Gpu, GpuDecoder};
use crate::model::Gpt;
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

impl Reply {
    /// A text that somebody wrote, such as the data set's preferred reply, beside drawn ones.
    pub fn from_text(text: &str) -> Self {
        Self { text: text.into(), ids: vec![], ended: true }
    }
}

/// Prompts decoded together at most.
const MAX_BATCH: usize = 16;
/// The same on a GPU.
const MAX_GPU_BATCH: usize = 256;

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
        let encoded = prompts.iter().map(|prompt| tokenizer.encode(prompt)).collect::<Result<Vec<_>>>()?;
        read(self.ids(model, encoded, Some(tokenizer.eos_id()))?, tokenizer)
    }

    /// `k` replies to each prompt: k lists, each as [`Sampler::replies`] gives it. The first is that of `replies` itself, the
    /// others have seeds of their own.
    ///
    /// # Errors
    /// As [`Sampler::replies`].
    pub fn samples(&self, model: &Gpt, tokenizer: &Tokenizer, prompts: &[String], k: usize) -> Result<Vec<Vec<Reply>>> {
        let draw = |i: usize| Self { seed: self.seed ^ ((i as u64) << 32), ..self.clone() };
        (0..k).map(|i| draw(i).replies(model, tokenizer, prompts)).collect()
    }

    /// Replies of a mixture of two models: softmax(λ h_π + (1 - λ) h_ref) at each token, from their logits h.
    ///
    /// For a policy trained with β, λ approximates what training with β / λ would have given: 0 is the reference, 1 the
    /// policy, above 1 goes further than the training did. See [`Sampler::replies_at`].
    ///
    /// # Errors
    /// As [`Sampler::replies`]; a λ that is not a number, or models with different vocabularies.
    ///
    /// # Source
    /// DeRa, arXiv 2402.02992, proposition 1.
    pub fn replies_between(
        &self,
        policy: &Gpt,
        reference: &Gpt,
        lambda: f64,
        tokenizer: &Tokenizer,
        prompts: &[String],
    ) -> Result<Vec<Reply>> {
        if !lambda.is_finite() {
            return Err(Error::new("lambda must be a number", lambda.to_string(), "0 is the reference, 1 the policy"));
        }
        if policy.config.vocab_size != reference.config.vocab_size {
            let got = format!("{} and {} ids", policy.config.vocab_size, reference.config.vocab_size);
            return Err(Error::new("both models need one vocabulary", got, "give a policy and its own reference"));
        }
        let encoded = prompts.iter().map(|prompt| tokenizer.encode(prompt)).collect::<Result<Vec<_>>>()?;
        let mixture = [(policy, lambda), (reference, 1.0 - lambda)];
        read(self.mixed_ids(&mixture, encoded, Some(tokenizer.eos_id()))?, tokenizer)
    }

    /// Replies as if the policy, which was trained with `trained_beta`, had been trained with `beta`: decoded from the
    /// policy and its reference without any training.
    ///
    /// # Errors
    /// As [`Sampler::replies_between`]; a β that is not positive.
    pub fn replies_at(
        &self,
        beta: f64,
        (policy, trained_beta): (&Gpt, f64),
        reference: &Gpt,
        tokenizer: &Tokenizer,
        prompts: &[String],
    ) -> Result<Vec<Reply>> {
        if let Some(wrong) = [beta, trained_beta].into_iter().find(|b| !(*b > 0.0 && b.is_finite())) {
            return Err(Error::new(
                "beta must be positive",
                wrong.to_string(),
                "the trained one gives the policy itself",
            ));
        }
        self.replies_between(policy, reference, trained_beta / beta, tokenizer, prompts)
    }

    /// The same on ids: one reply to each prompt, in order; it ends with `eos_id` unless it was cut.
    ///
    /// # Errors
    /// As [`Sampler::replies`].
    pub fn ids(&self, model: &Gpt, prompts: Vec<Vec<u32>>, eos_id: Option<u32>) -> Result<Vec<Vec<u32>>> {
        self.mixed_ids(&[(model, 1.0)], prompts, eos_id)
    }

    fn mixed_ids(
        &self,
        models: &[(&Gpt, f64)],
        mut prompts: Vec<Vec<u32>>,
        eos_id: Option<u32>,
    ) -> Result<Vec<Vec<u32>>> {
        self.check()?;
        // A prompt keeps at least half of the block, however long a reply may be.
        let block = models.iter().map(|(model, _)| model.config.block_size).min().unwrap_or(0);
        let room = block.saturating_sub(self.max_new_tokens).max(block / 2).max(1);
        if let Some(i) = prompts.iter().position(Vec::is_empty) {
            let fix = "a prompt ends with \"\\n\\nAssistant:\"";
            return Err(Error::new(format!("prompt {i} is empty"), "no token", fix));
        }
        for ids in &mut prompts {
            ids.drain(..ids.len().saturating_sub(room));
        }
        // Of like lengths, so that a group ends together; what a prompt gets does not depend on its neighbours.
        let mut order: Vec<usize> = (0..prompts.len()).collect();
        order.sort_by_key(|&i| prompts[i].len());
        if let Some(gpu) = Device::Auto.gpu()? {
            return self.ids_on(&gpu, models, block, &prompts, &order, eos_id);
        }
        let size = order.len().div_ceil(parallel::threads()).clamp(1, MAX_BATCH);
        let groups: Vec<&[usize]> = order.chunks(size).collect();
        let decode = |models: &[(&Weights<'_>, f64)]| {
            parallel::map(&groups, |group| self.decode_group(models, block, &prompts, group, eos_id))
        };
        let lend = |model, work: &dyn Fn(&Weights<'_>) -> Result<_>| {
            with_weights(model, Precision::F32, Purpose::Decode, work)
        };
        let drawn = match *models {
            [(policy, one), (reference, other)] => {
                lend(policy, &|w| lend(reference, &|r| decode(&[(w, one), (r, other)])))?
            }
            _ => lend(models[0].0, &|w| decode(&[(w, 1.0)]))?,
        };
        let mut replies: Vec<(usize, Vec<u32>)> = order.iter().copied().zip(drawn.into_iter().flatten()).collect();
        replies.sort_by_key(|r| r.0);
        Ok(replies.into_iter().map(|r| r.1).collect())
    }

    /// All prompts on a GPU, as many at a time as its memory holds. A mixture is drawn from on the processor.
    fn ids_on(
        &self,
        gpu: &Gpu,
        models: &[(&Gpt, f64)],
        block: usize,
        prompts: &[Vec<u32>],
        order: &[usize],
        eos_id: Option<u32>,
    ) -> Result<Vec<Vec<u32>>> {
        let Some(longest) = order.last().map(|&i| prompts[i].len()) else { return Ok(vec![]) };
        let length = (longest + self.max_new_tokens).min(block);
        let each: usize = models.iter().map(|(m, _)| GpuDecoder::bytes_per_sequence(m, length, Precision::F32)).sum();
        let at_once = ((gpu.memory_mb()?.0 << 20) / (3 * each)).clamp(1, MAX_GPU_BATCH);
        let decoder = |(model, share): &(&Gpt, f64)| {
            Ok((GpuDecoder::new(gpu, model, Precision::F32, at_once.min(order.len()), length)?, *share))
        };
        let mut decoders = models.iter().map(decoder).collect::<Result<Vec<_>>>()?;
        let mut replies: Vec<Vec<u32>> = vec![vec![]; prompts.len()];
        for group in order.chunks(at_once) {
            decoders.iter_mut().for_each(|(decoder, _)| decoder.clear());
            let mut rngs: Vec<Rng> = group.iter().map(|i| stream(self.seed, "sample", &[*i as u64])).collect();
            let texts: Vec<&[u32]> = group.iter().map(|&i| prompts[i].as_slice()).collect();
            let mut drawn: Vec<Vec<u32>> = vec![vec![]; group.len()];
            let mut alive: Vec<usize> = vec![];
            for (number, text) in texts.iter().enumerate() {
                for (decoder, _) in &mut decoders {
                    decoder.push(text)?;
                }
                alive.push(number);
                let last = number + 1 == texts.len();
                // Prompts are read in whole packs.
                if last || decoders[0].0.is_full(texts[number + 1].len()) {
                    decoders.iter_mut().try_for_each(|(decoder, _)| decoder.read())?;
                    let ids = self.draw_on(&mut decoders, &alive, &mut rngs)?;
                    alive.drain(..).zip(ids).for_each(|(g, id)| drawn[g].push(id));
                }
            }
            let limit = |g: usize| self.max_new_tokens.min(block - texts[g].len().min(block - 1));
            loop {
                let goes_on = |g: &usize| drawn[*g].last().copied() != eos_id && drawn[*g].len() < limit(*g);
                let alive: Vec<usize> = (0..group.len()).filter(goes_on).collect();
                if alive.is_empty() {
                    break;
                }
                let last: Vec<u32> = alive.iter().filter_map(|&g| drawn[g].last().copied()).collect();
                decoders.iter_mut().try_for_each(|(decoder, _)| decoder.append(&alive, &last))?;
                let ids = self.draw_on(&mut decoders, &alive, &mut rngs)?;
                alive.iter().zip(ids).for_each(|(&g, id)| drawn[g].push(id));
            }
            group.iter().zip(drawn).for_each(|(&i, ids)| replies[i] = ids);
        }
        Ok(replies)
    }

    /// A token behind each of the sequences that decoders have just read.
    fn draw_on(&self, decoders: &mut [(GpuDecoder, f64)], alive: &[usize], rngs: &mut [Rng]) -> Result<Vec<u32>> {
        if let ([(decoder, _)], true) = (&mut *decoders, self.top_p >= 1.0) {
            let uniform: Vec<f32> = alive.iter().map(|&g| rngs[g].random::<f64>() as f32).collect();
            return decoder.draw(&uniform, self.temperature as f32);
        }
        let mut sum: Vec<f32> = vec![];
        for (decoder, share) in decoders {
            let logits = decoder.logits()?;
            sum.resize(logits.len(), 0.0);
            sum.iter_mut().zip(logits).for_each(|(s, l)| *s += l * *share as f32);
        }
        let vocabulary = sum.len() / alive.len();
        let rows: Vec<(usize, &[f32])> = alive.iter().copied().zip(sum.chunks_exact(vocabulary)).collect();
        rows.into_iter().map(|(g, logits)| self.draw(logits, &mut rngs[g])).collect()
    }

    fn decode_group(
        &self,
        models: &[(&Weights<'_>, f64)],
        block: usize,
        prompts: &[Vec<u32>],
        group: &[usize],
        eos_id: Option<u32>,
    ) -> Result<Vec<Vec<u32>>> {
        let mut decoders =
            models.iter().map(|(w, share)| Ok((Decoder::new(w)?, *share))).collect::<Result<Vec<_>>>()?;
        let mut rngs: Vec<Rng> = group.iter().map(|i| stream(self.seed, "sample", &[*i as u64])).collect();
        let mut drawn: Vec<Vec<u32>> = vec![vec![]; group.len()];
        let vocabulary = models[0].0.config().vocab_size;
        let limit = |g: usize| self.max_new_tokens.min(block - prompts[group[g]].len().min(block - 1));
        for (g, &i) in group.iter().enumerate() {
            let logits = mixed(&mut decoders, |decoder| Ok(decoder.start(&prompts[i])?.1))?;
            drawn[g].push(self.draw(&logits, &mut rngs[g])?);
        }
        let goes_on = |g: usize, ids: &[u32]| ids.last().copied() != eos_id && ids.len() < limit(g);
        loop {
            let alive: Vec<usize> = (0..group.len()).filter(|&g| goes_on(g, &drawn[g])).collect();
            if alive.is_empty() {
                return Ok(drawn);
            }
            let last: Vec<u32> = alive.iter().filter_map(|&g| drawn[g].last().copied()).collect();
            let logits = mixed(&mut decoders, |decoder| decoder.append(&alive, &last))?;
            for (&g, logits) in alive.iter().zip(logits.chunks_exact(vocabulary)) {
                drawn[g].push(self.draw(logits, &mut rngs[g])?);
            }
        }
    }

    /// Draws an id from logits.
    fn draw(&self, logits: &[f32], rng: &mut Rng) -> Result<u32> {
        let best = (0..logits.len())
            .max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)))
            .expect("a vocabulary") as u32;
        if !logits[best as usize].is_finite() {
            let fix = "the weights are not finite: load a model from before its training failed";
            return Err(Error::new("the model gives no numbers", logits[best as usize].to_string(), fix));
        }
        if self.temperature == 0.0 {
            return Ok(best);
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
                return Ok(id);
            }
        }
        Ok(best)
    }
}

/// The logits of all decoders, added up by their shares; those of a single one are left as they are.
fn mixed(
    decoders: &mut [(Decoder<'_>, f64)],
    mut step: impl FnMut(&mut Decoder<'_>) -> Result<Vec<f32>>,
) -> Result<Vec<f32>> {
    if let [(decoder, _)] = decoders {
        return step(decoder);
    }
    let mut sum: Vec<f32> = vec![];
    for (decoder, share) in decoders {
        let logits = step(decoder)?;
        sum.resize(logits.len(), 0.0);
        sum.iter_mut().zip(logits).for_each(|(s, l)| *s += l * *share as f32);
    }
    Ok(sum)
}

fn read(drawn: Vec<Vec<u32>>, tokenizer: &Tokenizer) -> Result<Vec<Reply>> {
    let replies = drawn.into_iter().map(|ids| {
        let ended = ids.last() == Some(&tokenizer.eos_id());
        Ok(Reply { text: tokenizer.decode(&ids)?, ids, ended })
    });
    replies.collect()
}
