//! Seeded decoding with a cache of keys and values.

mod group;

use rand::Rng as _;

use self::group::{Job, Share};
use crate::error::{Error, Result};
use crate::executor::{self, DecodePlan, Decoding};
use crate::fused::Compute;
use crate::loss;
use crate::model::Gpt;
use crate::rng::Rng;
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
    /// On what, and in what precision, replies are decoded. A CPU decodes in f32 whatever the precision.
    pub compute: Compute,
}

impl Default for Sampler {
    fn default() -> Self {
        Self { temperature: 1.0, top_p: 1.0, max_new_tokens: 64, seed: 0, compute: Compute::default() }
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
        [beta, trained_beta].into_iter().try_for_each(loss::check_beta)?;
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
        let Some(longest) = order.last().map(|&i| prompts[i].len()) else { return Ok(vec![]) };
        let length = (longest + self.max_new_tokens).min(block);
        let plan = DecodePlan { sequences: order.len(), length, models: models.len() };
        let job = Job { sampler: self, prompts: &prompts, order: &order, block, eos_id };
        let lend = |model: &Gpt, work: &mut dyn FnMut(&dyn Decoding) -> Result<()>| {
            executor::for_model(&self.compute, model)?.decode(&plan, work)
        };
        let mut drawn = vec![];
        match *models {
            [(policy, one), (reference, other)] => lend(policy, &mut |p| {
                lend(reference, &mut |r| {
                    drawn = job.run(&[Share { decoding: p, share: one }, Share { decoding: r, share: other }])?;
                    Ok(())
                })
            })?,
            _ => lend(models[0].0, &mut |p| {
                drawn = job.run(&[Share { decoding: p, share: 1.0 }])?;
                Ok(())
            })?,
        }
        let mut replies: Vec<(usize, Vec<u32>)> = order.iter().copied().zip(drawn).collect();
        replies.sort_by_key(|r| r.0);
        Ok(replies.into_iter().map(|r| r.1).collect())
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

fn read(drawn: Vec<Vec<u32>>, tokenizer: &Tokenizer) -> Result<Vec<Reply>> {
    let replies = drawn.into_iter().map(|ids| {
        let ended = ids.last() == Some(&tokenizer.eos_id());
        Ok(Reply { text: tokenizer.decode(&ids)?, ids, ended })
    });
    replies.collect()
}
