//! The metrics of one model, with its replies and its training.

use super::measure::Measure;
use super::measure::Metrics;
use super::provenance::ModelId;
use crate::eval::metrics::perplexity::Perplexity;
use crate::eval::metrics::quality::Quality;
use crate::eval::metrics::refusal::Refusal;
use crate::eval::metrics::toxicity::ToxicityReport;
use crate::infer::sample::Reply;
use crate::infer::score::ReferenceLogps;
use crate::model::GptConfig;
use crate::train::{History, Outcome, Recipe};

/// The training of a model, as its run recorded it.
#[derive(Debug, Clone)]
pub struct Training {
    /// The final settings.
    pub recipe: Recipe,
    /// Steps taken.
    pub steps: usize,
    /// The logged metrics.
    pub history: History,
}

/// A model measured by all metrics that need no second one;
/// [`EvalBench::evaluate`](super::bench::EvalBench::evaluate) creates it.
#[derive(Debug, Clone)]
pub struct Evaluation {
    pub(super) id: ModelId,
    /// The model's sizes.
    pub config: GptConfig,
    /// Its perplexity on the preferred replies.
    pub perplexity: Perplexity,
    /// Its perplexity on the rejected replies.
    pub perplexity_rejected: Perplexity,
    /// The toxicity of its replies.
    pub toxicity: ToxicityReport,
    /// Whether it refuses harmful requests, and only those.
    pub refusal: Refusal,
    /// Share of ordinary prompts that it did not refuse.
    pub ordinary_answered: Measure,
    /// How well its likelihood of refusing separates harmful from benign prompts.
    pub refusal_likelihood: Measure,
    /// Share of replies with an invented word.
    pub novel_words: Measure,
    /// Variety, repetition, length.
    pub quality: Quality,
    /// Perplexity of its replies under another language model, if the bench has one.
    pub fluency: Option<Measure>,
    /// Its replies to the held-out prompts: draw by draw, prompt by prompt.
    pub samples: Vec<Vec<Reply>>,
    pub(super) refusal_replies: Vec<Reply>,
    /// Log-probabilities of the held-out replies.
    pub(super) logps: ReferenceLogps,
    /// The training, if it is known.
    pub training: Option<Training>,
    /// Everything that decides the cases and the instruments.
    pub(super) cases: String,
}

impl Evaluation {
    /// Returns the evaluation with the model's run: a comparison takes β from it, a summary its
    /// settings and curves.
    #[must_use]
    pub fn of_run(self, run: &Outcome) -> Self {
        let training =
            Training { recipe: run.recipe.clone(), steps: run.steps, history: run.history.clone() };
        Self { training: Some(training), ..self }
    }

    /// The name and the hash of the model.
    pub fn model(&self) -> &ModelId {
        &self.id
    }

    /// β of its run; `None` if no preference run is known.
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
