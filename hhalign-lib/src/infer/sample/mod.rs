//! Seeded sampling of replies. [`Sampler`] holds the settings and draws from logits; `group` runs
//! the decoders, which cache keys and values.

mod group;

use rand::Rng as _;

use self::group::{Job, WeightedModel};
use crate::base::error::{Error, Result};
use crate::base::rng::Rng;
use crate::compute::Compute;
use crate::compute::executor;
use crate::compute::executor::{DecodePlan, Decoding};
use crate::data::tokenize::Tokenizer;
use crate::loss;
use crate::model::Gpt;

/// Settings for drawing replies.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampler {
    /// Divides the logits; 0 always takes the likeliest token.
    pub temperature: f64,
    /// Draws only from the likeliest tokens that together have this probability; 1 draws from all.
    pub top_p: f64,
    /// Maximum length of a reply, in tokens.
    pub max_new_tokens: usize,
    /// The seed. Every prompt has its own random stream, so a reply does not depend on other
    /// prompts.
    pub seed: u64,
    /// The device and precision for decoding. A CPU always decodes in f32.
    pub compute: Compute,
}

impl Default for Sampler {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            max_new_tokens: 64,
            seed: 0,
            compute: Compute::default(),
        }
    }
}

/// A drawn reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The text without the end-of-text token.
    pub text: String,
    /// The ids, including the end-of-text token if it was drawn.
    pub ids: Vec<u32>,
    /// Whether the reply ended with the end-of-text token, not at `max_new_tokens` or at the end of
    /// the model's block.
    pub ended: bool,
}

impl Reply {
    /// Makes a reply from a written text, such as the data set's preferred reply, to show it next
    /// to drawn ones.
    pub fn from_text(text: &str) -> Self {
        Self { text: text.into(), ids: vec![], ended: true }
    }
}

impl Sampler {
    /// Checks the settings.
    ///
    /// # Errors
    /// A setting is out of range. The error names the setting, its value and its range.
    pub fn check(&self) -> Result<()> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(Error::new(
                "temperature must not be negative",
                self.temperature.to_string(),
                "0 is greedy, 1 the model's own distribution",
            ));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(Error::new(
                "top_p must be in (0, 1]",
                self.top_p.to_string(),
                "1 draws from all tokens",
            ));
        }
        if self.max_new_tokens == 0 {
            return Err(Error::new("max_new_tokens must be at least 1", "0", "64 is the default"));
        }
        Ok(())
    }

    /// Draws one reply to each prompt, in order.
    ///
    /// If a prompt leaves too little of the model's context for a reply, its first tokens are cut.
    /// A reply depends only on the model, the settings, the prompt and the prompt's position in the
    /// list.
    ///
    /// # Errors
    /// A setting is out of range, a prompt is empty, or the model fails.
    ///
    /// # Example
    /// ```
    /// use hhalign::data::Dataset;
    /// use hhalign::model::{Gpt, Preset};
    /// use hhalign::infer::sample::Sampler;
    /// use hhalign::data::tokenize::Tokenizer;
    /// let tokenizer = Tokenizer::train(&Dataset::embedded(1, 100)?.pairs, 300)?;
    /// let model = Gpt::new(Preset::Toy.config(tokenizer.vocab_size()), 1)?;
    /// let sampler = Sampler { max_new_tokens: 4, ..Sampler::default() };
    /// let prompt = "\n\nHuman: Hi\n\nAssistant:".to_string();
    /// let replies = sampler.replies(&model, &tokenizer, &[prompt.clone()])?;
    /// assert_eq!(replies, sampler.replies(&model, &tokenizer, &[prompt])?);
    /// # Ok::<(), hhalign::base::error::Error>(())
    /// ```
    pub fn replies(
        &self,
        model: &Gpt,
        tokenizer: &Tokenizer,
        prompts: &[String],
    ) -> Result<Vec<Reply>> {
        let encoded =
            prompts.iter().map(|prompt| tokenizer.encode(prompt)).collect::<Result<Vec<_>>>()?;
        to_replies(self.ids(model, encoded, Some(tokenizer.eos_id()))?, tokenizer)
    }

    /// Draws `k` replies to each prompt. Draws `k` replies to each prompt. Returns k lists in the
    /// form of [`Sampler::replies`]. The first list equals the result of `replies`; the others use
    /// different seeds.
    ///
    /// # Errors
    /// As [`Sampler::replies`].
    pub fn samples(
        &self,
        model: &Gpt,
        tokenizer: &Tokenizer,
        prompts: &[String],
        k: usize,
    ) -> Result<Vec<Vec<Reply>>> {
        let draw = |i: usize| Self { seed: self.seed ^ ((i as u64) << 32), ..self.clone() };
        (0..k).map(|i| draw(i).replies(model, tokenizer, prompts)).collect()
    }

    /// Draws replies from a mixture of two models: softmax(λ h_π + (1 - λ) h_ref) at each token,
    /// where h are their logits.
    ///
    /// For a policy trained with β, λ approximates training with β / λ: λ = 0 is the reference, 1
    /// the policy, and λ > 1 extrapolates beyond the training. See [`Sampler::replies_at`].
    ///
    /// # Errors
    /// As [`Sampler::replies`]; λ is not finite, or the models have different vocabularies.
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
            return Err(Error::new(
                "lambda must be a number",
                lambda.to_string(),
                "0 is the reference, 1 the policy",
            ));
        }
        if policy.config.vocab_size != reference.config.vocab_size {
            let got =
                format!("{} and {} ids", policy.config.vocab_size, reference.config.vocab_size);
            return Err(Error::new(
                "both models need one vocabulary",
                got,
                "give a policy and its own reference",
            ));
        }
        let encoded =
            prompts.iter().map(|prompt| tokenizer.encode(prompt)).collect::<Result<Vec<_>>>()?;
        let mixture = [(policy, lambda), (reference, 1.0 - lambda)];
        to_replies(self.mixed_ids(&mixture, encoded, Some(tokenizer.eos_id()))?, tokenizer)
    }

    /// Draws replies as if the policy, which was trained with `trained_beta`, had been trained with
    /// `beta`. It decodes from the policy and its reference, without training.
    ///
    /// # Errors
    /// As [`Sampler::replies_between`]; a β is not positive.
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

    /// Draws one reply to each prompt, in order. Prompts and replies are token ids. A reply ends
    /// with `eos_id` unless it was cut.
    ///
    /// # Errors
    /// As [`Sampler::replies`].
    pub fn ids(
        &self,
        model: &Gpt,
        prompts: Vec<Vec<u32>>,
        eos_id: Option<u32>,
    ) -> Result<Vec<Vec<u32>>> {
        self.mixed_ids(&[(model, 1.0)], prompts, eos_id)
    }

    fn mixed_ids(
        &self,
        models: &[(&Gpt, f64)],
        mut prompts: Vec<Vec<u32>>,
        eos_id: Option<u32>,
    ) -> Result<Vec<Vec<u32>>> {
        self.check()?;
        // A prompt keeps at least half of the block, whatever the maximum length of a reply.
        let block = models.iter().map(|(model, _)| model.config.block_size).min().unwrap_or(0);
        let max_prompt = block.saturating_sub(self.max_new_tokens).max(block / 2).max(1);
        if let Some(i) = prompts.iter().position(Vec::is_empty) {
            let fix = "a prompt ends with \"\\n\\nAssistant:\"";
            return Err(Error::new(format!("prompt {i} is empty"), "no token", fix));
        }
        for ids in &mut prompts {
            ids.drain(..ids.len().saturating_sub(max_prompt));
        }
        // Prompts of similar lengths form a group, so that a group ends together. The reply to a
        // prompt does not depend on its group.
        let mut order: Vec<usize> = (0..prompts.len()).collect();
        order.sort_by_key(|&i| prompts[i].len());
        let Some(longest) = order.last().map(|&i| prompts[i].len()) else { return Ok(vec![]) };
        let length = longest.saturating_add(self.max_new_tokens).min(block);
        let plan = DecodePlan { sequences: order.len(), length, models: models.len() };
        let job = Job { sampler: self, prompts: &prompts, order: &order, block, eos_id };
        let with_decoding = |model: &Gpt, work: &mut dyn FnMut(&dyn Decoding) -> Result<()>| {
            executor::for_model(&self.compute, model)?.decode(&plan, work)
        };
        let mut drawn = vec![];
        match *models {
            [(policy, one), (reference, other)] => with_decoding(policy, &mut |p| {
                with_decoding(reference, &mut |r| {
                    drawn = job.run(&[
                        WeightedModel { decoding: p, weight: one },
                        WeightedModel { decoding: r, weight: other },
                    ])?;
                    Ok(())
                })
            })?,
            _ => with_decoding(models[0].0, &mut |p| {
                drawn = job.run(&[WeightedModel { decoding: p, weight: 1.0 }])?;
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
            return Err(Error::numeric(
                "the model gives no numbers",
                logits[best as usize].to_string(),
                fix,
            ));
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
            let mut mass = 0.0;
            let n_kept = weights
                .iter()
                .take_while(|w| {
                    let is_short = mass < self.top_p * total;
                    mass += w.1;
                    is_short
                })
                .count();
            weights.truncate(n_kept);
            total = weights.iter().map(|w| w.1).sum();
        }
        let mut remaining = rng.random::<f64>() * total;
        for &(id, weight) in &weights {
            remaining -= weight;
            if remaining < 0.0 {
                return Ok(id);
            }
        }
        Ok(best)
    }
}

fn to_replies(drawn: Vec<Vec<u32>>, tokenizer: &Tokenizer) -> Result<Vec<Reply>> {
    let replies = drawn.into_iter().map(|ids| {
        let ended = ids.last() == Some(&tokenizer.eos_id());
        Ok(Reply { text: tokenizer.decode(&ids)?, ids, ended })
    });
    replies.collect()
}
