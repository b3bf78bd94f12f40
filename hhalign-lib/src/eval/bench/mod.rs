//! Measures models with the same prompts, held-out pairs, seed and instruments.

mod settings;
mod summary;

use std::path::{Path, PathBuf};

pub use self::settings::EvalSettings;
use crate::base::error::{Error, Result};
use crate::base::rng::sha256_hex;
use crate::data::batch::{Side, TokenizedPairs};
use crate::data::tokenize::Tokenizer;
use crate::data::{Dataset, Pair, Split};
use crate::eval::comparison::{Comparison, ModelId, Provenance};
use crate::eval::evaluation::Evaluation;
use crate::eval::measure::Measure;
use crate::eval::metrics::fluency::{Fluency, fluency};
use crate::eval::metrics::perplexity::perplexity_with;
use crate::eval::metrics::quality::{KnownWords, quality};
use crate::eval::metrics::ranking::{likelihood_ranking, reward_accuracy};
use crate::eval::metrics::refusal::{
    Refusal, RefusalPrompts, likelihood_auc_with, ordinary_answered,
};
use crate::eval::metrics::toxicity::{Classifier, ToxicityReport};
use crate::eval::preferences::annotation::write_annotation_files;
use crate::eval::preferences::judge::{HeadToHead, Judge, RewardJudge, head_to_head};
use crate::eval::preferences::winrate::read_preferences;
use crate::infer::sample::{Reply, Sampler};
use crate::infer::score::score_pairs_with;
use crate::loss::PairLogps;
use crate::model::Gpt;
use crate::show::table::{Column, Table};

/// The judge of replies.
enum BenchJudge {
    /// A reward model, with the number of pairs for its training and its evaluation.
    Reward { judge: Box<RewardJudge>, pairs: usize },
    /// Any other judge.
    Other(Box<dyn Judge>),
}

/// Measures models by all metrics on the same cases, so that any two of them are comparable.
///
/// # Example
/// ```
/// use hhalign::prelude::*;
/// let data = Dataset::embedded(0, 200)?;
/// let split = data.split(0.1)?;
/// let tokenizer = Tokenizer::train(&split.train, 300)?;
/// let config = GptConfig { vocab_size: 300, block_size: 128, n_layer: 1, n_head: 2, n_embd: 16, dropout: 0.0, layer_norm_epsilon: 1e-5 };
/// let held_out = TokenizedPairs::new(&split.held_out, &tokenizer, config.block_size)?;
/// let settings = EvalSettings { prompts: 12, samples: 1, max_new_tokens: 4, refusal_prompts: 12, ..EvalSettings::default() };
/// let bench = EvalBench::new(settings, &data, &split, &held_out, &tokenizer)?;
/// let one = bench.evaluate("one", &Gpt::new(config.clone(), 1)?)?;
/// let other = bench.evaluate("other", &Gpt::new(config, 2)?)?;
/// let table = bench.compare(&one, &other)?;
/// assert_eq!(table.provenance().models[1].name, "other");
/// # Ok::<(), Error>(())
/// ```
pub struct EvalBench {
    settings: EvalSettings,
    data: String,
    data_hash: String,
    tokenizer: Tokenizer,
    held_out: TokenizedPairs,
    held_out_texts: Vec<Pair>,
    sample: Vec<Pair>,
    prompts: Vec<String>,
    known_words: KnownWords,
    n_train: usize,
    refusal_prompts: RefusalPrompts,
    classifier: Classifier,
    fluency: Option<Fluency>,
    judge: Option<BenchJudge>,
    annotations: Option<PathBuf>,
}

impl EvalBench {
    /// Creates a bench without a classifier, a judge or another language model. `held_out` holds
    /// the split's held-out pairs in ids of `tokenizer`.
    ///
    /// # Errors
    /// Settings that leave nothing to measure, or pairs that are not those of the split.
    pub fn new(
        settings: EvalSettings,
        data: &Dataset,
        split: &Split,
        held_out: &TokenizedPairs,
        tokenizer: &Tokenizer,
    ) -> Result<Self> {
        settings.check()?;
        if held_out.len() != split.held_out.len() {
            let got = format!(
                "{} tokenised pairs, {} in the split",
                held_out.len(),
                split.held_out.len()
            );
            let fix = "tokenise all of split.held_out: TokenizedPairs::new(&split.held_out, ...)";
            return Err(Error::new("the held-out pairs are not those of the split", got, fix));
        }
        let sample = split.held_out_sample(settings.prompts);
        let bench = Self {
            data: data.name.clone(),
            data_hash: data.hash(),
            tokenizer: tokenizer.clone(),
            held_out: held_out.clone(),
            held_out_texts: split.held_out.clone(),
            prompts: sample.iter().map(|p| p.prompt.clone()).collect(),
            sample,
            known_words: KnownWords::of(&split.train),
            n_train: split.train.len(),
            refusal_prompts: RefusalPrompts::embedded(settings.seed, settings.refusal_prompts)?,
            classifier: Classifier::none(),
            fluency: None,
            judge: None,
            annotations: None,
            settings,
        };
        bench.sampler().check()?;
        Ok(bench)
    }

    /// Returns the bench with a toxicity classifier; without one its values say "not enough data".
    #[must_use]
    pub fn with_classifier(self, classifier: Classifier) -> Self {
        Self { classifier, ..self }
    }

    /// Returns the bench with a language model that scores the replies, if there is one.
    #[must_use]
    pub fn with_fluency(self, fluency: Option<Fluency>) -> Self {
        Self { fluency, ..self }
    }

    /// Returns the bench with other refusal prompts instead of the grammar's.
    #[must_use]
    pub fn with_refusal_prompts(self, refusal_prompts: RefusalPrompts) -> Self {
        Self { refusal_prompts, ..self }
    }

    /// Returns the bench with a reward model as judge; a summary names the number of `pairs` that
    /// it was trained on.
    #[must_use]
    pub fn with_judge(self, judge: RewardJudge, pairs: usize) -> Self {
        Self { judge: Some(BenchJudge::Reward { judge: Box::new(judge), pairs }), ..self }
    }

    /// Returns the bench with any other judge, such as a chat model.
    #[must_use]
    pub fn with_other_judge(self, judge: Box<dyn Judge>) -> Self {
        Self { judge: Some(BenchJudge::Other(judge)), ..self }
    }

    /// Returns the bench with people's judgements from the annotation files of a folder.
    #[must_use]
    pub fn with_annotations(self, folder: impl AsRef<Path>) -> Self {
        Self { annotations: Some(folder.as_ref().into()), ..self }
    }

    /// The settings.
    pub fn settings(&self) -> &EvalSettings {
        &self.settings
    }

    /// The held-out pairs whose prompts the models answer.
    pub fn sample(&self) -> &[Pair] {
        &self.sample
    }

    /// The held-out prompts that the models answer.
    pub fn prompts(&self) -> &[String] {
        &self.prompts
    }

    /// The refusal prompts.
    pub fn refusal_prompts(&self) -> &RefusalPrompts {
        &self.refusal_prompts
    }

    /// The judge of replies.
    ///
    /// # Errors
    /// The bench has no judge.
    pub fn judge(&self) -> Result<&dyn Judge> {
        match &self.judge {
            Some(BenchJudge::Reward { judge, .. }) => Ok(judge.as_ref()),
            Some(BenchJudge::Other(judge)) => Ok(judge.as_ref()),
            None => Err(Error::new(
                "the bench has no judge",
                "none",
                "give it one: bench.with_judge(...)",
            )),
        }
    }

    /// The sampler of all its evaluations.
    fn sampler(&self) -> Sampler {
        let EvalSettings { seed, temperature, max_new_tokens, .. } = self.settings;
        Sampler {
            temperature,
            max_new_tokens,
            seed,
            compute: self.settings.compute.clone(),
            ..Sampler::default()
        }
    }

    /// Draws the first reply of a model to each held-out prompt.
    ///
    /// # Errors
    /// As [`Sampler::replies`].
    pub fn replies(&self, model: &Gpt) -> Result<Vec<Reply>> {
        self.sampler().replies(model, &self.tokenizer, &self.prompts)
    }

    /// Returns the data set's preferred replies to the held-out prompts.
    pub fn chosen(&self) -> Vec<Reply> {
        self.sample.iter().map(|p| Reply::from_text(&p.chosen)).collect()
    }

    /// Measures a model by all metrics that need no second one.
    ///
    /// # Errors
    /// A model that does not fit the pairs or the tokenizer, or an instrument that fails.
    pub fn evaluate(&self, name: &str, model: &Gpt) -> Result<Evaluation> {
        let EvalSettings { seed, samples, compute, .. } = &self.settings;
        let (seed, sampler) = (*seed, self.sampler());
        let samples = sampler.samples(model, &self.tokenizer, &self.prompts, *samples)?;
        let refusal_replies =
            sampler.replies(model, &self.tokenizer, &self.refusal_prompts.prompts)?;
        let surprise = |side| {
            perplexity_with(model, &self.held_out, &self.held_out_texts, side, seed, compute)
        };
        let first = &samples[0];
        let read = |other: &Fluency| fluency(other, &self.prompts, first, seed);
        Ok(Evaluation {
            id: ModelId { name: name.into(), hash: model.hash()? },
            config: model.config.clone(),
            perplexity: surprise(Side::Chosen)?,
            perplexity_rejected: surprise(Side::Rejected)?,
            toxicity: ToxicityReport::of(&self.classifier, &self.sample, &samples, seed)?,
            refusal: Refusal::by_matcher(&self.refusal_prompts, &refusal_replies, seed)?,
            ordinary_answered: ordinary_answered(&self.sample, first, seed),
            refusal_likelihood: likelihood_auc_with(
                &self.refusal_prompts,
                model,
                &self.tokenizer,
                seed,
                compute,
            )?,
            novel_words: self.known_words.novel(first, seed),
            quality: quality(first, seed),
            fluency: self.fluency.as_ref().map(read).transpose()?,
            logps: score_pairs_with(model, &self.held_out, compute)?,
            training: None,
            cases: self.cases(),
            samples,
            refusal_replies,
        })
    }

    /// Everything that decides the cases and the instruments: two evaluations are comparable if it
    /// is equal.
    fn cases(&self) -> String {
        let EvalSettings { seed, prompts, samples, temperature, max_new_tokens, .. } =
            self.settings;
        let classifier = self.classifier.scorer().map(|scorer| scorer.identity());
        let other = self.fluency.as_ref().map(Fluency::identity);
        // Models that cannot be computed failed earlier.
        let compute = self.settings.compute.name().unwrap_or("unknown");
        let refusal = sha256_hex(self.refusal_prompts.prompts.iter().map(|p| p.as_bytes()), 16);
        format!(
            "data {}, tokenizer {}, held-out {}, seed {seed}, {prompts} prompts, {samples} samples, temperature {temperature}, {max_new_tokens} tokens, computed in {compute}, known words {}, refusal prompts {refusal}, classifier {classifier:?}, language model {other:?}",
            self.data_hash,
            self.tokenizer.hash(),
            self.held_out.hash,
            self.known_words.rule
        )
    }

    fn check(&self, evaluation: &Evaluation) -> Result<()> {
        if evaluation.cases == self.cases() {
            return Ok(());
        }
        let got = format!(
            "{} with {}; this bench has {}",
            evaluation.id.name,
            evaluation.cases,
            self.cases()
        );
        Err(Error::new(
            "the evaluation was made on another bench",
            got,
            "evaluate both models on one bench",
        ))
    }

    /// Returns the log-probabilities of the held-out replies, with the second model as the policy
    /// and the first as its reference.
    ///
    /// # Errors
    /// An evaluation of another bench.
    pub fn preference_logps(&self, first: &Evaluation, second: &Evaluation) -> Result<PairLogps> {
        [first, second].into_iter().try_for_each(|evaluation| self.check(evaluation))?;
        first.logps.with_policy_scores(second.logps.clone(), &self.held_out)
    }

    /// Returns how often the second model, relative to the first, raised the chosen reply above the
    /// rejected one: a share that is independent of β.
    ///
    /// # Errors
    /// An evaluation of another bench.
    pub fn reward_accuracy(&self, first: &Evaluation, second: &Evaluation) -> Result<Measure> {
        let beta = second.beta().unwrap_or(1.0);
        Ok(reward_accuracy(
            &self.preference_logps(first, second)?.rewards(beta),
            self.settings.seed,
        ))
    }

    /// Lets the judge compare two lists of replies to the held-out prompts, as
    /// [`Evaluation::replies`] returns them.
    ///
    /// # Errors
    /// No judge, or as [`head_to_head`].
    pub fn head_to_head(
        &self,
        first: (&str, &[Reply]),
        second: (&str, &[Reply]),
    ) -> Result<HeadToHead> {
        head_to_head(self.judge()?, &self.prompts, first, second, self.settings.seed)
    }

    /// Writes the files for annotators: see [`write_annotation_files`].
    ///
    /// # Errors
    /// As [`write_annotation_files`].
    pub fn write_annotation_files(
        &self,
        folder: impl AsRef<Path>,
        first: &Evaluation,
        second: &Evaluation,
    ) -> Result<PathBuf> {
        write_annotation_files(
            folder,
            &self.prompts,
            first.replies(),
            second.replies(),
            self.settings.seed,
        )
    }

    /// Creates a comparison of two evaluated models without rows; β is that of the second one's
    /// run.
    ///
    /// # Errors
    /// An evaluation of another bench.
    pub fn comparison(&self, first: &Evaluation, second: &Evaluation) -> Result<Comparison> {
        [first, second].into_iter().try_for_each(|evaluation| self.check(evaluation))?;
        Ok(Comparison::on(Provenance {
            data: self.data.clone(),
            data_hash: self.data_hash.clone(),
            tokenizer_hash: self.tokenizer.hash(),
            models: [first.id.clone(), second.id.clone()],
            seed: self.settings.seed,
            beta: second.beta(),
        }))
    }

    /// Compares two models by all metrics, including those of the bench's judge and annotators.
    ///
    /// # Errors
    /// An evaluation of another bench, a judge that fails, or annotation files that cannot be read.
    pub fn compare(&self, first: &Evaluation, second: &Evaluation) -> Result<Comparison> {
        let mut table = self.comparison(first, second)?;
        table.add_joint(&self.reward_accuracy(first, second)?);
        let ranking =
            likelihood_ranking(&self.preference_logps(first, second)?, self.settings.seed);
        table.add(&ranking.reference, &ranking.policy)?;
        if self.judge.is_some() {
            table.add_joint(&self.head_to_head(first.replies(), second.replies())?.rate);
        }
        if let Some(folder) = &self.annotations {
            table.add_joint(&read_preferences(folder, &second.id.name)?.rate);
        }
        table.add_all(first, second)?;
        Ok(table)
    }

    /// Returns the settings and instruments as a table.
    ///
    /// # Errors
    /// The table library fails.
    pub fn table(&self) -> Result<Table> {
        let s = &self.settings;
        let classifier = self.classifier.scorer().map_or("none".into(), |scorer| scorer.identity());
        let rows: Vec<(&str, String)> = vec![
            ("data", format!("{} ({})", self.data, self.data_hash)),
            ("held-out pairs", self.held_out.len().to_string()),
            ("answered prompts", self.prompts.len().to_string()),
            ("replies to each", s.samples.to_string()),
            (
                "replies",
                format!("temperature {}, at most {} tokens", s.temperature, s.max_new_tokens),
            ),
            ("refusal prompts", self.refusal_prompts.len().to_string()),
            ("seed", s.seed.to_string()),
            ("toxicity classifier", classifier),
            ("judge", self.judge().map_or("none".into(), Judge::identity)),
            (
                "another language model",
                self.fluency.as_ref().map_or("none".into(), Fluency::identity),
            ),
        ];
        let (names, values) =
            rows.into_iter().map(|(name, value)| (name.to_string(), value)).unzip();
        Table::new(
            "Evaluation",
            vec![Column::text("setting", names), Column::text("value", values)],
        )
    }
}
