//! Files from the Hugging Face hub: fetched once, checked, kept where Python's `huggingface_hub` keeps them.
//!
//! A file is asked for by repository, revision and path. What lies in the cache is taken without a request if the revision
//! is a commit. A download that broke off goes on where it stopped, also in another process; a file takes its place in the
//! cache only when its length and its checksum are those that the hub names.

mod cache;
mod checksum;
mod progress;
mod repo;
mod transfer;
mod trouble;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::cache::Cache;
pub use self::repo::{GPT2, HH_RLHF, Kind, Repo, TOXIC_BERT};
use self::transfer::Transfer;
use self::trouble::{Failure, Words};
use crate::error::{Error, Result};
use crate::secret::ApiKey;

/// The hub itself; a mirror takes its place by `HF_ENDPOINT`.
pub const ENDPOINT: &str = "https://huggingface.co";

/// Where files come from and where they are kept; [`Hub::from_env`] reads the variables that Hugging Face's tools read.
#[derive(Debug, Clone)]
pub struct Hub {
    /// The server's address, without a slash at its end. `HF_ENDPOINT`.
    pub endpoint: String,
    /// The folder of the cache. `HF_HUB_CACHE`, or `hub` in `HF_HOME`.
    pub cache: PathBuf,
    /// The token, for repositories that are not public. `HF_TOKEN`, or the file `token` in `HF_HOME`.
    pub token: Option<ApiKey>,
    /// Whether only the cache may be used. `HF_HUB_OFFLINE`.
    pub offline: bool,
    /// Requests after the first one that may fail in a row, without a new byte, in a way that may pass.
    pub retries: usize,
    /// The wait before the first repeat; it doubles from one to the next.
    pub first_wait: Duration,
    /// The longest wait before a repeat; if the server asks for more, that is an error that says how long.
    pub longest_wait: Duration,
    /// How long a connection may be silent.
    pub patience: Duration,
    /// Whether large downloads and waits are told of, in whole lines, by the thread that asked for the file.
    pub progress: bool,
}

impl Hub {
    /// The public hub and a cache folder, with the defaults of everything else.
    ///
    /// # Example
    /// ```
    /// let hub = hhalign::hub::Hub::new("cache");
    /// assert_eq!((hub.endpoint.as_str(), hub.offline), ("https://huggingface.co", false));
    /// ```
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: ENDPOINT.into(),
            cache: cache.into(),
            token: None,
            offline: false,
            retries: 5,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(60),
            patience: Duration::from_secs(30),
            progress: true,
        }
    }

    /// What the environment says, as Hugging Face's own tools read it.
    ///
    /// # Errors
    /// No place for the cache.
    pub fn from_env() -> Result<Self> {
        Self::from_lookup(|name| {
            std::env::var_os(name).map(|v| v.to_string_lossy().into_owned()).filter(|v| !v.is_empty())
        })
    }

    /// The same from any source of named values.
    ///
    /// # Errors
    /// No place for the cache.
    ///
    /// # Example
    /// ```
    /// use hhalign::hub::Hub;
    /// let hub = Hub::from_lookup(|name| (name == "HF_HOME").then(|| "/data/hf".into()))?;
    /// assert_eq!(hub.cache, std::path::Path::new("/data/hf/hub"));
    /// # Ok::<(), hhalign::error::Error>(())
    /// ```
    pub fn from_lookup(get: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let user = get("HOME").map(PathBuf::from);
        let place = |text: String| match (text.strip_prefix("~/"), &user) {
            (Some(rest), Some(user)) => user.join(rest),
            _ => PathBuf::from(text),
        };
        let home = get("HF_HOME").map(place).or_else(|| {
            let caches = get("XDG_CACHE_HOME").map(place).or_else(|| Some(user.as_ref()?.join(".cache")));
            Some(caches?.join("huggingface"))
        });
        let cache = get("HF_HUB_CACHE").or_else(|| get("HUGGINGFACE_HUB_CACHE")).map(place);
        let Some(cache) = cache.or_else(|| Some(home.as_ref()?.join("hub"))) else {
            let what = "there is no place for files from the hub";
            return Err(Error::new(what, "neither HF_HOME nor HOME is set", "set HF_HOME to a folder"));
        };
        let file = get("HF_TOKEN_PATH").map(place).or_else(|| Some(home?.join("token")));
        let token = get("HF_TOKEN").or_else(|| get("HUGGING_FACE_HUB_TOKEN"));
        let token = token.or_else(|| std::fs::read_to_string(file?).ok()).map(ApiKey::new);
        let on =
            |name: &str| get(name).is_some_and(|v| ["1", "on", "yes", "true"].contains(&v.to_lowercase().as_str()));
        let endpoint = get("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into());
        Ok(Self {
            endpoint: endpoint.trim().trim_end_matches('/').into(),
            token: token.filter(|key| key.is_sound() && !on("HF_HUB_DISABLE_IMPLICIT_TOKEN")),
            offline: on("HF_HUB_OFFLINE") || on("TRANSFORMERS_OFFLINE"),
            ..Self::new(cache)
        })
    }

    /// The place of a file, which is fetched if it is not in the cache.
    ///
    /// # Errors
    /// As [`Hub::files`].
    pub fn file(&self, repo: &Repo, path: &str) -> Result<PathBuf> {
        Ok(self.files(repo, &[path])?.folder.join(path))
    }

    /// Several files of one commit, and the folder they lie in.
    ///
    /// A revision that is a commit is taken from the cache without a request. For a branch the hub is asked where it
    /// stands; if the hub cannot be reached, the commit that the cache knows is used.
    ///
    /// # Errors
    /// No such repository, revision or file; no network; not in the cache and offline; a token that is missing or
    /// refused; too many requests; no space; a file that is not what the hub says. Each names the way by hand.
    pub fn files(&self, repo: &Repo, paths: &[&str]) -> Result<Snapshot> {
        repo.check()?;
        paths.iter().try_for_each(|path| repo::check_path(path))?;
        let cache = Cache::new(&self.cache, repo);
        let kept = cache.revision();
        let missing = paths.iter().copied().find(|path| !cache.holds(kept.as_deref(), path));
        let snapshot = |commit: String| Snapshot { folder: cache.folder(&commit), commit };
        if let (Some(commit), None) = (&kept, missing)
            && (self.offline || repo.is_pinned())
        {
            return Ok(snapshot(commit.clone()));
        }
        let words = Words { hub: self, repo, cache: &cache };
        if self.offline {
            return Err(words.offline(missing.unwrap_or_default()));
        }
        let transfer = Transfer::new(&words)?;
        let mut commit = repo.is_pinned().then(|| repo.revision.clone());
        for path in paths {
            if commit.as_deref().is_some_and(|commit| cache.holds(Some(commit), path)) {
                continue;
            }
            // Where the cache can answer, one try is enough.
            let spare = commit.is_none() && missing.is_none();
            match transfer.fetch(commit.as_deref(), path, if spare { 0 } else { self.retries }) {
                Ok(found) => commit = Some(found),
                Err(Failure { error, passing: true, .. }) if spare => {
                    self.say(format_args!("{}: {}; the copy in the cache is used", repo.id, error.what()));
                    commit = kept;
                    break;
                }
                Err(failure) => return Err(failure.error),
            }
        }
        let commit = commit.unwrap_or_else(|| repo.revision.clone());
        if !repo.is_pinned() && repo::is_commit(&commit) {
            cache.write_ref(&commit)?;
        }
        Ok(snapshot(commit))
    }

    fn say(&self, line: fmt::Arguments<'_>) {
        if self.progress {
            println!("{line}");
        }
    }
}

/// Files of one commit in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder that holds them under their own names.
    pub folder: PathBuf,
    /// The commit they belong to.
    pub commit: String,
}

/// What stands before a repository's name where otherwise a path is given.
const PREFIX: &str = "hub:";

/// The repository's name where a place is `hub:NAME`, and `None` where it is a path.
///
/// # Example
/// ```
/// use hhalign::hub::name_in;
/// assert_eq!(name_in("hub:openai-community/gpt2".as_ref()), Some("openai-community/gpt2"));
/// assert_eq!(name_in("models/gpt2".as_ref()), None);
/// ```
pub fn name_in(place: &Path) -> Option<&str> {
    place.to_str()?.strip_prefix(PREFIX)
}

/// The folder that a place means: that of a model's files if it is `hub:OWNER/NAME` or `hub:OWNER/NAME@REVISION`, and
/// otherwise the place itself.
///
/// # Errors
/// As [`Hub::files`].
pub fn model_folder(place: &Path, files: &[&str]) -> Result<PathBuf> {
    let Some(name) = name_in(place) else { return Ok(place.into()) };
    Ok(Hub::from_env()?.files(&Repo::model(name), files)?.folder)
}
