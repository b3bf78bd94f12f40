//! The cache on disk, in the layout of Python's `huggingface_hub`: either tool finds what the other has fetched.
//!
//! `blobs/CHECKSUM` holds contents, `snapshots/COMMIT/PATH` links to them, `refs/BRANCH` says where a branch stood.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use hf_hub::{CacheRepo, RepoType};

use super::checksum::Checksum;
use super::repo::{Kind, Repo};
use crate::error::{Error, Result};
use crate::files;

pub(super) struct Cache {
    layout: CacheRepo,
    root: PathBuf,
    locks: PathBuf,
    revision: String,
    pinned: bool,
}

impl Cache {
    pub fn new(folder: &Path, repo: &Repo) -> Self {
        let kind = match repo.kind {
            Kind::Model => RepoType::Model,
            Kind::Dataset => RepoType::Dataset,
        };
        let named = hf_hub::Repo::with_revision(repo.id.clone(), kind, repo.revision.clone());
        let name = named.folder_name();
        Self {
            layout: hf_hub::Cache::new(folder.into()).repo(named),
            root: folder.join(&name),
            locks: folder.join(".locks").join(name),
            revision: repo.revision.clone(),
            pinned: repo.is_pinned(),
        }
    }

    /// The folder of a commit's files.
    pub fn folder(&self, commit: &str) -> PathBuf {
        self.layout.pointer_path(commit)
    }

    /// The folder's name for this revision as far as the cache knows it: a commit, or the branch's own name, where somebody
    /// put files by hand.
    pub fn revision(&self) -> Option<String> {
        if self.pinned {
            return Some(self.revision.clone());
        }
        let known = fs::read_to_string(self.root.join("refs").join(&self.revision)).ok();
        let known = known.map(|text| text.trim().to_string()).filter(|commit| super::repo::is_commit(commit));
        known.or_else(|| self.folder(&self.revision).is_dir().then(|| self.revision.clone()))
    }

    /// Whether a file of a commit is there.
    pub fn holds(&self, commit: Option<&str>, path: &str) -> bool {
        commit.is_some_and(|commit| self.folder(commit).join(path).is_file())
    }

    /// The place of a content.
    pub fn blob(&self, sum: &Checksum) -> PathBuf {
        self.root.join("blobs").join(sum.digits())
    }

    /// The place of a content that is not whole yet.
    pub fn incomplete(&self, sum: &Checksum) -> PathBuf {
        self.blob(sum).with_extension("incomplete")
    }

    /// Waits until nobody else fetches this content; `waiting` is called where somebody does.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn lock(&self, sum: &Checksum, waiting: impl Fn()) -> Result<File> {
        for folder in [&self.locks, &self.root.join("blobs")] {
            fs::create_dir_all(folder).map_err(|e| Error::io(folder, &e))?;
        }
        let path = self.locks.join(sum.digits()).with_extension("lock");
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(|e| Error::io(&path, &e))?;
        // Some network disks have no locks: there the check of the checksum has to be enough.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            waiting();
            let _ = file.lock();
        }
        Ok(file)
    }

    /// Makes a content that is there a file of a commit.
    ///
    /// # Errors
    /// The link cannot be made.
    pub fn link(&self, sum: &Checksum, commit: &str, path: &str) -> Result<()> {
        let place = self.folder(commit).join(path);
        let temporary = files::temporary_beside(&place)?;
        // From the file's folder up to the repository's: snapshots, the commit, and the folders of the path.
        let up = "../".repeat(2 + path.matches('/').count());
        let target = format!("{up}blobs/{}", sum.digits());
        std::os::unix::fs::symlink(target, &temporary)
            // Where links are not to be had, the snapshot owns the file, as it does in Python's tool.
            .or_else(|_| fs::rename(self.blob(sum), &temporary))
            .and_then(|()| fs::rename(&temporary, &place))
            .map_err(|e| Error::io(&place, &e))
    }

    /// Notes where the branch stands.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_ref(&self, commit: &str) -> Result<()> {
        files::write_atomic(&self.root.join("refs").join(&self.revision), commit.as_bytes())
    }
}
