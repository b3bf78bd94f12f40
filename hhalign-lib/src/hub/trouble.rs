//! What goes wrong with the hub, said so that it can be mended, and always with the way by hand.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use ureq::Body;
use ureq::http::Response;

use super::cache::Cache;
use super::progress::mebibytes;
use super::{Hub, Repo};
use crate::error::Error;

/// Characters of a server's words in an error.
const MAX_WORDS: usize = 300;

/// Repeats where nobody answers at all: whoever has no network should hear of it soon.
const UNANSWERED: usize = 2;

/// An attempt that failed.
pub(super) struct Failure {
    pub error: Error,
    /// Whether it may work later.
    pub passing: bool,
    /// How long the server asks to wait.
    pub wait: Option<Duration>,
    /// The most repeats that make sense before anything has come.
    pub repeats: usize,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, passing: false, wait: None, repeats: 0 }
    }
}

impl Failure {
    fn passing(error: Error) -> Self {
        Self { error, passing: true, wait: None, repeats: usize::MAX }
    }
}

/// What is being fetched, for the words of an error.
#[derive(Clone, Copy)]
pub(super) struct Words<'a> {
    pub hub: &'a Hub,
    pub repo: &'a Repo,
    pub cache: &'a Cache,
}

impl Words<'_> {
    fn name(&self, path: &str) -> String {
        format!("{}/{path}", self.repo.id)
    }

    /// Which address to open in a browser, and where to put the file.
    fn by_hand(&self, path: &str) -> String {
        let revision = self.cache.revision().unwrap_or_else(|| self.repo.revision.clone());
        let address = self.repo.address(&self.hub.endpoint, &revision, path);
        let place = self.cache.folder(&revision).join(path);
        format!("or by hand: open {address} in a browser and save the file as {}", place.display())
    }

    fn error(&self, path: &str, what: String, got: impl Into<String>, fix: &str) -> Error {
        let got = got.into();
        let got = self.hub.token.as_ref().map_or_else(|| got.clone(), |token| token.hide_in(&got));
        Error::new(what, got, format!("{fix}; {}", self.by_hand(path)))
    }

    /// Not in the cache, and nothing else may be used.
    pub fn offline(&self, path: &str) -> Error {
        let what = format!("{} is not in the cache, and HF_HUB_OFFLINE is set", self.name(path));
        let got = format!("revision {}, cache {}", self.repo.revision, self.hub.cache.display());
        self.error(path, what, got, "unset HF_HUB_OFFLINE for the first use")
    }

    /// The server declines.
    pub fn status(&self, path: &str, response: &Response<Body>) -> Failure {
        let status = response.status();
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let said = header("x-error-message").unwrap_or_default();
        let got = match said.char_indices().nth(MAX_WORDS) {
            Some((end, _)) => format!("{status}: {}...", &said[..end]),
            None if said.is_empty() => status.to_string(),
            None => format!("{status}: {said}"),
        };
        let name = self.name(path);
        let page = self.repo.page(&self.hub.endpoint);
        let error = |what: String, fix: &str| self.error(path, what, got.as_str(), fix);
        match status.as_u16() {
            401 => {
                let fix = match self.hub.token {
                    Some(_) => "check the repository's name and the token (HF_TOKEN): it may have expired".to_string(),
                    // The hub answers so for names that do not exist, too.
                    None => format!(
                        "check the repository's name; for one that is not public, set HF_TOKEN to a token from {}/settings/tokens",
                        self.hub.endpoint
                    ),
                };
                error(format!("the hub does not show {name} without a valid token"), &fix).into()
            }
            403 => error(
                format!("the hub does not let you have {name}"),
                &format!("ask for access on {page}, and set HF_TOKEN to a token that may read it"),
            )
            .into(),
            404 => {
                let what = match header("x-error-code") {
                    Some("RepoNotFound") => format!("the hub has no repository {}", self.repo.id),
                    Some("RevisionNotFound") => format!("{} has no revision {}", self.repo.id, self.repo.revision),
                    Some("EntryNotFound") => format!("{} has no file {path} at {}", self.repo.id, self.repo.revision),
                    _ => format!("the hub has no {name} at {}", self.repo.revision),
                };
                error(what, &format!("look at {page} for names and revisions")).into()
            }
            429 => {
                let wait = wait_asked(&header);
                let when = wait.map_or_else(|| "in a few minutes".into(), |w| format!("in {} s", w.as_secs()));
                let fix =
                    format!("run it again {when}: what was fetched is kept; a token (HF_TOKEN) may ask more often");
                let what = format!("the hub has had too many requests, and does not send {name} now");
                Failure { wait, ..Failure::passing(error(what, &fix)) }
            }
            408 | 500..=599 => {
                let what = format!("the hub cannot send {name} now");
                let error = error(what, "run it again later: what was fetched is kept");
                Failure { wait: wait_asked(&header), ..Failure::passing(error) }
            }
            416 => self.length(path, "no such part of it".into(), 0),
            _ => error(format!("the hub does not send {name}"), "check HF_ENDPOINT and the proxy, if there is one")
                .into(),
        }
    }

    /// Nobody answers.
    pub fn unreachable(&self, path: &str, host: &str, error: &ureq::Error) -> Failure {
        let got = error.to_string();
        let fix = "check the network, HF_ENDPOINT, and the proxy, if there is one";
        let passing = match error {
            // What TLS refuses: a certificate that nobody known has signed, or a server that speaks plain HTTP.
            ureq::Error::Io(io) => io.kind() != ErrorKind::InvalidData,
            ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => true,
            ureq::Error::Protocol(_) => true,
            _ => false,
        };
        let error = self.error(path, format!("{host} cannot be reached"), got, fix);
        Failure { passing, repeats: UNANSWERED, ..Failure::passing(error) }
    }

    /// An answer that is not one of a hub.
    pub fn unclear(&self, path: &str, got: String) -> Failure {
        let what = format!("{} does not say what {} is", self.hub.endpoint, self.name(path));
        let fix = "unset HF_ENDPOINT, or name a mirror that passes on the hub's headers";
        self.error(path, what, got, fix).into()
    }

    /// The connection broke off.
    pub fn cut(&self, path: &str, there: u64, size: u64, got: &str) -> Failure {
        let what = format!("the download of {} broke off after {there} of {size} bytes", self.name(path));
        Failure::passing(self.error(path, what, got, "run it again: it goes on from there"))
    }

    /// Another length than the hub names.
    pub fn length(&self, path: &str, got: String, size: u64) -> Failure {
        let what = match size {
            0 => format!("{} cannot be had in parts", self.name(path)),
            _ => format!("{} must have {size} bytes", self.name(path)),
        };
        let fix = "something between here and the hub changes answers: try another network, or without the proxy";
        Failure::passing(self.error(path, what, got, fix))
    }

    /// Other bytes than the hub names.
    pub fn checksum(&self, path: &str, found: &str, wanted: &str, again: bool) -> Failure {
        let what = format!("{} is not what the hub says it is, and was not kept", self.name(path));
        let got = format!("checksum {found} instead of {wanted}");
        let fix = "something between here and the hub changes answers: try another network, or without the proxy";
        Failure { passing: again, ..Failure::passing(self.error(path, what, got, fix)) }
    }

    /// The disk refuses.
    pub fn disk(&self, path: &str, place: &Path, needed: u64, error: &std::io::Error) -> Failure {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => self.full(path, needed, error.to_string()),
            _ => Error::io(place, error).into(),
        }
    }

    /// Whether what is missing will find room; better known before than after half a gigabyte.
    pub fn check_space(&self, path: &str, place: &Path, needed: u64) -> Result<(), Failure> {
        let Some(disk) = place.parent().and_then(|folder| rustix::fs::statvfs(folder).ok()) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        // Some disks do not know their size.
        if disk.f_blocks == 0 || needed <= free {
            return Ok(());
        }
        Err(self.full(path, needed, format!("{} free", mebibytes(free))))
    }

    fn full(&self, path: &str, needed: u64, got: String) -> Failure {
        let what = format!("there is no space for {} more of {}", mebibytes(needed), self.name(path));
        let fix =
            format!("make room in {}, or set HF_HUB_CACHE to a folder on a larger disk", self.hub.cache.display());
        self.error(path, what, got, &fix).into()
    }
}

/// How long a server asks to wait: in seconds, or in the hub's own form, `"api";r=0;t=55`.
fn wait_asked<'r>(header: &impl Fn(&str) -> Option<&'r str>) -> Option<Duration> {
    let plain = header("retry-after").and_then(|text| text.trim().parse().ok());
    let own = || header("ratelimit")?.split(';').find_map(|part| part.trim().strip_prefix("t=")?.parse().ok());
    plain.or_else(own).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_read_in_both_forms() {
        let asked = |name: &'static str, value: &'static str| {
            wait_asked(&move |asked: &str| (asked == name).then_some(value)).map(|wait| wait.as_secs())
        };
        assert_eq!(asked("retry-after", " 12 "), Some(12));
        assert_eq!(asked("ratelimit", "\"api\";r=0;t=55"), Some(55));
        assert_eq!(asked("retry-after", "soon"), None);
    }
}
