//! The summary of a measured run.

use super::{BenchJudge, EvalBench};
use crate::base::error::Result;
use crate::eval::comparison::Comparison;
use crate::eval::evaluation::Evaluation;
use crate::eval::summary::{Settings, Summary};

impl EvalBench {
    /// Returns the summary: the comparison, the settings of both trainings and of this bench, the
    /// curves, the toxicity of single replies, and the judge if it is a reward model trained here.
    ///
    /// # Errors
    /// A value cannot be written.
    pub fn summary(
        &self,
        table: &Comparison,
        first: &Evaluation,
        second: &Evaluation,
    ) -> Result<Summary> {
        let mut summary = Summary::new(table, &self.summary_settings(first, second))?;
        for evaluation in [first, second] {
            let name = &evaluation.id.name;
            if let Some(training) = &evaluation.training {
                summary = summary.with_history(name, &training.history)?;
            }
            summary = summary.with_toxicity(name, &evaluation.toxicity);
        }
        Ok(match &self.judge {
            Some(BenchJudge::Reward { judge, .. }) => summary.with_judge(judge),
            _ => summary,
        })
    }

    fn summary_settings(&self, first: &Evaluation, second: &Evaluation) -> Settings {
        let mut settings = Settings::default()
            .with("architecture", second.config.to_string())
            .with("parameters", second.config.n_parameters())
            .with("pairs_train", self.n_train)
            .with("pairs_held_out", self.held_out.len())
            .with("temperature", self.settings.temperature)
            .with("samples", self.settings.samples)
            .with("max_new_tokens", self.settings.max_new_tokens);
        if let Some(model) = &self.settings.model {
            settings = settings.with("preset", model);
        }
        if let Some(BenchJudge::Reward { pairs, .. }) = &self.judge {
            settings = settings.with("pairs_judge", pairs);
        }
        let kind = |e: &Evaluation| e.training.as_ref().map(|t| t.recipe.kind());
        let same_kind = kind(first) == kind(second);
        for evaluation in [first, second] {
            let Some(training) = &evaluation.training else { continue };
            // Two runs of one kind have the names of their models.
            let name = if same_kind {
                evaluation.id.name.to_lowercase()
            } else {
                training.recipe.kind().into()
            };
            settings = settings
                .with(&format!("{name}_steps"), training.steps)
                .with(&format!("{name}_optimiser"), training.recipe.train().to_string());
        }
        settings
    }
}
