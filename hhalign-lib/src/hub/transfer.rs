//! Requests to the hub: what a file is, and then its bytes, from where an earlier download stopped.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use ureq::http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, LOCATION, RANGE};
use ureq::http::{Response, Uri};
use ureq::typestate::WithoutBody;
use ureq::{Agent, Body, RequestBuilder};

use super::checksum::Checksum;
use super::progress::Progress;
use super::trouble::{Failure, Words};
use crate::error::{Error, Result};

/// Redirects that are followed at most.
const HOPS: usize = 8;

/// Bytes read at once.
const CHUNK: usize = 1 << 20;

pub(super) struct Transfer<'a> {
    words: &'a Words<'a>,
    agent: Agent,
    /// Scheme and host of the hub: the token goes there and nowhere else.
    home: String,
}

/// What the hub says of a file.
struct About {
    commit: String,
    sum: Checksum,
    size: u64,
    /// Where its bytes are.
    location: String,
}

/// What the attempts to get one file have seen so far.
#[derive(Default)]
struct Seen {
    /// Whether the last one brought new bytes.
    brought: bool,
    /// Whether any of them did.
    ever: bool,
    /// How often all bytes were there and were not those that the hub names.
    wrong: usize,
}

impl<'a> Transfer<'a> {
    pub fn new(words: &'a Words<'a>) -> Result<Self> {
        let endpoint = &words.hub.endpoint;
        let Some(home) = origin(endpoint).filter(|_| !endpoint.contains(['@', '?', '#'])) else {
            // What is wrong here may hold a password, so it is not shown.
            let what = "the hub's address cannot be used";
            return Err(Error::new(what, "HF_ENDPOINT", "give an address such as https://huggingface.co"));
        };
        let host = home.split("://").nth(1).unwrap_or_default();
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
        let mut agent = Agent::config_builder()
            .http_status_as_error(false)
            // Redirects are followed here, so that it is seen where the token goes.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(words.hub.patience))
            .timeout_recv_response(Some(words.hub.patience))
            .timeout_per_read(Some(words.hub.patience))
            .user_agent(concat!("hhalign/", env!("CARGO_PKG_VERSION")));
        if name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback()) {
            agent = agent.proxy(None);
        }
        Ok(Self { words, agent: agent.build().into(), home })
    }

    /// Brings a file into the cache and says to which commit it belongs; fails after `retries` repeats without a new byte.
    pub fn fetch(&self, commit: Option<&str>, path: &str, retries: usize) -> Result<String, Failure> {
        let hub = self.words.hub;
        let (mut failed, mut seen) = (0, Seen::default());
        loop {
            seen.brought = false;
            let failure = match self.attempt(commit, path, &mut seen) {
                Ok(commit) => return Ok(commit),
                Err(failure) => failure,
            };
            failed = if seen.brought { 1 } else { failed + 1 };
            seen.ever |= seen.brought;
            let most = if seen.ever { retries } else { retries.min(failure.repeats) };
            if !failure.passing || failed > most {
                return Err(failure);
            }
            let doubled = hub.first_wait.saturating_mul(1 << (failed - 1).min(20)).min(hub.longest_wait);
            let wait = failure.wait.unwrap_or(doubled);
            if wait > hub.longest_wait {
                return Err(failure);
            }
            if wait >= Duration::from_secs(2) {
                hub.say(format_args!("{}; next try in {} s", failure.error.what(), wait.as_secs()));
            }
            std::thread::sleep(wait);
        }
    }

    fn attempt(&self, commit: Option<&str>, path: &str, seen: &mut Seen) -> Result<String, Failure> {
        let Words { hub, repo, cache } = *self.words;
        let about = self.about(commit.unwrap_or(&repo.revision), path)?;
        if let Some(asked) = commit.filter(|asked| *asked != about.commit) {
            return Err(self.words.unclear(path, format!("the commit {} instead of {asked}", about.commit)));
        }
        if cache.holds(Some(&about.commit), path) {
            return Ok(about.commit);
        }
        let _lock = cache.lock(&about.sum, || {
            hub.say(format_args!("{}/{path}: waiting for another process that fetches it", repo.id));
        })?;
        let blob = cache.blob(&about.sum);
        if !fs::metadata(&blob).is_ok_and(|blob| blob.len() == about.size) {
            self.download(&about, path, &blob, seen)?;
        }
        cache.link(&about.sum, &about.commit, path)?;
        Ok(about.commit)
    }

    /// Asks what a file is. The hub says it itself, before it sends the request on to where the bytes are.
    fn about(&self, revision: &str, path: &str) -> Result<About, Failure> {
        let mut url = self.words.repo.address(&self.words.hub.endpoint, revision, path);
        let mut commit = None;
        for _ in 0..HOPS {
            let response = self.send(self.agent.head(&url), &url, path)?;
            let header = |name: &str| text(&response, name);
            commit = header("x-repo-commit").map(str::to_string).or(commit);
            let elsewhere = self.redirect(&response, &url, path)?;
            if let Some(next) = elsewhere.clone().filter(|next| self.is_home(next)) {
                url = next;
                continue;
            }
            if elsewhere.is_none() && !response.status().is_success() {
                return Err(self.words.status(path, &response));
            }
            // The length of an answer that redirects is its own.
            let own = if elsewhere.is_none() { header(CONTENT_LENGTH.as_str()) } else { None };
            let size = header("x-linked-size").or(own).and_then(|size| size.trim().parse().ok());
            let sum = header("x-linked-etag").or(header(ETAG.as_str())).and_then(Checksum::read);
            let commit = commit.filter(|commit| super::repo::is_commit(commit));
            let (Some(commit), Some(sum), Some(size)) = (commit, sum, size) else {
                return Err(self.words.unclear(path, "an answer without commit, checksum or length".into()));
            };
            return Ok(About { commit, sum, size, location: elsewhere.unwrap_or(url) });
        }
        Err(self.words.unclear(path, format!("more than {HOPS} redirects")))
    }

    /// Fetches what is missing of a file, checks the whole, and puts it in its place.
    fn download(&self, about: &About, path: &str, blob: &Path, seen: &mut Seen) -> Result<(), Failure> {
        let place = self.words.cache.incomplete(&about.sum);
        let broken = |e: std::io::Error| self.words.disk(path, &place, about.size, &e);
        let mut file = OpenOptions::new().create(true).append(true).open(&place).map_err(broken)?;
        let mut there = file.metadata().map_err(broken)?.len();
        if there > about.size {
            file.set_len(0).map_err(broken)?;
            there = 0;
        }
        if there < about.size {
            self.words.check_space(path, &place, about.size - there)?;
            let received = self.receive(about, path, &mut file, there);
            seen.brought = file.metadata().map_err(broken)?.len() > there;
            received?;
        }
        file.sync_all().map_err(broken)?;
        let sum = about.sum.of(&place).map_err(broken)?;
        if sum != about.sum.digits() {
            fs::remove_file(&place).map_err(broken)?;
            // Once more from the beginning: what an earlier process left may be to blame.
            seen.wrong += 1;
            return Err(self.words.checksum(path, &sum, about.sum.digits(), seen.wrong < 2));
        }
        fs::rename(&place, blob).map_err(broken)
    }

    /// Appends to a file the bytes from `there` on.
    fn receive(&self, about: &About, path: &str, file: &mut File, there: u64) -> Result<(), Failure> {
        let words = self.words;
        let place = words.cache.incomplete(&about.sum);
        let broken = |e: std::io::Error| words.disk(path, &place, about.size - there, &e);
        let response = self.open(about, path, there)?;
        let start = match response.status().as_u16() {
            // `bytes 100-199/200`
            206 => text(&response, CONTENT_RANGE.as_str())
                .and_then(|range| range.trim().strip_prefix("bytes ")?.split('-').next()?.parse().ok()),
            200 => Some(0),
            _ => return Err(words.status(path, &response)),
        };
        let length = text(&response, CONTENT_LENGTH.as_str()).and_then(|length| length.parse::<u64>().ok());
        let Some(start) = start.filter(|start| *start == there || *start == 0) else {
            return Err(words.length(path, "another part than the one asked for".into(), about.size));
        };
        if let Some(whole) = length.map(|length| start.saturating_add(length)).filter(|whole| *whole != about.size) {
            return Err(words.length(path, format!("{whole} bytes announced"), about.size));
        }
        if start < there {
            file.set_len(0).map_err(broken)?;
        }
        let mut there = start;
        let mut reader = response.into_body().into_reader();
        let mut progress = Progress::new(words.hub, format!("{}/{path}", words.repo.id), there, about.size);
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = reader.read(&mut buffer).map_err(|e| words.cut(path, there, about.size, &e.to_string()))?;
            if read == 0 {
                break;
            }
            there += read as u64;
            if there > about.size {
                file.set_len(0).map_err(broken)?;
                return Err(words.length(path, format!("more than {there} bytes"), about.size));
            }
            file.write_all(&buffer[..read]).map_err(broken)?;
            progress.update(there);
        }
        if there < about.size {
            return Err(words.cut(path, there, about.size, "the end of the answer"));
        }
        Ok(())
    }

    /// Asks for the bytes from `there` on, wherever they are.
    fn open(&self, about: &About, path: &str, there: u64) -> Result<Response<Body>, Failure> {
        let mut url = about.location.clone();
        for _ in 0..HOPS {
            let mut request = self.agent.get(&url);
            if there > 0 {
                request = request.header(RANGE, format!("bytes={there}-"));
            }
            let response = self.send(request, &url, path)?;
            match self.redirect(&response, &url, path)? {
                Some(next) => url = next,
                None => return Ok(response),
            }
        }
        Err(self.words.unclear(path, format!("more than {HOPS} redirects")))
    }

    fn send(&self, request: RequestBuilder<WithoutBody>, url: &str, path: &str) -> Result<Response<Body>, Failure> {
        // Lengths and ranges are those of the file itself, not of a packed form.
        let mut request = request.header(ACCEPT_ENCODING, "identity");
        if let Some(token) = self.words.hub.token.as_ref().filter(|_| self.is_home(url)) {
            request = request.header(AUTHORIZATION, token.bearer());
        }
        request.call().map_err(|error| self.words.unreachable(path, &origin(url).unwrap_or_default(), &error))
    }

    /// Where a response sends the request, if it does.
    fn redirect(&self, response: &Response<Body>, from: &str, path: &str) -> Result<Option<String>, Failure> {
        if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let to = text(response, LOCATION.as_str()).unwrap_or_default();
        let next = if to.starts_with('/') && !to.starts_with("//") {
            origin(from).map(|origin| origin + to)
        } else {
            // From a safe connection no way leads to an open one.
            origin(to).filter(|_| to.starts_with("https:") || !from.starts_with("https:")).map(|_| to.to_string())
        };
        next.map(Some).ok_or_else(|| self.words.unclear(path, "a redirect to an address that cannot be used".into()))
    }

    fn is_home(&self, url: &str) -> bool {
        origin(url).is_some_and(|origin| origin == self.home)
    }
}

/// Scheme and host of an address, with its port where one is given.
fn origin(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let (Some(scheme @ ("http" | "https")), Some(host)) = (uri.scheme_str(), uri.authority()) else { return None };
    Some(format!("{scheme}://{}", host.as_str().to_lowercase()))
}

fn text<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}
