//! Answers of a chat model, kept in memory and optionally on disk, so that nothing is paid for
//! twice.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::base::error::Result;
use crate::base::files;
use crate::eval::preferences::judge::instructions::{hash, read_verdict};
use crate::eval::preferences::judgements::Preference;

/// The answer of a model to one question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    pub text: String,
    /// Whether the limit of tokens or a filter ended it.
    pub cut: bool,
    /// The name of the model in the server's answer.
    pub model: String,
    pub prompt_tokens: Option<u64>,
    pub completion_tokens: Option<u64>,
}

impl Answer {
    /// The last line of a truncated answer may be incomplete.
    pub fn verdict(&self) -> Option<Preference> {
        if self.cut { None } else { read_verdict(&self.text) }
    }
}

/// An answer in its file.
#[derive(Serialize, Deserialize)]
struct Kept {
    answer: Answer,
    /// Hash of the question's key and the answer, which detects a damaged or renamed file.
    check: String,
}

impl Kept {
    fn new(key: &str, answer: Answer) -> Self {
        let check = hash(&[key, &serde_json::to_string(&answer).unwrap_or_default()], 16);
        Self { answer, check }
    }
}

#[derive(Default)]
pub(super) struct Answers {
    folder: Option<PathBuf>,
    known: Mutex<HashMap<String, Answer>>,
}

impl Answers {
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self { folder, known: Mutex::default() }
    }

    /// Returns an answer that was kept; a damaged file does not count.
    pub fn get(&self, key: &str) -> Option<Answer> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = known.get(key) {
            return Some(answer.clone());
        }
        let bytes = std::fs::read(self.file(key)?).ok()?;
        let kept: Kept = serde_json::from_slice(&bytes).ok()?;
        let whole = Kept::new(key, kept.answer.clone()).check == kept.check;
        whole.then(|| known.entry(key.to_string()).or_insert(kept.answer).clone())
    }

    /// Keeps an answer.
    ///
    /// # Errors
    /// Its file cannot be written.
    pub fn keep(&self, key: &str, answer: Answer) -> Result<()> {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.to_string(), answer.clone());
        match self.file(key) {
            Some(path) => files::write_atomic(
                &path,
                serde_json::to_string(&Kept::new(key, answer))?.as_bytes(),
            ),
            None => Ok(()),
        }
    }

    fn file(&self, key: &str) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(format!("{key}.json")))
    }
}
