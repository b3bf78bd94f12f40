//! Requests to the hub: the description of a file, then its bytes from where an earlier download
//! stopped.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use ureq::http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, LOCATION, RANGE,
};
use ureq::http::{Response, Uri};
use ureq::typestate::WithoutBody;
use ureq::{Agent, Body, RequestBuilder};

use crate::base::error::{Error, Result};
use crate::base::hub::checksum::Checksum;
use crate::base::hub::failure::{Context, Failure};
use crate::base::hub::progress::Progress;

/// The maximum number of redirects to follow.
const MAX_REDIRECTS: usize = 8;

/// Bytes per read.
const CHUNK: usize = 1 << 20;

/// Fetches files of one repository.
pub(super) struct Transfer<'a> {
    context: &'a Context<'a>,
    agent: Agent,
    /// Scheme and host of the hub. Only this origin receives the token.
    home: String,
}

/// The hub's description of a file.
struct Description {
    commit: String,
    sum: Checksum,
    size: u64,
    /// The address of the bytes.
    location: String,
}

/// The state of the attempts to fetch one file.
#[derive(Default)]
struct Attempts {
    /// Whether the last one received new bytes.
    last_received: bool,
    /// Whether any of them did.
    any_received: bool,
    /// The number of times that the complete file did not have the hub's checksum.
    wrong_checksums: usize,
}

impl<'a> Transfer<'a> {
    pub fn new(context: &'a Context<'a>) -> Result<Self> {
        let endpoint = &context.hub.endpoint;
        let Some(home) = origin(endpoint).filter(|_| !endpoint.contains(['@', '?', '#'])) else {
            // The address may hold a password, so it is not shown.
            let what = "the hub's address cannot be used";
            return Err(Error::new(
                what,
                "HF_ENDPOINT",
                "give an address such as https://huggingface.co",
            ));
        };
        let host = home.split("://").nth(1).unwrap_or_default();
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
        let mut agent = Agent::config_builder()
            .http_status_as_error(false)
            // `describe` and `open` follow redirects, and `send` controls who receives the token.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(context.hub.patience))
            .timeout_recv_response(Some(context.hub.patience))
            .timeout_per_read(Some(context.hub.patience))
            .user_agent(concat!("hhalign/", env!("CARGO_PKG_VERSION")));
        if name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback()) {
            agent = agent.proxy(None);
        }
        Ok(Self { context, agent: agent.build().into(), home })
    }

    /// Fetches a file into the cache and returns its commit; fails after `retries` repeats without
    /// a new byte.
    pub fn fetch(
        &self,
        commit: Option<&str>,
        path: &str,
        retries: usize,
    ) -> Result<String, Failure> {
        let hub = self.context.hub;
        let (mut failed, mut attempts) = (0, Attempts::default());
        loop {
            attempts.last_received = false;
            let failure = match self.attempt(commit, path, &mut attempts) {
                Ok(commit) => return Ok(commit),
                Err(failure) => failure,
            };
            failed = if attempts.last_received { 1 } else { failed + 1 };
            attempts.any_received |= attempts.last_received;
            let most = if attempts.any_received { retries } else { retries.min(failure.repeats) };
            if !failure.is_transient || failed > most {
                return Err(failure);
            }
            let doubled =
                hub.first_wait.saturating_mul(1 << (failed - 1).min(20)).min(hub.longest_wait);
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

    fn attempt(
        &self,
        commit: Option<&str>,
        path: &str,
        attempts: &mut Attempts,
    ) -> Result<String, Failure> {
        let Context { hub, repo, cache } = *self.context;
        let file = self.describe(commit.unwrap_or(&repo.revision), path)?;
        if let Some(requested) = commit.filter(|requested| *requested != file.commit) {
            let got = format!("the commit {} instead of {requested}", file.commit);
            return Err(self.context.unclear(path, &got));
        }
        if cache.holds(Some(&file.commit), path) {
            return Ok(file.commit);
        }
        let _lock = cache.lock(&file.sum, || {
            hub.say(format_args!(
                "{}/{path}: waiting for another process that fetches it",
                repo.id
            ));
        })?;
        let blob = cache.blob(&file.sum);
        if !fs::metadata(&blob).is_ok_and(|blob| blob.len() == file.size) {
            self.download(&file, path, &blob, attempts)?;
        }
        cache.link(&file.sum, &file.commit, path)?;
        Ok(file.commit)
    }

    /// Requests the description of a file. The hub itself sends it, before any redirect to the
    /// bytes.
    fn describe(&self, revision: &str, path: &str) -> Result<Description, Failure> {
        let mut url = self.context.repo.address(&self.context.hub.endpoint, revision, path);
        let mut commit = None;
        for _ in 0..MAX_REDIRECTS {
            let response = self.send(self.agent.head(&url), &url, path)?;
            let header = |name: &str| text(&response, name);
            commit = header("x-repo-commit").map(str::to_string).or(commit);
            let elsewhere = self.redirect(&response, &url, path)?;
            if let Some(next) = elsewhere.clone().filter(|next| self.is_home(next)) {
                url = next;
                continue;
            }
            if elsewhere.is_none() && !response.status().is_success() {
                return Err(self.context.status(path, &response));
            }
            // The Content-Length of a redirect is not the length of the file.
            let own = if elsewhere.is_none() { header(CONTENT_LENGTH.as_str()) } else { None };
            let size = header("x-linked-size").or(own).and_then(|size| size.trim().parse().ok());
            let sum = header("x-linked-etag").or(header(ETAG.as_str())).and_then(Checksum::read);
            let commit = commit.filter(|commit| crate::base::hub::repo::is_commit(commit));
            let (Some(commit), Some(sum), Some(size)) = (commit, sum, size) else {
                let got = "an answer without commit, checksum or length";
                return Err(self.context.unclear(path, got));
            };
            return Ok(Description { commit, sum, size, location: elsewhere.unwrap_or(url) });
        }
        Err(self.context.unclear(path, &format!("more than {MAX_REDIRECTS} redirects")))
    }

    /// Fetches the missing part of a file, checks the whole, and moves it to `blob`.
    fn download(
        &self,
        file: &Description,
        path: &str,
        blob: &Path,
        attempts: &mut Attempts,
    ) -> Result<(), Failure> {
        let incomplete = self.context.cache.incomplete(&file.sum);
        let broken = |e: std::io::Error| self.context.disk(path, &incomplete, file.size, e);
        let mut part =
            OpenOptions::new().create(true).append(true).open(&incomplete).map_err(broken)?;
        let mut received = part.metadata().map_err(broken)?.len();
        if received > file.size {
            part.set_len(0).map_err(broken)?;
            received = 0;
        }
        if received < file.size {
            self.context.check_space(path, &incomplete, file.size - received)?;
            let result = self.receive(file, path, &mut part, received);
            attempts.last_received = part.metadata().map_err(broken)?.len() > received;
            result?;
        }
        part.sync_all().map_err(broken)?;
        let sum = file.sum.of(&incomplete).map_err(broken)?;
        if sum != file.sum.digits() {
            fs::remove_file(&incomplete).map_err(broken)?;
            // After a first mismatch the file is fetched again in full: an earlier process may have
            // left a bad partial file.
            attempts.wrong_checksums += 1;
            let again = attempts.wrong_checksums < 2;
            return Err(self.context.checksum(path, &sum, file.sum.digits(), again));
        }
        fs::rename(&incomplete, blob).map_err(broken)
    }

    /// Appends the file's bytes to `part`, starting at offset `received`.
    fn receive(
        &self,
        file: &Description,
        path: &str,
        part: &mut File,
        mut received: u64,
    ) -> Result<(), Failure> {
        let (context, size) = (self.context, file.size);
        let incomplete = context.cache.incomplete(&file.sum);
        let needed = size - received;
        let broken = |e: std::io::Error| context.disk(path, &incomplete, needed, e);
        let response = self.open(file, path, received)?;
        let start = match response.status().as_u16() {
            // `bytes 100-199/200`
            206 => text(&response, CONTENT_RANGE.as_str()).and_then(|range| {
                range.trim().strip_prefix("bytes ")?.split('-').next()?.parse().ok()
            }),
            200 => Some(0),
            _ => return Err(context.status(path, &response)),
        };
        let Some(start) = start.filter(|start| *start == received || *start == 0) else {
            return Err(context.length(path, "another part than the requested one", size));
        };
        let length =
            text(&response, CONTENT_LENGTH.as_str()).and_then(|length| length.parse::<u64>().ok());
        let announced = length.map(|length| start.saturating_add(length));
        if let Some(announced) = announced.filter(|announced| *announced != size) {
            return Err(context.length(path, &format!("{announced} bytes announced"), size));
        }
        if start < received {
            part.set_len(0).map_err(broken)?;
            received = start;
        }
        let mut reader = response.into_body().into_reader();
        let name = format!("{}/{path}", context.repo.id);
        let mut progress = Progress::new(context.hub, name, received, size);
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = reader
                .read(&mut buffer)
                .map_err(|e| context.cut(path, received, size, &e.to_string()).caused_by(e))?;
            if read == 0 {
                break;
            }
            received += read as u64;
            if received > size {
                part.set_len(0).map_err(broken)?;
                return Err(context.length(path, &format!("more than {received} bytes"), size));
            }
            part.write_all(&buffer[..read]).map_err(broken)?;
            progress.update(received);
        }
        if received < size {
            return Err(context.cut(path, received, size, "the end of the answer"));
        }
        Ok(())
    }

    /// Requests the file's bytes from offset `received`, and follows redirects.
    fn open(
        &self,
        file: &Description,
        path: &str,
        received: u64,
    ) -> Result<Response<Body>, Failure> {
        let mut url = file.location.clone();
        for _ in 0..MAX_REDIRECTS {
            let mut request = self.agent.get(&url);
            if received > 0 {
                request = request.header(RANGE, format!("bytes={received}-"));
            }
            let response = self.send(request, &url, path)?;
            match self.redirect(&response, &url, path)? {
                Some(next) => url = next,
                None => return Ok(response),
            }
        }
        Err(self.context.unclear(path, &format!("more than {MAX_REDIRECTS} redirects")))
    }

    fn send(
        &self,
        request: RequestBuilder<WithoutBody>,
        url: &str,
        path: &str,
    ) -> Result<Response<Body>, Failure> {
        // Lengths and ranges must be those of the file itself, not of a compressed form.
        let mut request = request.header(ACCEPT_ENCODING, "identity");
        if let Some(token) = self.context.hub.token.as_ref().filter(|_| self.is_home(url)) {
            request = request.header(AUTHORIZATION, token.bearer());
        }
        request.call().map_err(|error| {
            self.context.unreachable(path, &origin(url).unwrap_or_default(), error)
        })
    }

    /// Returns the address that a response redirects to; `None` if it is not a redirect.
    fn redirect(
        &self,
        response: &Response<Body>,
        from: &str,
        path: &str,
    ) -> Result<Option<String>, Failure> {
        if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let to = text(response, LOCATION.as_str()).unwrap_or_default();
        let next = if to.starts_with('/') && !to.starts_with("//") {
            origin(from).map(|origin| origin + to)
        } else {
            // A redirect must not lead from https to http.
            origin(to)
                .filter(|_| to.starts_with("https:") || !from.starts_with("https:"))
                .map(|_| to.to_string())
        };
        next.map(Some).ok_or_else(|| {
            self.context.unclear(path, "a redirect to an address that cannot be used")
        })
    }

    fn is_home(&self, url: &str) -> bool {
        origin(url).is_some_and(|origin| origin == self.home)
    }
}

/// Scheme and host of an address, with the port if there is one.
fn origin(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let (Some(scheme @ ("http" | "https")), Some(host)) = (uri.scheme_str(), uri.authority())
    else {
        return None;
    };
    Some(format!("{scheme}://{}", host.as_str().to_lowercase()))
}

fn text<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}
