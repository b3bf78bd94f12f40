//! All that was measured of one model, with its replies and the run that it came out of.

use super::comparison::{Metrics, ModelId};
use super::measure::Measure;
use super::perplexity::Perplexity;
use super::quality::Quality;
use super::refusal::Refusal;
use super::toxicity::ToxicityReport;
use crate::model::GptConfig;
use crate::sample::Reply;
use crate::score::ReferenceLogps;
use crate::train::{History, Outcome, Recipe};

/// The training that a model came out of, by its own record.
#[derive(Debug, Clone)]
pub struct Training {
    /// The settings it ended with.
    pub recipe: Recipe,
    /// Steps taken.
    pub steps: usize,
    /// Everything that was logged.
    pub history: History,
}

/// A model measured by all metrics that need no second one; [`EvalBench::evaluate`](super::bench::EvalBench::evaluate)
/// makes it.
#[derive(Debug, Clone)]
pub struct Evaluation {
    pub(super) id: ModelId,
    /// The model's sizes.
    pub config: GptConfig,
    /// How surprised it is by the preferred replies.
    pub perplexity: Perplexity,
    /// How surprised it is by the other replies.
    pub perplexity_rejected: Perplexity,
    /// What the classifier makes of its replies.
    pub toxicity: ToxicityReport,
    /// Whether it declines what is harmful, and only that.
    pub refusal: Refusal,
    /// Share of ordinary prompts that it did not decline.
    pub ordinary_answered: Measure,
    /// How well its likelihood of refusing tells harmful prompts from benign ones.
    pub refusal_likelihood: Measure,
    /// Share of replies with a made-up word.
    pub novel_words: Measure,
    /// Variety, repetition, length.
    pub quality: Quality,
    /// Perplexity of its replies under another language model, where the bench has one.
    pub fluency: Option<Measure>,
    /// Its replies to the held-out prompts: draw by draw, prompt by prompt.
    pub samples: Vec<Vec<Reply>>,
    pub(super) refusal_replies: Vec<Reply>,
    /// Log-probabilities of the held-out replies.
    pub(super) logps: ReferenceLogps,
    /// The run that it came out of, where that is known.
    pub training: Option<Training>,
    /// What decides the cases and the instruments.
    pub(super) cases: String,
}

impl Evaluation {
    /// The same with the run that the model came out of: a comparison takes β from it, a summary its settings and curves.
    #[must_use]
    pub fn of_run(self, run: &Outcome) -> Self {
        let training = Training { recipe: run.recipe.clone(), steps: run.steps, history: run.history.clone() };
        Self { training: Some(training), ..self }
    }

    /// The model by name and by the hash of its weights.
    pub fn model(&self) -> &ModelId {
        &self.id
    }

    /// β of its run; `None` where no preference run is known.
    pub fn beta(&self) -> Option<f64> {
        self.training.as_ref().and_then(|training| training.recipe.beta())
    }

    /// Its name, and its first reply to each held-out prompt.
    pub fn replies(&self) -> (&str, &[Reply]) {
        (&self.id.name, &self.samples[0])
    }

    /// Its name, and its reply to each prompt for refusal.
    pub fn refusal_replies(&self) -> (&str, &[Reply]) {
        (&self.id.name, &self.refusal_replies)
    }
}

impl Metrics for Evaluation {
    fn title(&self) -> String {
        format!("{} on held-out prompts", self.id.name)
    }

    fn measures(&self) -> Vec<&Measure> {
        let mut all = self.refusal.measures();
        all.extend([&self.ordinary_answered, &self.refusal_likelihood]);
        all.extend(self.toxicity.measures());
        all.extend(self.perplexity.measures());
        all.extend([&self.perplexity_rejected.token_weighted, &self.novel_words]);
        all.extend(self.quality.measures());
        all.extend(&self.fluency);
        all
    }
}
