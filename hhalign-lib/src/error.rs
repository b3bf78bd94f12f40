//! One error type for the whole library: a short message that says what went wrong, what was found, and how to mend it.

use std::fmt;

/// The result type of every fallible function in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, what was found instead of the expected thing, and how to mend it.
///
/// # Example
/// ```
/// use hhalign::error::Error;
/// let e = Error::new("beta must be positive", "-0.1", "choose a value such as 0.1");
/// assert_eq!(e.to_string(), "beta must be positive\n  got: -0.1\n  fix: choose a value such as 0.1");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    what: String,
    got: String,
    fix: String,
}

impl Error {
    /// An error with all its three parts; an empty `got` or `fix` is left out of the message.
    pub fn new(what: impl Into<String>, got: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what: what.into(), got: got.into(), fix: fix.into() }
    }

    /// An error about a file: the operating system's word and the path.
    pub fn io(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::new(format!("cannot use {}", path.display()), error.to_string(), "check the path and its permissions")
    }

    /// The first part of the message: what went wrong.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The second part: what was found.
    pub fn got(&self) -> &str {
        &self.got
    }

    /// The third part: how to mend it.
    pub fn fix(&self) -> &str {
        &self.fix
    }

    /// The same error with a place (a file, a line, a setting) in front of it.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.what = format!("{place}: {}", self.what);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        if !self.got.is_empty() {
            write!(f, "\n  got: {}", self.got)?;
        }
        if !self.fix.is_empty() {
            write!(f, "\n  fix: {}", self.fix)?;
        }
        Ok(())
    }
}

// Notebook cells and `fn main() -> Result` print errors with Debug: the message serves there as well.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

impl From<candle_core::Error> for Error {
    /// Keeps the tensor library's message and drops the backtrace it carries when `RUST_BACKTRACE` is set.
    fn from(error: candle_core::Error) -> Self {
        let text = error.to_string();
        let message = text.lines().take_while(|l| !l.trim_start().starts_with("0: ")).collect::<Vec<_>>().join(" ");
        Self::new("a tensor operation failed", message.trim().to_string(), "")
    }
}

impl From<polars::error::PolarsError> for Error {
    fn from(error: polars::error::PolarsError) -> Self {
        Self::new("a table operation failed", error.to_string(), "")
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::new("not the JSON that was expected", error.to_string(), "")
    }
}
