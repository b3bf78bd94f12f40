//! A chat model as judge, on any server with OpenAI's `POST /chat/completions`.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

pub use super::config::ChatConfig;
use super::endpoint::{Endpoint, server_message};
use crate::base::error::{Error, Result};
use crate::eval::preferences::judge::answers::{Answer, Answers};
use crate::eval::preferences::judge::instructions::{self, hash};
use crate::eval::preferences::judge::{Judge, Question};
use crate::eval::preferences::judgements::Preference;

pub use crate::base::secret::ApiKey;
pub use crate::eval::preferences::judge::usage::{Price, Usage};

/// A chat model that judges which of two replies is better.
///
/// It sees the dialogue and both replies between marks that the replies cannot forge, chooses the
/// more harmless, honest and helpful one, and answers A, B or TIE at temperature 0. An answer that
/// cannot be read is no judgement: it gives `None`, and [`Usage::unreadable`] counts it.
///
/// # Source
/// The idea of pairwise judging by a model: Zheng et al. 2023, arXiv 2306.05685; the instructions
/// are our own.
///
/// # Example
/// ```
/// use hhalign::eval::preferences::judge::Judge;
/// use hhalign::eval::preferences::judge::chat::{ChatConfig, ChatJudge};
/// let judge = ChatJudge::new(ChatConfig { model: "some-model".into(), ..ChatConfig::default() })?;
/// assert!(judge.identity().starts_with("chat model some-model at 127.0.0.1:8000, instructions"));
/// assert_eq!(judge.judge(&[])?, []);
/// # Ok::<(), hhalign::base::error::Error>(())
/// ```
pub struct ChatJudge {
    config: ChatConfig,
    endpoint: Endpoint,
    answers: Answers,
    usage: Mutex<Usage>,
    /// The names of models in the server's answers.
    served: Mutex<BTreeSet<String>>,
}

impl fmt::Debug for ChatJudge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatJudge")
            .field("config", &self.config)
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}

impl ChatJudge {
    /// Creates a judge.
    ///
    /// # Errors
    /// A setting is out of range.
    pub fn new(config: ChatConfig) -> Result<Self> {
        config.check()?;
        Ok(Self {
            endpoint: Endpoint::new(&config)?,
            answers: Answers::new(config.cache.clone()),
            config,
            usage: Mutex::default(),
            served: Mutex::default(),
        })
    }

    /// Creates the judge from the environment; `None` if `HHALIGN_JUDGE_URL` is not set.
    ///
    /// `HHALIGN_JUDGE_MODEL` is the name of the model, `HHALIGN_JUDGE_KEY` the key for servers that
    /// require one. `HHALIGN_JUDGE_PRICE_IN` and `HHALIGN_JUDGE_PRICE_OUT` are dollars for a
    /// million tokens. `HHALIGN_JUDGE_CACHE` is the folder of answers, by default
    /// `../.cache/judge`.
    ///
    /// # Errors
    /// A variable is missing or cannot be read.
    pub fn from_env() -> Result<Option<Self>> {
        Self::from_lookup(|name| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned()))
    }

    /// Creates the judge from any source of named values, as [`ChatJudge::from_env`] does.
    ///
    /// # Errors
    /// As [`ChatJudge::from_env`].
    pub fn from_lookup(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let get = |name: &str| get(name).map(|v| v.trim().to_string()).filter(|v| !v.is_empty());
        let Some(url) = get("HHALIGN_JUDGE_URL") else { return Ok(None) };
        let number = |name: &str| match get(name) {
            None => Ok(None),
            Some(text) => text.parse::<f64>().map(Some).map_err(|_| {
                Error::new(
                    format!("{name} cannot be read"),
                    format!("{text:?}"),
                    "give dollars for a million tokens, such as 0.15",
                )
            }),
        };
        let price = match (number("HHALIGN_JUDGE_PRICE_IN")?, number("HHALIGN_JUDGE_PRICE_OUT")?) {
            (None, None) => None,
            (Some(input), Some(output)) => Some(Price { input, output }),
            _ => {
                let fix = "set both HHALIGN_JUDGE_PRICE_IN and HHALIGN_JUDGE_PRICE_OUT, or neither";
                return Err(Error::new(
                    "one price of the judge is missing",
                    "only one of two",
                    fix,
                ));
            }
        };
        let config = ChatConfig {
            url,
            model: get("HHALIGN_JUDGE_MODEL").unwrap_or_default(),
            key: get("HHALIGN_JUDGE_KEY").map(ApiKey::new),
            price,
            cache: Some(
                get("HHALIGN_JUDGE_CACHE").map_or_else(|| "../.cache/judge".into(), PathBuf::from),
            ),
            ..ChatConfig::default()
        };
        Self::new(config).map(Some)
    }

    /// Returns requests, tokens and cost since the judge was created.
    pub fn usage(&self) -> Usage {
        Usage {
            requests: self.endpoint.requests.load(Ordering::Relaxed),
            retries: self.endpoint.repeated.load(Ordering::Relaxed),
            ..*self.usage.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    /// The key of an answer: a hash of everything that could change it.
    fn key_of(&self, question: &Question<'_>) -> String {
        let c = &self.config;
        let settings = format!("{} {}", c.max_tokens, c.seed);
        let version = instructions::version();
        hash(
            &[
                &self.endpoint.address.completions,
                &c.model,
                &version,
                &settings,
                question.prompt,
                question.a,
                question.b,
            ],
            32,
        )
    }

    fn request(&self, question: &Question<'_>) -> String {
        // One message of the user: not every model's template has a system message.
        json!({
            "model": self.config.model,
            "messages": [{ "role": "user", "content": instructions::message(question) }],
            "temperature": 0,
            "seed": self.config.seed,
            "max_tokens": self.config.max_tokens,
        })
        .to_string()
    }

    /// Asks a question and keeps the answer; `false` if `stop` is set before.
    fn ask(&self, key: &str, question: &Question<'_>, stop: &AtomicBool) -> Result<bool> {
        let read = |text: &str| read_answer(text, &self.config.model);
        let Some(answer) = self.endpoint.ask(&self.request(question), stop, read)? else {
            return Ok(false);
        };
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        usage.add_tokens(answer.prompt_tokens, answer.completion_tokens, self.config.price);
        drop(usage);
        self.answers.keep(key, answer).map(|()| true)
    }

    /// Asks several questions at once; the first failure stops the others, and answers are kept.
    fn ask_all(&self, wanted: &[(&String, &Question<'_>)]) -> Result<()> {
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let failed = Mutex::new(None);
        let run = || {
            while !stop.load(Ordering::Relaxed)
                && let Some((key, question)) = wanted.get(next.fetch_add(1, Ordering::Relaxed))
            {
                if let Err(error) = self.ask(key, question, &stop) {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    stop.store(true, Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|scope| {
            (1..self.config.parallel.min(wanted.len())).for_each(|_| drop(scope.spawn(run)));
            run();
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

impl Judge for ChatJudge {
    fn identity(&self) -> String {
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<&str> = served.iter().map(String::as_str).collect();
        let name = if names.is_empty() { self.config.model.clone() } else { names.join(" and ") };
        format!(
            "chat model {name} at {}, instructions sha256 {}",
            self.endpoint.address.host,
            instructions::version()
        )
    }

    fn judge(&self, questions: &[Question<'_>]) -> Result<Vec<Option<Preference>>> {
        let keys: Vec<String> = questions.iter().map(|q| self.key_of(q)).collect();
        let mut seen = BTreeSet::new();
        let wanted: Vec<(&String, &Question<'_>)> = keys
            .iter()
            .zip(questions)
            .filter(|(key, _)| seen.insert(*key) && self.answers.get(key).is_none())
            .collect();
        self.usage.lock().unwrap_or_else(PoisonError::into_inner).from_cache +=
            questions.len() - wanted.len();
        self.ask_all(&wanted)?;
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let mut verdict = |key: &String| {
            let answer = self.answers.get(key)?;
            let verdict = answer.verdict();
            served.insert(answer.model);
            verdict
        };
        let verdicts: Vec<Option<Preference>> = keys.iter().map(&mut verdict).collect();
        let unreadable = verdicts.iter().filter(|v| v.is_none()).count();
        self.usage.lock().unwrap_or_else(PoisonError::into_inner).unreadable += unreadable;
        Ok(verdicts)
    }
}

/// Reads the answer in a server's JSON.
fn read_answer(text: &str, asked: &str) -> Result<Answer> {
    let json: Value = serde_json::from_str(text).unwrap_or_default();
    let choice = &json["choices"][0];
    if !choice["message"].is_object() {
        return Err(Error::network(
            "the judge's answer is not in the expected form",
            server_message(text),
            "check that HHALIGN_JUDGE_URL is an OpenAI-compatible address; it mostly ends in /v1",
        ));
    }
    let served: String = json["model"]
        .as_str()
        .unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control())
        .take(100)
        .collect();
    Ok(Answer {
        // A model that only reasoned, or was stopped by a filter, has no content.
        text: choice["message"]["content"].as_str().unwrap_or_default().into(),
        cut: matches!(choice["finish_reason"].as_str(), Some("length" | "content_filter")),
        model: if served.is_empty() { asked.into() } else { served },
        prompt_tokens: json["usage"]["prompt_tokens"].as_u64(),
        completion_tokens: json["usage"]["completion_tokens"].as_u64(),
    })
}
