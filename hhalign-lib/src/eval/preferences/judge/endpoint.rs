//! Requests to an OpenAI-compatible server: time-outs, repeats, and errors with the server's
//! message.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::Rng as _;
use serde_json::Value;
use ureq::http::Response;
use ureq::{Agent, Body};

use super::address::Address;
use super::config::ChatConfig;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::secret::ApiKey;

/// The longest answer of a server, in bytes.
const MAX_ANSWER: u64 = 1 << 20;

/// The longest part of a server's message that an error shows, in characters.
const MAX_MESSAGE: usize = 300;

/// How often a wait checks whether to stop.
const POLL: Duration = Duration::from_millis(50);

pub(super) struct Endpoint {
    agent: Agent,
    pub address: Address,
    key: Option<ApiKey>,
    retries: usize,
    first_wait: Duration,
    longest_wait: Duration,
    pub requests: AtomicUsize,
    pub repeated: AtomicUsize,
}

/// The result of one request.
enum Attempt<R> {
    Done(R),
    /// A repeat may succeed; the server may have said when.
    Again(Error, Option<Duration>),
    /// A repeat cannot succeed.
    Never(Error),
}

impl Endpoint {
    pub fn new(config: &ChatConfig) -> Result<Self> {
        let address = Address::read(&config.url)?;
        let mut agent = Agent::config_builder()
            .http_status_as_error(false)
            // A redirect is reported and never followed, so no other server receives the key.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(config.connect_timeout))
            .timeout_global(Some(config.timeout))
            .max_idle_connections_per_host(config.parallel)
            .user_agent(concat!("hhalign/", env!("CARGO_PKG_VERSION")));
        if address.loopback {
            agent = agent.proxy(None);
        }
        Ok(Self {
            agent: agent.build().into(),
            address,
            key: config.key.clone(),
            retries: config.retries,
            first_wait: config.first_wait,
            longest_wait: config.longest_wait,
            requests: AtomicUsize::new(0),
            repeated: AtomicUsize::new(0),
        })
    }

    /// Sends a question until `read` understands the answer; `None` if `stop` is set before.
    ///
    /// # Errors
    /// The server refuses, or still fails after all repeats.
    pub fn ask<R>(
        &self,
        body: &str,
        stop: &AtomicBool,
        read: impl Fn(&str) -> Result<R>,
    ) -> Result<Option<R>> {
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            self.requests.fetch_add(1, Ordering::Relaxed);
            self.repeated.fetch_add(usize::from(sent > 0), Ordering::Relaxed);
            let (error, asked) = match self.attempt(body, &read) {
                Attempt::Done(answer) => return Ok(Some(answer)),
                Attempt::Never(error) => return Err(error),
                Attempt::Again(error, asked) => (error, asked),
            };
            sent += 1;
            if sent > self.retries {
                return Err(error.at(format!("after {sent} requests")));
            }
            if let Some(asked) = asked.filter(|asked| *asked > self.longest_wait) {
                return Err(error.at(format!("the server asks to wait {} s", asked.as_secs())));
            }
            let backed_off =
                self.first_wait.saturating_mul(1 << (sent - 1).min(20)).min(self.longest_wait);
            // Jitter, so that requests that failed together are not repeated together.
            let jitter = rand::rng().random_range(0.5..1.0);
            wait(
                asked.map_or(backed_off.mul_f64(jitter), |asked| {
                    asked + self.first_wait.mul_f64(jitter)
                }),
                stop,
            );
        }
        Ok(None)
    }

    fn attempt<R>(&self, body: &str, read: impl Fn(&str) -> Result<R>) -> Attempt<R> {
        let mut request =
            self.agent.post(&self.address.completions).header("Content-Type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("Authorization", key.bearer());
        }
        let answered = request.send(body).and_then(|mut response| {
            let bytes = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec()?;
            Ok((response, String::from_utf8_lossy(&bytes).into_owned()))
        });
        match answered {
            Ok((response, text)) => self.judge_response(&response, &self.hidden(&text), read),
            Err(error) => self.unanswered(error),
        }
    }

    fn judge_response<R>(
        &self,
        response: &Response<Body>,
        text: &str,
        read: impl Fn(&str) -> Result<R>,
    ) -> Attempt<R> {
        let status = response.status();
        let error = |fix: &str| {
            let what = format!("the judge at {} answered {status}", self.address.host);
            Error::network(what, self.hidden(&server_message(text)), fix)
        };
        // A key, an address or a model that has to be changed first.
        let refused = |fix: &str| Attempt::Never(error(fix).with_kind(ErrorKind::Argument));
        let header =
            |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let later =
            header("Retry-After").and_then(|s| s.trim().parse().ok()).map(Duration::from_secs);
        match status.as_u16() {
            200..=299 => read(text).map_or_else(|e| Attempt::Again(e, None), Attempt::Done),
            300..=399 => {
                let to = self.hidden(header("Location").unwrap_or("no address"));
                Attempt::Never(Error::new(
                    format!("the judge at {} redirects requests", self.address.host),
                    format!("{status} to {}", cut(&to)),
                    "if that is right, set HHALIGN_JUDGE_URL to the other address",
                ))
            }
            401 | 403 => refused("check HHALIGN_JUDGE_KEY and what it may be used for"),
            404 => {
                refused("check HHALIGN_JUDGE_URL (it mostly ends in /v1) and HHALIGN_JUDGE_MODEL")
            }
            429 => Attempt::Again(
                error("ask fewer at once or later, and check the account's limits"),
                later,
            ),
            408 | 500..=599 => {
                Attempt::Again(error("try again later: what was answered so far is kept"), later)
            }
            _ => refused("check HHALIGN_JUDGE_MODEL: it must be a chat model that this server has"),
        }
    }

    /// A request without an answer.
    fn unanswered<R>(&self, cause: ureq::Error) -> Attempt<R> {
        let host = &self.address.host;
        let (message, mut again) = (cause.to_string(), false);
        let (what, fix) = match &cause {
            ureq::Error::Timeout(_) => {
                again = true;
                (
                    format!("the judge at {host} did not answer in time"),
                    "allow a longer time-out, or ask fewer at once",
                )
            }
            // What TLS refuses: a certificate of an unknown authority, or a server that speaks
            // plain HTTP.
            ureq::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => (
                format!("no safe connection to the judge at {host}"),
                "check whether HHALIGN_JUDGE_URL begins with http or https, and the server's certificate",
            ),
            ureq::Error::Io(_) | ureq::Error::ConnectionFailed | ureq::Error::Protocol(_) => {
                again = true;
                (
                    format!("the judge at {host} cannot be reached or broke off"),
                    "check that the server runs at HHALIGN_JUDGE_URL",
                )
            }
            _ => (
                format!("the judge at {host} cannot be asked"),
                "check HHALIGN_JUDGE_URL, the network, and a proxy if there is one",
            ),
        };
        let error = Error::network(what, cut(&self.hidden(&message)), fix);
        // The cause is kept only if it cannot hold the key.
        let error = if self.hidden(&message) == message { error.caused_by(cause) } else { error };
        if again { Attempt::Again(error, None) } else { Attempt::Never(error) }
    }

    fn hidden(&self, text: &str) -> String {
        self.key.as_ref().map_or_else(|| text.into(), |key| key.hide_in(text))
    }
}

/// Sleeps until `stop` is set, at most for a given time.
fn wait(time: Duration, stop: &AtomicBool) {
    let end = Instant::now() + time;
    while !stop.load(Ordering::Relaxed) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        std::thread::sleep(left.min(POLL));
    }
}

/// The message in a server's error, in the forms that servers use, cut short.
pub(super) fn server_message(text: &str) -> String {
    let json: Value = serde_json::from_str(text).unwrap_or_default();
    let said = [&json["error"]["message"], &json["error"], &json["message"], &json["detail"]];
    let words = said.iter().find_map(|value| value.as_str()).unwrap_or(text);
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.is_empty() { "no message".into() } else { cut(&words) }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_MESSAGE) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_secrets_in_them_are_not_shown() {
        let address = |url: &str| Address::read(url).map(|a| (a.completions, a.host, a.loopback));
        let full = |host: &str| format!("{host}/v1/chat/completions");
        let read = |url: &str, host: &str, loopback: bool| {
            let (completions, found, local) = address(url).unwrap();
            assert_eq!((found.as_str(), local), (host, loopback), "{url}");
            assert!(completions.ends_with(&full(host)), "{completions}");
        };
        read("https://api.openai.com/v1", "api.openai.com", false);
        read("http://127.0.0.1:8000/v1/", "127.0.0.1:8000", true);
        read("http://localhost:11434/v1/chat/completions", "localhost:11434", true);
        read("http://[::1]:80/v1", "[::1]:80", true);
        for wrong in ["api.openai.com/v1", "ftp://host/v1", "http://", "", "http://a b/v1"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
        for secret in ["https://user:s3cret@host/v1", "https://host/v1?key=s3cret"] {
            let error = address(secret).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_servers_words_are_found_in_every_form_and_cut() {
        assert_eq!(
            server_message("{\"error\": {\"message\": \"no such\\n model\", \"code\": 1}}"),
            "no such model"
        );
        assert_eq!(server_message("{\"error\": \"overloaded\"}"), "overloaded");
        assert_eq!(server_message("{\"detail\": \"Not Found\"}"), "Not Found");
        assert_eq!(server_message("<html>busy</html>"), "<html>busy</html>");
        assert_eq!(server_message(""), "no message");
        assert_eq!(server_message(&"ä".repeat(5000)).chars().count(), MAX_MESSAGE + 3);
    }
}
