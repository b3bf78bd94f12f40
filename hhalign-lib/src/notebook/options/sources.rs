//! Where options come from: arguments, variables, or the file that `hhalign run` writes.

use std::path::Path;

use clap::builder::Resettable;
use clap::error::{ContextKind, ErrorKind};
use clap::{Args as _, Command, FromArgMatches as _};
use serde_json::{Map, Value};

use super::RunOptions;
use crate::base::error::{Error, Result};
use crate::base::files;

/// An option's value, and what to call its source in a message.
struct Given {
    option: String,
    value: String,
    source: String,
}

impl Default for RunOptions {
    fn default() -> Self {
        parse(&[]).expect("the defaults are values that the parsers accept")
    }
}

impl RunOptions {
    /// The variable with the path of the file that [`RunOptions::write`] wrote.
    pub const FILE_VARIABLE: &str = "HHALIGN_OPTIONS";

    /// The name of that file in a results folder.
    pub const FILE: &str = "options.json";

    /// Reads the file that `HHALIGN_OPTIONS` names; where it is not set, the variable of each
    /// option. What is given nowhere has its default.
    ///
    /// # Errors
    /// A value that cannot be read: its variable, the value, and what the option takes.
    pub fn from_env() -> Result<Self> {
        // A path that is not UTF-8 remains a path that does not exist: it must not read as "not
        // given".
        let get = |name: &str| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned());
        match get(Self::FILE_VARIABLE).filter(|path| !path.is_empty()) {
            Some(path) => Self::read(path).map_err(|e| e.at(Self::FILE_VARIABLE)),
            None => Self::from_lookup(get),
        }
    }

    /// Reads the variables from any source of named values. An empty value counts as not given.
    ///
    /// # Errors
    /// A value that cannot be read.
    ///
    /// # Example
    /// ```
    /// use hhalign::notebook::options::RunOptions;
    /// let options = RunOptions::from_lookup(|name| (name == "HHALIGN_BETA").then(|| "0.3".into()))?;
    /// assert_eq!(options.beta, 0.3);
    /// # Ok::<(), hhalign::base::error::Error>(())
    /// ```
    pub fn from_lookup(get: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let definition = definition();
        let given = definition.get_arguments().filter_map(|arg| {
            let (option, source) = (arg.get_long()?, arg.get_env()?.to_str()?);
            let value = get(source).filter(|value| !value.is_empty())?;
            Some(Given { option: option.into(), value, source: source.into() })
        });
        parse(&given.collect::<Vec<_>>())
    }

    /// Reads the file that [`RunOptions::write`] wrote. A field that it lacks has its default.
    ///
    /// # Errors
    /// The file cannot be read, or holds a value that an option would refuse.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let fields: Map<_, _> = serde_json::from_slice(&files::read(path)?).map_err(|e| {
            let fix = "./scripts/run writes one into its results folder";
            Error::data("this is not the file of a run's options", e.to_string(), fix)
                .at(path.display())
        })?;
        Self::try_from(fields).map_err(|e| e.at(path.display()))
    }

    /// Writes all options as JSON.
    ///
    /// # Errors
    /// The file cannot be written, or a path is not UTF-8.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        files::write_atomic(
            path.as_ref(),
            format!("{:#}\n", serde_json::to_value(self)?).as_bytes(),
        )
    }
}

impl TryFrom<Map<String, Value>> for RunOptions {
    type Error = Error;

    /// Reads fields by their names; the parsers of the options check them.
    fn try_from(fields: Map<String, Value>) -> Result<Self> {
        let definition = definition();
        let mut given = vec![];
        for (field, value) in fields {
            let arg = definition.get_arguments().find(|arg| *arg.get_id() == field.as_str());
            let Some(option) = arg.and_then(|arg| arg.get_long()) else {
                return Err(Error::new("there is no such field of RunOptions", field, "remove it"));
            };
            let value = match value {
                Value::Null => continue,
                Value::String(text) => text,
                other => other.to_string(),
            };
            given.push(Given { option: option.into(), value, source: field });
        }
        parse(&given)
    }
}

fn definition() -> Command {
    RunOptions::augment_args(Command::new("hhalign").no_binary_name(true))
}

/// `--` and the name of a field's option.
pub(super) fn option(field: &str) -> String {
    let definition = definition();
    let arg = definition.get_arguments().find(|arg| *arg.get_id() == field);
    arg.and_then(|arg| arg.get_long()).map(|long| format!("--{long}")).unwrap_or_default()
}

fn parse(given: &[Given]) -> Result<RunOptions> {
    // Variables are read before, so that an empty one counts as not given.
    let command = definition().mut_args(|arg| arg.env(Resettable::Reset));
    let words = given.iter().map(|given| format!("--{}={}", given.option, given.value));
    let source = |option: &str| {
        let found = given.iter().find(|given| option.strip_prefix("--") == Some(&given.option));
        found.map_or(option.to_string(), |given| given.source.clone())
    };
    let mut matches = command.try_get_matches_from(words).map_err(|e| explain(&e, source))?;
    RunOptions::from_arg_matches_mut(&mut matches).map_err(|e| explain(&e, source))
}

/// What clap found wrong, in three parts. `source` is given an option such as `--beta` and returns
/// what to call it: the same, or the variable that its value came from.
///
/// # Example
/// ```
/// use clap::{Args, Command};
/// use hhalign::notebook::options::{RunOptions, explain};
/// let command = RunOptions::augment_args(Command::new("run"));
/// let wrong = command.try_get_matches_from(["run", "--bta", "0.3"]).unwrap_err();
/// let error = explain(&wrong, str::to_string);
/// assert_eq!((error.what(), error.got()), ("there is no such option", "--bta"));
/// assert!(error.fix().contains("--beta"));
/// ```
pub fn explain(error: &clap::Error, source: impl Fn(&str) -> String) -> Error {
    const HELP: &str = "--help lists all there are";
    let context = |kind| error.get(kind).map(ToString::to_string).unwrap_or_default();
    let argument = context(ContextKind::InvalidArg);
    let place = source(argument.split([' ', '=']).next().unwrap_or_default());
    let value = context(ContextKind::InvalidValue);
    let suggested = |kind| match context(kind) {
        name if name.is_empty() => HELP.to_string(),
        name => format!("did you mean {name}? {HELP}"),
    };
    match error.kind() {
        ErrorKind::ValueValidation | ErrorKind::InvalidValue if value.is_empty() => {
            Error::new("a value is needed", "nothing", format!("write {argument}")).at(place)
        }
        ErrorKind::ValueValidation => {
            let cause = std::error::Error::source(error);
            let known = cause.and_then(|cause| cause.downcast_ref::<Error>()).cloned();
            let other = || {
                Error::new(
                    "not what is needed",
                    value,
                    cause.map_or(HELP.into(), |c| c.to_string()),
                )
            };
            known.unwrap_or_else(other).at(place)
        }
        ErrorKind::InvalidValue => {
            let fix = format!("choose one of {}", context(ContextKind::ValidValue));
            Error::new("there is no such value", value, fix).at(place)
        }
        ErrorKind::UnknownArgument if argument.starts_with('-') => {
            Error::new("there is no such option", argument, suggested(ContextKind::SuggestedArg))
        }
        ErrorKind::UnknownArgument => Error::new("one word too many", argument, HELP),
        ErrorKind::InvalidSubcommand => Error::new(
            "there is no such command",
            context(ContextKind::InvalidSubcommand),
            suggested(ContextKind::SuggestedSubcommand),
        ),
        ErrorKind::MissingSubcommand => Error::new("a command is needed", "none", HELP),
        ErrorKind::MissingRequiredArgument => Error::new("something is missing", argument, HELP),
        _ => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            Error::new(first.strip_prefix("error: ").unwrap_or(first), "", HELP)
        }
    }
}
