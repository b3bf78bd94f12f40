//! Failures of a download as errors: each says how to fix it, and how to fetch the file by hand.

use std::io;
use std::path::Path;
use std::time::Duration;

use ureq::Body;
use ureq::http::Response;

use crate::base::error::{Error, ErrorKind};
use crate::base::hub::cache::Cache;
use crate::base::hub::progress::mebibytes;
use crate::base::hub::{Hub, Repo};

/// The longest part of a server's message that an error shows, in characters.
const MAX_MESSAGE: usize = 300;

/// Repeats where no server answers: a user without a network should learn it soon.
const UNREACHABLE_REPEATS: usize = 2;

const CHANGED_ON_THE_WAY: &str =
    "something between here and the hub changes answers: try another network, or without the proxy";

/// An attempt that failed.
pub(super) struct Failure {
    pub error: Error,
    /// Whether a repeat may succeed.
    pub is_transient: bool,
    /// How long the server asks to wait.
    pub wait: Option<Duration>,
    /// The number of repeats that make sense before the first byte.
    pub repeats: usize,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, is_transient: false, wait: None, repeats: 0 }
    }
}

impl Failure {
    fn transient(error: Error) -> Self {
        Self { error, is_transient: true, wait: None, repeats: usize::MAX }
    }

    pub fn caused_by(self, cause: io::Error) -> Self {
        Self { error: self.error.caused_by(cause), ..self }
    }
}

/// What is being fetched: the context of every error.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub hub: &'a Hub,
    pub repo: &'a Repo,
    pub cache: &'a Cache,
}

impl Context<'_> {
    fn name(&self, path: &str) -> String {
        format!("{}/{path}", self.repo.id)
    }

    /// Which address to open in a browser, and where to save the file.
    fn by_hand(&self, path: &str) -> String {
        let revision = self.cache.revision().unwrap_or_else(|| self.repo.revision.clone());
        let address = self.repo.address(&self.hub.endpoint, &revision, path);
        let file = self.cache.folder(&revision).join(path);
        format!("or by hand: open {address} in a browser and save the file as {}", file.display())
    }

    /// A message without the token.
    fn without_token(&self, text: &str) -> String {
        self.hub.token.as_ref().map_or_else(|| text.into(), |token| token.hide_in(text))
    }

    fn error(&self, path: &str, what: String, got: &str, fix: &str) -> Error {
        Error::network(what, self.without_token(got), format!("{fix}; {}", self.by_hand(path)))
    }

    /// The file is not in the cache, and the network may not be used.
    pub fn offline(&self, path: &str) -> Error {
        let what = format!("{} is not in the cache, and HF_HUB_OFFLINE is set", self.name(path));
        let got = format!("revision {}, cache {}", self.repo.revision, self.hub.cache.display());
        self.error(path, what, &got, "unset HF_HUB_OFFLINE for the first use")
    }

    /// The server refuses.
    pub fn status(&self, path: &str, response: &Response<Body>) -> Failure {
        let status = response.status();
        let header =
            |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let message = header("x-error-message").unwrap_or_default();
        let got = match message.char_indices().nth(MAX_MESSAGE) {
            Some((end, _)) => format!("{status}: {}...", &message[..end]),
            None if message.is_empty() => status.to_string(),
            None => format!("{status}: {message}"),
        };
        let name = self.name(path);
        let page = self.repo.page(&self.hub.endpoint);
        let error = |what: String, fix: &str| self.error(path, what, &got, fix);
        // A name, a revision or a token that has to be changed first.
        let refused =
            |what: String, fix: &str| error(what, fix).with_kind(ErrorKind::Argument).into();
        match status.as_u16() {
            401 => {
                let fix = match self.hub.token {
                    Some(_) => {
                        "check the repository's name and the token (HF_TOKEN): it may have expired"
                            .to_string()
                    }
                    // The hub gives this answer for names that do not exist, too.
                    None => format!(
                        "check the repository's name; if it is not public, set HF_TOKEN to a token \
                         from {}/settings/tokens",
                        self.hub.endpoint
                    ),
                };
                refused(format!("the hub does not show {name} without a valid token"), &fix)
            }
            403 => refused(
                format!("the hub does not let you have {name}"),
                &format!("ask for access on {page}, and set HF_TOKEN to a token that may read it"),
            ),
            404 => {
                let what = match header("x-error-code") {
                    Some("RepoNotFound") => format!("the hub has no repository {}", self.repo.id),
                    Some("RevisionNotFound") => {
                        format!("{} has no revision {}", self.repo.id, self.repo.revision)
                    }
                    Some("EntryNotFound") => {
                        format!("{} has no file {path} at {}", self.repo.id, self.repo.revision)
                    }
                    _ => format!("the hub has no {name} at {}", self.repo.revision),
                };
                refused(what, &format!("look at {page} for names and revisions"))
            }
            429 => {
                let wait = requested_wait(&header);
                let when = wait
                    .map_or_else(|| "in a few minutes".into(), |w| format!("in {} s", w.as_secs()));
                let fix = format!(
                    "run it again {when}: what was fetched is kept; a token (HF_TOKEN) allows more \
                     requests"
                );
                let what =
                    format!("the hub received too many requests, and does not send {name} now");
                Failure { wait, ..Failure::transient(error(what, &fix)) }
            }
            408 | 500..=599 => {
                let what = format!("the hub cannot send {name} now");
                let error = error(what, "run it again later: what was fetched is kept");
                Failure { wait: requested_wait(&header), ..Failure::transient(error) }
            }
            416 => self.length(path, "the server has no such part", 0),
            _ => error(
                format!("the hub does not send {name}"),
                "check HF_ENDPOINT and the proxy, if there is one",
            )
            .into(),
        }
    }

    /// No server answers.
    pub fn unreachable(&self, path: &str, host: &str, cause: ureq::Error) -> Failure {
        let got = cause.to_string();
        let fix = "check the network, HF_ENDPOINT, and the proxy, if there is one";
        let is_transient = match &cause {
            // What TLS refuses: a certificate of an unknown authority, or a server that speaks
            // plain HTTP.
            ureq::Error::Io(io) => io.kind() != io::ErrorKind::InvalidData,
            ureq::Error::Timeout(_)
            | ureq::Error::ConnectionFailed
            | ureq::Error::HostNotFound
            | ureq::Error::Protocol(_) => true,
            _ => false,
        };
        let error = self.error(path, format!("{host} cannot be reached"), &got, fix);
        let error = if error.got() == got { error.caused_by(cause) } else { error };
        Failure { is_transient, repeats: UNREACHABLE_REPEATS, ..Failure::transient(error) }
    }

    /// The answer lacks what a hub's answer has.
    pub fn unclear(&self, path: &str, got: &str) -> Failure {
        let what = format!("{} does not say what {} is", self.hub.endpoint, self.name(path));
        let fix = "unset HF_ENDPOINT, or name a mirror that passes on the hub's headers";
        self.error(path, what, got, fix).into()
    }

    /// The connection broke off after `received` bytes.
    pub fn cut(&self, path: &str, received: u64, size: u64, got: &str) -> Failure {
        let name = self.name(path);
        let what = format!("the download of {name} broke off after {received} of {size} bytes");
        Failure::transient(self.error(path, what, got, "run it again: the download resumes"))
    }

    /// The length is not the one that the hub names; a size of 0 stands for an unknown one.
    pub fn length(&self, path: &str, got: &str, size: u64) -> Failure {
        let what = match size {
            0 => format!("{} cannot be had in parts", self.name(path)),
            _ => format!("{} must have {size} bytes", self.name(path)),
        };
        Failure::transient(self.error(path, what, got, CHANGED_ON_THE_WAY))
    }

    /// The checksum is not the one that the hub names.
    pub fn checksum(&self, path: &str, found: &str, expected: &str, is_transient: bool) -> Failure {
        let what = format!("{} is not what the hub says it is, and was not kept", self.name(path));
        let got = format!("checksum {found} instead of {expected}");
        let error = self.error(path, what, &got, CHANGED_ON_THE_WAY);
        Failure { is_transient, ..Failure::transient(error) }
    }

    /// The disk refuses.
    pub fn disk(&self, path: &str, file: &Path, needed: u64, cause: io::Error) -> Failure {
        match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                self.full(path, needed, &cause.to_string()).caused_by(cause).into()
            }
            _ => Error::io(file, cause).into(),
        }
    }

    /// Fails if the disk lacks the space for the rest of a file, before the download and not after
    /// half a gigabyte of it.
    pub fn check_space(&self, path: &str, file: &Path, needed: u64) -> Result<(), Failure> {
        let Some(disk) = file.parent().and_then(|folder| rustix::fs::statvfs(folder).ok()) else {
            return Ok(());
        };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        // Some file systems do not know their size.
        if disk.f_blocks == 0 || needed <= free {
            return Ok(());
        }
        Err(self.full(path, needed, &format!("{} free", mebibytes(free))).into())
    }

    fn full(&self, path: &str, needed: u64, got: &str) -> Error {
        let what =
            format!("there is no space for {} more of {}", mebibytes(needed), self.name(path));
        let fix = format!(
            "make room in {}, or set HF_HUB_CACHE to a folder on a larger disk",
            self.hub.cache.display()
        );
        self.error(path, what, got, &fix).with_kind(ErrorKind::File)
    }
}

/// How long a server asks to wait: in seconds, or in the hub's own form, `"api";r=0;t=55`.
fn requested_wait<'r>(header: &impl Fn(&str) -> Option<&'r str>) -> Option<Duration> {
    let plain = header("retry-after").and_then(|text| text.trim().parse().ok());
    let own = || {
        header("ratelimit")?
            .split(';')
            .find_map(|part| part.trim().strip_prefix("t=")?.parse().ok())
    };
    plain.or_else(own).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_read_in_both_forms() {
        let asked = |name: &'static str, value: &'static str| {
            requested_wait(&move |asked: &str| (asked == name).then_some(value))
                .map(|wait| wait.as_secs())
        };
        assert_eq!(asked("retry-after", " 12 "), Some(12));
        assert_eq!(asked("ratelimit", "\"api\";r=0;t=55"), Some(55));
        assert_eq!(asked("retry-after", "soon"), None);
    }
}
