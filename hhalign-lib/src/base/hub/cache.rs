//! The cache on disk, in the layout of Python's `huggingface_hub`: each tool finds the files of the
//! other.
//!
//! `blobs/CHECKSUM` holds contents, `snapshots/COMMIT/PATH` links to them, and `refs/BRANCH` holds
//! the commit of a branch.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use hf_hub::{CacheRepo, RepoType};

use crate::base::error::{Error, Result};
use crate::base::files;
use crate::base::hub::checksum::Checksum;
use crate::base::hub::repo::{Kind, Repo};

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

    /// The name of this revision's folder if the cache has one: a commit, or the branch's own name
    /// if a user put files there by hand.
    pub fn revision(&self) -> Option<String> {
        if self.pinned {
            return Some(self.revision.clone());
        }
        let known = fs::read_to_string(self.root.join("refs").join(&self.revision)).ok();
        let known = known
            .map(|text| text.trim().to_string())
            .filter(|commit| crate::base::hub::repo::is_commit(commit));
        known.or_else(|| self.folder(&self.revision).is_dir().then(|| self.revision.clone()))
    }

    /// Whether the cache has a file of a commit.
    pub fn holds(&self, commit: Option<&str>, path: &str) -> bool {
        commit.is_some_and(|commit| self.folder(commit).join(path).is_file())
    }

    /// The path of a content.
    pub fn blob(&self, sum: &Checksum) -> PathBuf {
        self.root.join("blobs").join(sum.digits())
    }

    /// The path of a content that is not complete yet.
    pub fn incomplete(&self, sum: &Checksum) -> PathBuf {
        self.blob(sum).with_extension("incomplete")
    }

    /// Waits until no other process fetches this content; calls `waiting` if one does.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn lock(&self, sum: &Checksum, waiting: impl Fn()) -> Result<File> {
        for folder in [&self.locks, &self.root.join("blobs")] {
            fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        }
        let path = self.locks.join(sum.digits()).with_extension("lock");
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|e| Error::io(&path, e))?;
        // Some network file systems have no locks: there the checksum is the only protection.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            waiting();
            let _ = file.lock();
        }
        Ok(file)
    }

    /// Links a content as a file of a commit.
    ///
    /// # Errors
    /// The link cannot be made.
    pub fn link(&self, sum: &Checksum, commit: &str, path: &str) -> Result<()> {
        let link = self.folder(commit).join(path);
        let temporary = files::temporary_beside(&link)?;
        // Up from the file to the repository: the folders of the path, the commit, snapshots.
        let up = "../".repeat(2 + path.matches('/').count());
        let target = format!("{up}blobs/{}", sum.digits());
        std::os::unix::fs::symlink(target, &temporary)
            // Without symbolic links the snapshot owns the file, as in Python's tool.
            .or_else(|_| fs::rename(self.blob(sum), &temporary))
            .and_then(|()| fs::rename(&temporary, &link))
            .map_err(|e| Error::io(&link, e))
    }

    /// Records the commit of the branch.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_ref(&self, commit: &str) -> Result<()> {
        files::write_atomic(&self.root.join("refs").join(&self.revision), commit.as_bytes())
    }
}
