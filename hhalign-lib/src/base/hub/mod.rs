//! Files from the Hugging Face hub: fetched once, checked, and kept where Python's
//! `huggingface_hub` keeps them.
//!
//! A file is named by repository, revision and path. A cached file of a commit needs no request. A
//! download that broke off resumes where it stopped, also in another process; a file enters the
//! cache only if its length and its checksum are those that the hub names.

mod cache;
mod checksum;
mod failure;
mod progress;
mod repo;
mod transfer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::cache::Cache;
use self::failure::{Context, Failure};
pub use self::repo::{GPT2, HH_RLHF, Kind, Repo, TOXIC_BERT};
use self::transfer::Transfer;
use crate::base::error::{Error, Result};
use crate::base::secret::ApiKey;

/// The public hub; `HF_ENDPOINT` names a mirror instead.
pub const ENDPOINT: &str = "https://huggingface.co";

/// Where files come from and where they are kept; [`Hub::from_env`] reads the same variables as
/// Hugging Face's tools.
#[derive(Debug, Clone)]
pub struct Hub {
    /// The server's address, without a slash at the end. `HF_ENDPOINT`.
    pub endpoint: String,
    /// The folder of the cache. `HF_HUB_CACHE`, or `hub` in `HF_HOME`.
    pub cache: PathBuf,
    /// The token, for repositories that are not public. `HF_TOKEN`, or the file `token` in
    /// `HF_HOME`.
    pub token: Option<ApiKey>,
    /// Whether only the cache may be used. `HF_HUB_OFFLINE`.
    pub offline: bool,
    /// The number of repeats in a row, without a new byte, after a failure that may be temporary.
    pub retries: usize,
    /// The wait before the first repeat; it doubles for each further one.
    pub first_wait: Duration,
    /// The longest wait before a repeat; a server that asks for a longer one causes an error that
    /// says how long.
    pub longest_wait: Duration,
    /// How long a connection may be silent.
    pub patience: Duration,
    /// Whether the calling thread prints a line for large downloads and for waits.
    pub progress: bool,
}

impl Hub {
    /// Returns the public hub with a cache folder, and defaults for everything else.
    ///
    /// # Example
    /// ```
    /// let hub = hhalign::base::hub::Hub::new("cache");
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

    /// Reads the environment variables of Hugging Face's own tools.
    ///
    /// # Errors
    /// No variable says where the cache is.
    pub fn from_env() -> Result<Self> {
        Self::from_lookup(|name| {
            std::env::var_os(name)
                .map(|v| v.to_string_lossy().into_owned())
                .filter(|v| !v.is_empty())
        })
    }

    /// Reads the variables of [`Hub::from_env`] from any source of named values.
    ///
    /// # Errors
    /// No variable says where the cache is.
    ///
    /// # Example
    /// ```
    /// use hhalign::base::hub::Hub;
    /// let hub = Hub::from_lookup(|name| (name == "HF_HOME").then(|| "/data/hf".into()))?;
    /// assert_eq!(hub.cache, std::path::Path::new("/data/hf/hub"));
    /// # Ok::<(), hhalign::base::error::Error>(())
    /// ```
    pub fn from_lookup(get: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let user = get("HOME").map(PathBuf::from);
        let path_of = |text: String| match (text.strip_prefix("~/"), &user) {
            (Some(rest), Some(user)) => user.join(rest),
            _ => PathBuf::from(text),
        };
        let home = get("HF_HOME").map(path_of).or_else(|| {
            let caches =
                get("XDG_CACHE_HOME").map(path_of).or_else(|| Some(user.as_ref()?.join(".cache")));
            Some(caches?.join("huggingface"))
        });
        let cache = get("HF_HUB_CACHE").or_else(|| get("HUGGINGFACE_HUB_CACHE")).map(path_of);
        let Some(cache) = cache.or_else(|| Some(home.as_ref()?.join("hub"))) else {
            let what = "there is no folder for files from the hub";
            return Err(Error::new(
                what,
                "neither HF_HOME nor HOME is set",
                "set HF_HOME to a folder",
            ));
        };
        let file = get("HF_TOKEN_PATH").map(path_of).or_else(|| Some(home?.join("token")));
        let token = get("HF_TOKEN").or_else(|| get("HUGGING_FACE_HUB_TOKEN"));
        let token = token.or_else(|| std::fs::read_to_string(file?).ok()).map(ApiKey::new);
        let on = |name: &str| {
            get(name)
                .is_some_and(|v| ["1", "on", "yes", "true"].contains(&v.to_lowercase().as_str()))
        };
        let endpoint = get("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into());
        Ok(Self {
            endpoint: endpoint.trim().trim_end_matches('/').into(),
            token: token.filter(|key| key.is_sound() && !on("HF_HUB_DISABLE_IMPLICIT_TOKEN")),
            offline: on("HF_HUB_OFFLINE") || on("TRANSFORMERS_OFFLINE"),
            ..Self::new(cache)
        })
    }

    /// Returns the path of a file in the cache, and fetches the file if it is not there.
    ///
    /// # Errors
    /// As [`Hub::files`].
    pub fn file(&self, repo: &Repo, path: &str) -> Result<PathBuf> {
        Ok(self.files(repo, &[path])?.folder.join(path))
    }

    /// Returns the folder that holds several files of one commit, and fetches those that the cache
    /// lacks.
    ///
    /// Files of a commit come from the cache without a request. For a branch, the hub names the
    /// current commit; if the hub cannot be reached, the commit that the cache knows is used.
    ///
    /// # Errors
    /// No such repository, revision or file; no network; not in the cache and offline; a token that
    /// is missing or refused; too many requests; no space; a file that is not what the hub says.
    /// Each error says how to fetch the file by hand.
    pub fn files(&self, repo: &Repo, paths: &[&str]) -> Result<Snapshot> {
        repo.check()?;
        paths.iter().try_for_each(|path| repo::check_path(path))?;
        let cache = Cache::new(&self.cache, repo);
        let cached = cache.revision();
        let missing = paths.iter().copied().find(|path| !cache.holds(cached.as_deref(), path));
        let snapshot = |commit: String| Snapshot { folder: cache.folder(&commit), commit };
        if let (Some(commit), None) = (&cached, missing)
            && (self.offline || repo.is_pinned())
        {
            return Ok(snapshot(commit.clone()));
        }
        let context = Context { hub: self, repo, cache: &cache };
        if self.offline {
            return Err(context.offline(missing.unwrap_or_default()));
        }
        let transfer = Transfer::new(&context)?;
        let mut commit = repo.is_pinned().then(|| repo.revision.clone());
        for path in paths {
            if commit.as_deref().is_some_and(|commit| cache.holds(Some(commit), path)) {
                continue;
            }
            // One attempt is enough if the cache can answer.
            let is_cached = commit.is_none() && missing.is_none();
            match transfer.fetch(commit.as_deref(), path, if is_cached { 0 } else { self.retries })
            {
                Ok(found) => commit = Some(found),
                Err(Failure { error, is_transient: true, .. }) if is_cached => {
                    self.say(format_args!(
                        "{}: {}; the copy in the cache is used",
                        repo.id,
                        error.what()
                    ));
                    commit = cached;
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
    /// The commit that they belong to.
    pub commit: String,
}

/// The prefix that marks the name of a repository where a path is expected.
const PREFIX: &str = "hub:";

/// Returns the name of the repository if a location is `hub:NAME`, and `None` if it is a path.
///
/// # Example
/// ```
/// use hhalign::base::hub::name_in;
/// assert_eq!(name_in("hub:openai-community/gpt2".as_ref()), Some("openai-community/gpt2"));
/// assert_eq!(name_in("models/gpt2".as_ref()), None);
/// ```
pub fn name_in(location: &Path) -> Option<&str> {
    location.to_str()?.strip_prefix(PREFIX)
}

/// Returns the folder of a model: that of the fetched files if the location is `hub:OWNER/NAME` or
/// `hub:OWNER/NAME@REVISION`, and otherwise the location itself.
///
/// # Errors
/// As [`Hub::files`].
pub fn model_folder(location: &Path, files: &[&str]) -> Result<PathBuf> {
    let Some(name) = name_in(location) else { return Ok(location.into()) };
    Ok(Hub::from_env()?.files(&Repo::model(name), files)?.folder)
}
