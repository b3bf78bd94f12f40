//! Reward against KL(π || reference): the gain of a policy, and its distance from the reference.

use std::path::Path;

use serde::Serialize;

use crate::base::error::{Error, Result};
use crate::base::rng::sha256_hex;
use crate::data::batch::TokenizedPairs;
use crate::data::tokenize::Tokenizer;
use crate::eval::preferences::judge::RewardScorer;
use crate::infer::kl::{MAX_REPLY, reply_kl};
use crate::infer::sample::{Reply, Sampler};
use crate::model::Gpt;
use crate::show::table::{Column, Table};
use crate::stats::{Estimate, bootstrap_mean};
use crate::train::Dpo;

/// A policy after a number of steps at a β.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Point {
    /// β of its training.
    pub beta: f64,
    /// Steps taken.
    pub step: usize,
    /// Hash of its weights.
    pub model_hash: String,
    /// KL(π || reference) of a reply, in nats, mean over prompts.
    pub kl: Estimate,
    /// Reward of its reply - that of the reference's reply to the same prompt, mean over prompts.
    pub reward: Estimate,
}

/// Points of several trainings, measured on the same prompts by the same judge.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Frontier {
    /// The points, ordered by β and step.
    pub points: Vec<Point>,
    /// The judge that gave the rewards.
    pub judge: String,
    /// Hash of the reference's weights.
    pub reference_hash: String,
    /// Hash of the training pairs.
    pub pairs_hash: String,
    /// Seed of the replies.
    pub seed: u64,
}

/// The measurement of all points of a frontier.
struct Ruler<'a> {
    reference: &'a Gpt,
    tokenizer: &'a Tokenizer,
    prompts: &'a [String],
    ids: Vec<Vec<u32>>,
    judge: &'a dyn RewardScorer,
    of_reference: Vec<f64>,
    sampler: Sampler,
}

impl<'a> Ruler<'a> {
    fn new(
        reference: &'a Gpt,
        tokenizer: &'a Tokenizer,
        prompts: &'a [String],
        judge: &'a dyn RewardScorer,
        seed: u64,
    ) -> Result<Self> {
        let room = reference.config.block_size.saturating_sub(MAX_REPLY).max(1);
        let ids = prompts.iter().map(|prompt| {
            let ids = tokenizer.encode(prompt)?;
            Ok(ids[ids.len().saturating_sub(room)..].to_vec())
        });
        let sampler = Sampler {
            max_new_tokens: MAX_REPLY.min(reference.config.block_size / 2),
            seed,
            ..Sampler::default()
        };
        let ids = ids.collect::<Result<Vec<_>>>()?;
        let mut ruler =
            Self { reference, tokenizer, prompts, ids, judge, of_reference: vec![], sampler };
        ruler.of_reference = judge.rewards(prompts, &ruler.replies(reference)?)?;
        Ok(ruler)
    }

    /// Draws at temperature 1, since only then their KL is that of the policy itself.
    fn replies(&self, model: &Gpt) -> Result<Vec<Reply>> {
        let eos = self.tokenizer.eos_id();
        let of = |ids: Vec<u32>| {
            let ended = ids.last() == Some(&eos);
            let text = self.tokenizer.decode(&ids[..ids.len() - usize::from(ended)])?;
            Ok(Reply { text, ids, ended })
        };
        self.sampler.ids(model, self.ids.clone(), Some(eos))?.into_iter().map(of).collect()
    }

    fn measure(&self, policy: &Gpt, beta: f64, step: usize) -> Result<Point> {
        let replies = self.replies(policy)?;
        let ids: Vec<Vec<u32>> = replies.iter().map(|r| r.ids.clone()).collect();
        let kl = reply_kl(policy, self.reference, &self.ids, &ids)?;
        let rewards = self.judge.rewards(self.prompts, &replies)?;
        let gains: Vec<f64> = rewards
            .iter()
            .zip(&self.of_reference)
            .map(|(r, of_reference)| r - of_reference)
            .collect();
        Ok(Point {
            beta,
            step,
            model_hash: policy.hash()?,
            kl: bootstrap_mean(&kl, self.sampler.seed),
            reward: bootstrap_mean(&gains, self.sampler.seed),
        })
    }
}

/// Trains a policy at each β from the reference's weights, and measures it after each of `steps`:
/// its gain in reward over the reference and its KL from it, on replies that it draws to `prompts`.
///
/// The KL is exact over the vocabulary at each token. The trainings are those of `dpo` with another
/// β; they resume from checkpoints in `folder`. Prints a line for each point.
///
/// # Errors
/// No β or no step, a step beyond `dpo.train.max_steps`, too few prompts, or an error of training
/// or judge.
///
/// # Source
/// arXiv 2305.18290, section 6.1 and figure 2.
#[allow(clippy::too_many_arguments)]
pub fn frontier(
    dpo: &Dpo,
    betas: &[f64],
    steps: &[usize],
    reference: &Gpt,
    (train, watch): (&TokenizedPairs, &TokenizedPairs),
    (tokenizer, prompts): (&Tokenizer, &[String]),
    judge: &dyn RewardScorer,
    folder: impl AsRef<Path>,
) -> Result<Frontier> {
    let mut steps = steps.to_vec();
    steps.sort_unstable();
    steps.dedup();
    let last = steps.last().copied().unwrap_or(0);
    if betas.is_empty() || last == 0 || steps[0] == 0 || last > dpo.train.max_steps {
        let got = format!("betas {betas:?}, steps {steps:?}, max_steps {}", dpo.train.max_steps);
        return Err(Error::new(
            "a frontier needs values of beta, and steps within the training",
            got,
            "such as [0.05, 0.2] and [20, 80]",
        ));
    }
    let seed = dpo.train.seed;
    let ruler = Ruler::new(reference, tokenizer, prompts, judge, seed)?;
    let (reference_hash, mut points) = (reference.hash()?, vec![]);
    for &beta in betas {
        let mut policy = reference.fork()?;
        let mut dpo = Dpo { beta, ..dpo.clone() };
        dpo.train.progress = false;
        let name = sha256_hex(
            [format!("{}{reference_hash}{}", serde_json::to_string(&dpo)?, train.hash).as_bytes()],
            12,
        );
        for &step in &steps {
            let earlier = steps
                .iter()
                .rev()
                .map(|s| (*s, folder.as_ref().join(format!("frontier-{name}-{s}.safetensors"))));
            let earlier = earlier.into_iter().find(|(s, path)| *s <= step && path.exists());
            dpo.train.stop_at = Some(step);
            dpo.train.checkpoint =
                Some(folder.as_ref().join(format!("frontier-{name}-{step}.safetensors")));
            match earlier {
                Some((_, path)) => dpo.resume(&path, &mut policy, reference, train, watch)?,
                None => dpo.fit(&mut policy, reference, train, watch)?,
            };
            let point = ruler.measure(&policy, beta, step)?;
            println!(
                "β {beta:<5} step {step:>4}  KL {}  reward {}",
                point.kl.text(),
                point.reward.text()
            );
            points.push(point);
        }
    }
    Ok(Frontier {
        points,
        judge: judge.identity(),
        reference_hash,
        pairs_hash: train.hash.clone(),
        seed,
    })
}

impl Frontier {
    /// Returns the points as a table.
    ///
    /// # Errors
    /// The table library fails.
    pub fn table(&self) -> Result<Table> {
        let of = |f: &dyn Fn(&Point) -> String| self.points.iter().map(f).collect::<Vec<_>>();
        let columns = vec![
            Column::float("β", 3, self.points.iter().map(|p| p.beta).collect()),
            Column::int("step", self.points.iter().map(|p| p.step as i64).collect()),
            Column::text("KL, nats [95% interval]", of(&|p| p.kl.cell())),
            Column::text("reward over the reference [95% interval]", of(&|p| p.reward.cell())),
            Column::int("n", self.points.iter().map(|p| p.kl.n as i64).collect()),
        ];
        let note = format!(
            "Judge: {}. Seed {}. Replies at temperature 1, at most {MAX_REPLY} tokens.",
            self.judge, self.seed
        );
        Ok(Table::new("Reward against KL from the reference", columns)?.with_note(note))
    }
}
