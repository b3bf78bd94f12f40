//! Settings of a chat model as judge: address, key, limits.

use std::path::PathBuf;
use std::time::Duration;

use super::address::Address;
use super::usage::Price;
use crate::base::error::{Error, Result};
use crate::base::secret::ApiKey;

/// Settings of a chat model as judge.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatConfig {
    /// The base address, up to `/v1`.
    pub url: String,
    /// The model's name on that server.
    pub model: String,
    /// The key, if the server requires one.
    pub key: Option<ApiKey>,
    /// The price of tokens, to compute the cost.
    pub price: Option<Price>,
    /// The longest time for a connection.
    pub connect_timeout: Duration,
    /// The longest time for a request and its answer.
    pub timeout: Duration,
    /// The number of repeats after a failure that may be temporary.
    pub retries: usize,
    /// The wait before the first repeat; it doubles for each further one.
    pub first_wait: Duration,
    /// The longest wait; judging stops if the server asks for a longer one.
    pub longest_wait: Duration,
    /// The number of concurrent requests.
    pub parallel: usize,
    /// The most tokens of an answer; a reasoning model needs some thousands.
    pub max_tokens: usize,
    /// The seed, for servers that support it.
    pub seed: u64,
    /// The folder of answers; `None` keeps them in memory only.
    pub cache: Option<PathBuf>,
}

impl Default for ChatConfig {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8000/v1".into(),
            model: String::new(),
            key: None,
            price: None,
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(120),
            retries: 5,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(60),
            parallel: 4,
            max_tokens: 64,
            seed: 0,
            cache: None,
        }
    }
}

impl ChatConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// The first setting that is out of range.
    pub fn check(&self) -> Result<()> {
        Address::read(&self.url)?;
        let wrong = |what: &str, got: String, fix: &str| Err(Error::new(what, got, fix));
        if self.model.trim().is_empty() {
            return wrong(
                "the judge has no model",
                "an empty name".into(),
                "set HHALIGN_JUDGE_MODEL",
            );
        }
        if self.key.as_ref().is_some_and(|key| !key.is_sound()) {
            let got = "an empty key, or characters that no key has";
            return wrong(
                "the judge's key cannot be sent",
                got.into(),
                "copy HHALIGN_JUDGE_KEY again, on one line",
            );
        }
        if let Some(price) =
            self.price.filter(|p| ![p.input, p.output].iter().all(|d| d.is_finite() && *d >= 0.0))
        {
            return wrong(
                "a price must be 0 or more",
                format!("{price:?}"),
                "give dollars for a million tokens",
            );
        }
        if self.connect_timeout.is_zero() || self.timeout.is_zero() {
            return wrong(
                "a time-out must be more than 0",
                format!("{:?}", self.timeout),
                "allow some seconds",
            );
        }
        if self.retries > 20 || self.max_tokens == 0 || !(1..=64).contains(&self.parallel) {
            let got = format!(
                "{} retries, {} tokens, {} at once",
                self.retries, self.max_tokens, self.parallel
            );
            return wrong(
                "a setting of the judge is out of range",
                got,
                "up to 20 retries, 1 token or more, 1 to 64 at once",
            );
        }
        Ok(())
    }
}
