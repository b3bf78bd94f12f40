//! Fluency: the likelihood of a reply under a pretrained language model that is not trained here.

mod llama;
mod vocabulary;

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use candle_core::quantized::gguf_file::Content;
use serde::Serialize;

use self::llama::{Family, Llama};
use self::vocabulary::Vocabulary;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::parallel;
use crate::base::rng::sha256_of_file;
use crate::eval::measure::{Better, Cases, Instrument, Measure, PERPLEXITIES};
use crate::infer::sample::Reply;

/// Tokens scored at once, unless a prompt with one reply has more; the result does not depend on
/// it.
const TOKENS: usize = 1024;

/// The likelihood of a reply, given its prompt.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ReplyLikelihood {
    /// -Σ ln p over the reply's tokens, in nats; 0 for an empty reply.
    pub nll: f64,
    /// The number of tokens in this model's vocabulary, without the end of text.
    pub tokens: usize,
}

impl ReplyLikelihood {
    /// Returns exp(nll / tokens); not a number for an empty reply.
    ///
    /// # Example
    /// ```
    /// use hhalign::eval::metrics::fluency::ReplyLikelihood;
    /// let coin = ReplyLikelihood { nll: 10.0 * 2f64.ln(), tokens: 10 };
    /// assert!((coin.perplexity() - 2.0).abs() < 1e-12);
    /// ```
    pub fn perplexity(&self) -> f64 {
        (self.nll / self.tokens as f64).exp()
    }
}

/// Returns the perplexity of sampled replies under a language model that is not trained here: exp(Σ
/// NLL / Σ tokens).
///
/// A low value means usual text, not good text: an empty phrase is very usual. Empty replies have
/// no tokens and do not count.
///
/// # Errors
/// As [`Fluency::score`].
pub fn fluency(
    model: &Fluency,
    prompts: &[String],
    replies: &[Reply],
    seed: u64,
) -> Result<Measure> {
    let texts: Vec<String> = replies.iter().map(|r| r.text.clone()).collect();
    let scored = model.score(prompts, &texts)?;
    let (above, below) = scored.iter().map(|s| (s.nll, s.tokens as f64)).unzip();
    let instrument = Instrument::LanguageModel(model.identity());
    let cases = Cases::Ratio { above, below, exp: true };
    Ok(Measure::new(PERPLEXITIES[2], Better::Lower, instrument, cases, seed))
}

/// A pretrained language model of the Llama family in a GGUF file, with its tokenizer.
///
/// Weights stay quantised in memory and products are in f32, as in transformers; llama.cpp rounds
/// the activations as well. Prompt and reply are tokenised separately and joined, as everywhere in
/// this library, and text that spells out a special token stays text. The front of a prompt that
/// exceeds the model's context is cut. The model runs on the processor, independent of the
/// [`Compute`](crate::compute::Compute) of the evaluated models.
pub struct Fluency {
    model: Llama,
    vocabulary: Vocabulary,
    identity: String,
}

impl Fluency {
    /// Loads a GGUF file; a `tokenizer.json` in the same folder takes precedence over the file's
    /// own vocabulary.
    ///
    /// # Errors
    /// The file is missing, damaged or of another architecture than Llama, or its vocabulary needs
    /// a `tokenizer.json` and there is none.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let fix = "give a GGUF file of the Llama family, such as SmolLM2-135M-Instruct";
        let open = |e: std::io::Error| {
            Error::io(path, e).with_message(format!("cannot read {}", path.display()), fix)
        };
        let mut file = BufReader::new(File::open(path).map_err(open)?);
        let content = Content::read(&mut file).map_err(|e| {
            Error::from(e)
                .with_message("not a whole GGUF file", fix)
                .with_kind(ErrorKind::Data)
                .at(path.display())
        })?;
        let model = Llama::read(&content, &mut file).map_err(|e| e.at(path.display()))?;
        let vocabulary = match path.with_file_name("tokenizer.json") {
            json if json.exists() => {
                Vocabulary::from_json(&json, &content).map_err(|e| e.at(json.display()))?
            }
            _ => Vocabulary::from_gguf(&content).map_err(|e| e.at(path.display()))?,
        };
        vocabulary.check_fits(model.vocab_size()).map_err(|e| e.at(path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let identity = format!("{name}, sha256 {}", sha256_of_file(path, 12)?);
        Ok(Self { model, vocabulary, identity })
    }

    /// The file's name and the first digits of its SHA-256, which identify every value of this
    /// model.
    pub fn identity(&self) -> String {
        self.identity.clone()
    }

    /// Returns the ids of a text, without special tokens.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.vocabulary.ids(text)
    }

    /// Returns the likelihood of each reply given its prompt; replies to one prompt share its
    /// computation.
    ///
    /// # Errors
    /// Another number of prompts than of replies, or a prompt without a token if the model has no
    /// beginning of text.
    pub fn score(&self, prompts: &[String], replies: &[String]) -> Result<Vec<ReplyLikelihood>> {
        let sum = |logps: Vec<f32>| ReplyLikelihood {
            nll: -logps.iter().map(|l| f64::from(*l)).sum::<f64>(),
            tokens: logps.len(),
        };
        Ok(self.token_logps(prompts, replies)?.into_iter().map(sum).collect())
    }

    /// Returns ln p of each token of each reply; fails as [`Self::score`] does.
    pub fn token_logps(&self, prompts: &[String], replies: &[String]) -> Result<Vec<Vec<f32>>> {
        if prompts.len() != replies.len() {
            let got = format!("{} prompts, {} replies", prompts.len(), replies.len());
            return Err(Error::new(
                "every reply needs its prompt",
                got,
                "repeat a prompt for each of its replies",
            ));
        }
        let mut rows = Vec::with_capacity(replies.len());
        for (prompt, reply) in prompts.iter().zip(replies) {
            let (mut prompt, mut reply) =
                (self.vocabulary.prompt_ids(prompt)?, self.vocabulary.ids(reply)?);
            reply.truncate(self.model.context() - 1);
            prompt.drain(..(prompt.len() + reply.len()).saturating_sub(self.model.context()));
            rows.push((prompt, reply));
        }
        let batches = batches(&rows);
        let mut logps: Vec<Vec<f32>> = rows.iter().map(|_| vec![]).collect();
        let found = parallel::map(&batches, |batch| self.model.reply_logps(batch))?;
        for (family, scores) in batches.iter().flatten().zip(found.into_iter().flatten()) {
            for (&row, scores) in family.rows.iter().zip(scores) {
                logps[row] = scores;
            }
        }
        Ok(logps)
    }
}

/// Groups replies by prompt into families, and families into batches of about [`TOKENS`] tokens.
fn batches(rows: &[(Vec<u32>, Vec<u32>)]) -> Vec<Vec<Family<'_>>> {
    let mut of_prompt: HashMap<&[u32], usize> = HashMap::new();
    let mut prompts: Vec<(&[u32], Vec<usize>)> = vec![];
    for (row, (prompt, _)) in rows.iter().enumerate().filter(|(_, (_, reply))| !reply.is_empty()) {
        let next = prompts.len();
        let place = *of_prompt.entry(prompt).or_insert(next);
        if place == next {
            prompts.push((prompt, vec![]));
        }
        prompts[place].1.push(row);
    }
    let (mut batches, mut room): (Vec<Vec<Family<'_>>>, usize) = (vec![], 0);
    for (prompt, replies) in prompts {
        // A prompt with more replies than a batch holds is repeated in the next one.
        let mut open = false;
        for row in replies {
            let reply = rows[row].1.as_slice();
            let need = reply.len() + if open { 0 } else { prompt.len() };
            if need > room {
                batches.push(vec![]);
                (room, open) = (TOKENS.max(prompt.len() + reply.len()), false);
            }
            let batch = batches.last_mut().expect("a batch");
            if !open {
                batch.push(Family { prompt, replies: vec![], rows: vec![] });
                room -= prompt.len();
                open = true;
            }
            let family = batch.last_mut().expect("a family");
            family.replies.push(reply);
            family.rows.push(row);
            room -= reply.len();
        }
    }
    batches
}
