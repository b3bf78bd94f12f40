//! A reward model as a judge.

use std::collections::HashMap;

use crate::base::error::Result;
use crate::data::batch::TokenizedPairs;
use crate::data::tokenize::Tokenizer;
use crate::eval::measure::{Better, Cases, Instrument, Measure};
use crate::eval::preferences::judge::{Judge, Question, RewardScorer};
use crate::eval::preferences::judgements::Preference;
use crate::infer::sample::Reply;
use crate::train::reward::{RewardMixture, RewardModel};

/// The source of the rewards: one model, or one for each kind of request.
pub enum Rater {
    /// One model for all prompts.
    One(Box<RewardModel>),
    /// A model for each kind of request.
    Mixture(RewardMixture),
}

impl From<RewardModel> for Rater {
    fn from(model: RewardModel) -> Self {
        Self::One(Box::new(model))
    }
}

impl From<RewardMixture> for Rater {
    fn from(mixture: RewardMixture) -> Self {
        Self::Mixture(mixture)
    }
}

impl Rater {
    fn score(
        &self,
        tokenizer: &Tokenizer,
        prompts: &[String],
        replies: &[String],
    ) -> Result<Vec<f32>> {
        match self {
            Self::One(model) => model.score(tokenizer, prompts, replies),
            Self::Mixture(mixture) => mixture.score(tokenizer, prompts, replies),
        }
    }

    fn score_pairs(&self, pairs: &TokenizedPairs) -> Result<(Vec<f32>, Vec<f32>)> {
        match self {
            Self::One(model) => model.score_pairs(pairs),
            Self::Mixture(mixture) => mixture.score_pairs(pairs),
        }
    }

    /// Name, hash and size.
    fn identity(&self) -> Result<String> {
        Ok(match self {
            Self::One(model) => {
                format!(
                    "reward model {} ({} parameters)",
                    model.hash()?,
                    model.gpt().n_parameters()
                )
            }
            Self::Mixture(mixture) => {
                let parameters: usize =
                    mixture.models().map(|(_, model)| model.gpt().n_parameters()).sum();
                let n = mixture.models().count();
                format!(
                    "{n} reward models, by kind of request {} ({parameters} parameters)",
                    mixture.hash()?
                )
            }
        })
    }
}

/// A reward model as judge, with its accuracy on pairs that it has not seen.
pub struct RewardJudge {
    rater: Rater,
    tokenizer: Tokenizer,
    identity: String,
    /// Share of held-out pairs whose preferred reply has the higher reward, with ties counted one
    /// half.
    pub accuracy: Measure,
}

impl RewardJudge {
    /// Creates a judge from a reward model or a mixture of them. `held_out` are pairs on which
    /// neither the model nor the judged policies were trained, in ids of `tokenizer`; they give the
    /// judge's accuracy.
    ///
    /// # Errors
    /// The pairs or the tokenizer do not fit the model.
    pub fn new(
        rater: impl Into<Rater>,
        tokenizer: &Tokenizer,
        held_out: &TokenizedPairs,
    ) -> Result<Self> {
        let rater = rater.into();
        let identity = rater.identity()?;
        let (chosen, rejected) = rater.score_pairs(held_out)?;
        let count = |holds: fn(f32, f32) -> bool| {
            chosen.iter().zip(&rejected).filter(|(c, r)| holds(**c, **r)).count()
        };
        let cases = Cases::Won {
            wins: count(|c, r| c > r),
            ties: count(|c, r| c == r),
            losses: count(|c, r| c < r),
        };
        let judge = Instrument::Judge(identity.clone());
        let accuracy =
            Measure::new("accuracy of the reward model", Better::Higher, judge, cases, 0);
        Ok(Self { rater, tokenizer: tokenizer.clone(), identity, accuracy })
    }

    /// The identity of the model, without its accuracy.
    pub fn identity(&self) -> &str {
        &self.identity
    }
}

impl RewardScorer for RewardJudge {
    fn identity(&self) -> String {
        format!("{}, right on {} held-out pairs", self.identity, self.accuracy.estimate().text())
    }

    fn rewards(&self, prompts: &[String], replies: &[Reply]) -> Result<Vec<f64>> {
        let texts: Vec<String> = replies.iter().map(|r| r.text.clone()).collect();
        Ok(self.rater.score(&self.tokenizer, prompts, &texts)?.into_iter().map(f64::from).collect())
    }
}

impl Judge for RewardJudge {
    fn identity(&self) -> String {
        RewardScorer::identity(self)
    }

    /// Each reply is scored once: the reward does not depend on the side.
    fn judge(&self, questions: &[Question<'_>]) -> Result<Vec<Option<Preference>>> {
        let mut places: HashMap<(&str, &str), usize> = HashMap::new();
        for question in questions {
            for reply in [question.a, question.b] {
                let next = places.len();
                places.entry((question.prompt, reply)).or_insert(next);
            }
        }
        let mut texts: Vec<(&(&str, &str), &usize)> = places.iter().collect();
        texts.sort_by_key(|(_, place)| **place);
        let (prompts, replies): (Vec<String>, Vec<String>) = texts
            .into_iter()
            .map(|((prompt, reply), _)| (prompt.to_string(), reply.to_string()))
            .unzip();
        let rewards = self.rater.score(&self.tokenizer, &prompts, &replies)?;
        let judge = |q: &Question<'_>| match rewards[places[&(q.prompt, q.a)]]
            .total_cmp(&rewards[places[&(q.prompt, q.b)]])
        {
            std::cmp::Ordering::Greater => Preference::A,
            std::cmp::Ordering::Less => Preference::B,
            std::cmp::Ordering::Equal => Preference::Tie,
        };
        Ok(questions.iter().map(|q| Some(judge(q))).collect())
    }
}
