//! The library's one error type: a kind for programs, three sentences for people, and a cause.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use candle_core::Error as TensorError;
use polars::error::PolarsError;

/// The result type of every fallible function in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an error.
///
/// # Example
/// ```
/// use hhalign::base::error::ErrorKind;
/// let error = hhalign::data::Dataset::read("no such file").unwrap_err();
/// let advice = match error.kind() {
///     ErrorKind::File => "ask for another path",
///     ErrorKind::Network => "try again later",
///     _ => "show the message",
/// };
/// assert_eq!(advice, "ask for another path");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A value, a setting or a call is wrong: change it.
    Argument,
    /// A row or the content of a file is wrong: repair, replace or regenerate the data.
    Data,
    /// A file is missing or the operating system refuses it: check the path, its permissions and
    /// the free space.
    File,
    /// A server failed, refused the request or could not be reached: try again, or work offline.
    Network,
    /// A GPU, its driver, a compiler or a processor feature is missing or failed: use the CPU in
    /// f32.
    Device,
    /// The memory of a device is full: make batches or sequences smaller.
    Memory,
    /// A number is not finite: lower the learning rate, or check the weights.
    Numeric,
    /// A run, a lock or a value is not in the state that the call needs: wait, or change the state.
    NotReady,
    /// The library has a bug: report it.
    Bug,
}

/// An error: its kind, a message in three parts (what failed, what was found, how to fix it), and
/// the error of another library that caused it.
///
/// The message is complete without the cause, which [`source`](StdError::source) returns.
///
/// # Example
/// ```
/// use hhalign::base::error::{Error, ErrorKind};
/// let e = Error::new("beta must be positive", "-0.1", "choose a value such as 0.1");
/// let message = "beta must be positive\n  got: -0.1\n  fix: choose a value such as 0.1";
/// assert_eq!(e.to_string(), message);
/// assert_eq!(e.kind(), ErrorKind::Argument);
/// ```
#[derive(Clone)]
pub struct Error(Box<Parts>);

#[derive(Clone)]
struct Parts {
    kind: ErrorKind,
    what: String,
    got: String,
    fix: String,
    cause: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The fix of every [`ErrorKind::Bug`].
const REPORT_IT: &str = "this is a bug: please report it with the settings used";

impl Error {
    /// Returns an error about an argument; an empty `got` or `fix` is left out of the message.
    pub fn new(what: impl Into<String>, got: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::of(ErrorKind::Argument, what, got, fix)
    }

    /// Returns an error about a row or the content of a file.
    pub fn data(what: impl Into<String>, got: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::of(ErrorKind::Data, what, got, fix)
    }

    /// Returns an error about a file that the operating system refused.
    pub fn file(what: impl Into<String>, got: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::of(ErrorKind::File, what, got, fix)
    }

    /// Returns an error about a server or the way to it.
    pub fn network(
        what: impl Into<String>,
        got: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::of(ErrorKind::Network, what, got, fix)
    }

    /// Returns an error about a GPU, its driver, a compiler or a processor feature.
    pub fn device(what: impl Into<String>, got: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::of(ErrorKind::Device, what, got, fix)
    }

    /// Returns an error about the memory of a device.
    pub fn memory(what: impl Into<String>, got: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::of(ErrorKind::Memory, what, got, fix)
    }

    /// Returns an error about a number that is not finite.
    pub fn numeric(
        what: impl Into<String>,
        got: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::of(ErrorKind::Numeric, what, got, fix)
    }

    /// Returns an error about a state that does not allow the call yet, or no longer.
    pub fn not_ready(
        what: impl Into<String>,
        got: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::of(ErrorKind::NotReady, what, got, fix)
    }

    /// Returns an error that only a bug in this library can cause.
    pub fn bug(what: impl Into<String>, got: impl Into<String>) -> Self {
        Self::of(ErrorKind::Bug, what, got, REPORT_IT)
    }

    /// Returns an error about a path: the operating system's message, which is the cause as well.
    pub fn io(path: &Path, error: io::Error) -> Self {
        let what = format!("cannot use {}", path.display());
        Self::file(what, error.to_string(), "check the path and its permissions").caused_by(error)
    }

    fn of(
        kind: ErrorKind,
        what: impl Into<String>,
        got: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let (what, got, fix) = (what.into(), got.into(), fix.into());
        Self(Box::new(Parts { kind, what, got, fix, cause: None }))
    }

    /// Sets the kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Sets the cause; its message belongs into `got`, since an error is shown without its cause.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.cause = Some(Arc::from(cause.into()));
        self
    }

    /// Replaces what failed and how to fix it; kind, what was found and cause stay.
    #[must_use]
    pub fn with_message(mut self, what: impl Into<String>, fix: impl Into<String>) -> Self {
        (self.0.what, self.0.fix) = (what.into(), fix.into());
        self
    }

    /// Puts a place (a file, a line, a setting) before the message.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.0.what = format!("{place}: {}", self.0.what);
        self
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The first part of the message: what failed.
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// The second part: what was found.
    pub fn got(&self) -> &str {
        &self.0.got
    }

    /// The third part: how to fix it.
    pub fn fix(&self) -> &str {
        &self.0.fix
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what())?;
        for (label, text) in [("got", self.got()), ("fix", self.fix())] {
            if !text.is_empty() {
                write!(f, "\n  {label}: {text}")?;
            }
        }
        Ok(())
    }
}

// Notebook cells and `fn main() -> Result` print errors with Debug: it shows the message as well.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as &(dyn StdError + 'static))
    }
}

/// Errors are equal if their kinds and messages are; causes are not compared.
impl PartialEq for Error {
    fn eq(&self, other: &Self) -> bool {
        (self.kind(), self.what(), self.got(), self.fix())
            == (other.kind(), other.what(), other.got(), other.fix())
    }
}

impl Eq for Error {}

impl From<TensorError> for Error {
    /// Keeps the message of the tensor library without the backtrace that it carries when
    /// `RUST_BACKTRACE` is set.
    fn from(error: TensorError) -> Self {
        let (kind, error) = (tensor_kind(&error), without_backtrace(error));
        let text = error.to_string();
        let lines = text.lines().take_while(|line| !line.trim_start().starts_with("0: "));
        let message = lines.collect::<Vec<_>>().join(" ");
        Self::of(kind, "a tensor operation failed", message.trim(), "").caused_by(error)
    }
}

/// A file, its content or a device where the tensor library says so; otherwise shapes and dtypes
/// that do not fit.
fn tensor_kind(error: &TensorError) -> ErrorKind {
    match error {
        TensorError::WithBacktrace { inner, .. }
        | TensorError::WithPath { inner, .. }
        | TensorError::Context { inner, .. } => tensor_kind(inner),
        TensorError::Io(_) => ErrorKind::File,
        TensorError::SafeTensor(_)
        | TensorError::UnsupportedSafeTensorDtype(_)
        | TensorError::CannotFindTensor { .. }
        | TensorError::Npy(_)
        | TensorError::Zip(_)
        | TensorError::ParseInt(_)
        | TensorError::FromUtf8(_) => ErrorKind::Data,
        TensorError::Cuda(_)
        | TensorError::Metal(_)
        | TensorError::NotCompiledWithCudaSupport
        | TensorError::NotCompiledWithMetalSupport => ErrorKind::Device,
        _ => ErrorKind::Argument,
    }
}

fn without_backtrace(error: TensorError) -> TensorError {
    let bare = |inner: Box<TensorError>| Box::new(without_backtrace(*inner));
    match error {
        TensorError::WithBacktrace { inner, .. } => without_backtrace(*inner),
        TensorError::WithPath { inner, path } => TensorError::WithPath { inner: bare(inner), path },
        TensorError::Context { inner, context } => {
            TensorError::Context { inner: bare(inner), context }
        }
        other => other,
    }
}

impl From<PolarsError> for Error {
    fn from(error: PolarsError) -> Self {
        let kind = match error {
            PolarsError::IO { .. } => ErrorKind::File,
            PolarsError::ComputeError(_)
            | PolarsError::NoData(_)
            | PolarsError::SchemaMismatch(_)
            | PolarsError::SchemaFieldNotFound(_) => ErrorKind::Data,
            _ => ErrorKind::Argument,
        };
        Self::of(kind, "a table operation failed", error.to_string(), "").caused_by(error)
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        let kind = if error.is_io() { ErrorKind::File } else { ErrorKind::Data };
        Self::of(kind, "not the JSON that was expected", error.to_string(), "").caused_by(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_pointer_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        assert_eq!(size_of::<Result<()>>(), size_of::<usize>());
    }

    #[test]
    fn a_clone_keeps_kind_message_and_cause() {
        let missing = io::Error::from(io::ErrorKind::NotFound);
        let error = Error::io(Path::new("a"), missing).at("here").clone();
        assert_eq!(error.kind(), ErrorKind::File);
        assert_eq!(error.what(), "here: cannot use a");
        let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
        assert_eq!(cause.map(io::Error::kind), Some(io::ErrorKind::NotFound));
        assert_eq!(error.to_string().matches("not found").count(), 1, "the cause is shown once");
    }

    #[test]
    fn a_tensor_error_has_its_kind_and_no_backtrace() {
        use candle_core::{DType, Device, Tensor};
        let zeros = |n: usize| Tensor::zeros(n, DType::F32, &Device::Cpu).unwrap();
        let error = Error::from((zeros(2) + zeros(3)).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Argument);
        assert!(error.source().is_some_and(|cause| cause.is::<TensorError>()), "{error}");
        let backtrace = || Box::new(std::backtrace::Backtrace::force_capture());
        let traced = |inner: TensorError| TensorError::WithBacktrace {
            inner: Box::new(inner),
            backtrace: backtrace(),
        };
        let missing = TensorError::Io(io::ErrorKind::NotFound.into());
        let error = Error::from(traced(traced(missing).with_path("weights")));
        assert_eq!(error.kind(), ErrorKind::File);
        assert_eq!(error.got(), "path: \"weights\" entity not found");
        assert_eq!(error.source().unwrap().to_string(), error.got());
        let bad = candle_core::safetensors::load_buffer(b"too short", &Device::Cpu).unwrap_err();
        assert_eq!(Error::from(bad).kind(), ErrorKind::Data);
    }

    #[test]
    fn table_and_json_errors_have_their_kind_and_cause() {
        use polars::prelude::{Column, DataFrame};
        let columns = vec![Column::new("a".into(), [1, 2]), Column::new("b".into(), [1, 2, 3])];
        let error = Error::from(DataFrame::new_infer_height(columns).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Argument);
        assert!(error.source().is_some_and(|cause| cause.is::<PolarsError>()), "{error}");
        let error = Error::from(serde_json::from_str::<u8>("{").unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.source().is_some_and(|cause| cause.is::<serde_json::Error>()), "{error}");
    }

    #[test]
    fn a_bug_asks_for_a_report() {
        let error = Error::bug("no such kernel", "k");
        assert_eq!(error.kind(), ErrorKind::Bug);
        assert!(error.fix().contains("report it"));
        assert_eq!(error, error.clone());
        assert_ne!(error, error.clone().with_kind(ErrorKind::Argument));
    }
}
