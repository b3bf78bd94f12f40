//! `hhalign run`: a notebook in its kernel, with the options of a run.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process;

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use hhalign::base::error::{Error, Result};
use hhalign::notebook::options::{RunOptions, parse};
use serde_json::Value;

use crate::Failure;
use crate::repository::Repository;

/// Run the whole pipeline: a notebook in the Rust kernel, from data to the comparison table.
#[derive(Args)]
pub struct Run {
    // First, since the fields that follow take their values out of what was matched.
    #[command(flatten)]
    given: Given,
    #[command(flatten)]
    options: RunOptions,
    /// Notebook to run; without it, notebooks/01_pipeline.ipynb in the repository.
    #[arg(long, value_name = "FILE", value_parser = parse::file)]
    notebook: Option<PathBuf>,
    /// Delete the trainings of earlier runs in the results folder. Without it a finished training
    /// is not repeated, and an interrupted one resumes.
    #[arg(long)]
    fresh: bool,
    /// Also write the outputs into the notebook itself.
    #[arg(long)]
    in_place: bool,
}

/// The fields that an option or a variable gave.
struct Given(BTreeSet<String>);

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        let given =
            |id: &str| matches.value_source(id).is_some_and(|s| s != ValueSource::DefaultValue);
        Ok(Self(matches.ids().map(|id| id.to_string()).filter(|id| given(id)).collect()))
    }

    fn update_from_arg_matches(
        &mut self,
        matches: &ArgMatches,
    ) -> std::result::Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Given {
    fn augment_args(command: Command) -> Command {
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        command
    }
}

/// The command as it parses: the last of two equal options counts, and an empty variable counts as
/// not set.
pub fn definition(command: Command) -> Command {
    command.args_override_self(true).mut_args(|arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        let arg = arg.hide_env_values(true);
        if value.is_some_and(|value| value.is_empty()) { arg.env(Resettable::Reset) } else { arg }
    })
}

impl Run {
    pub fn run(mut self) -> Result<(), Failure> {
        let repository = Repository::find()?;
        let python = repository.python()?;
        self.place(&repository);
        let shown = self.options.results.clone();
        self.make_results()?;
        let file = self.options.result(RunOptions::FILE);
        self.options.write(&file)?;

        let usual = || repository.path("notebooks/01_pipeline.ipynb");
        let mut runner = process::Command::new(&python);
        runner.arg(repository.runner()).arg(self.notebook.clone().unwrap_or_else(usual));
        runner.arg("--out").arg(shown);
        if self.in_place {
            runner.arg("--in-place");
        }
        runner.env(RunOptions::FILE_VARIABLE, file).envs(self.variables()?);
        // Takes the place of this process, which signals then reach and whose status is its own.
        Err(Error::io(&python, runner.exec()).into())
    }

    /// Folders that were not given are those of the repository.
    fn place(&mut self, repository: &Repository) {
        let given = &mut self.given.0;
        if given.insert("results".into()) {
            self.options.results = repository.results();
        }
        if given.insert("toxicity".into()) {
            self.options.toxicity = repository.toxicity();
        }
    }

    /// Makes the results folder, and makes paths independent of the folder that reads them.
    fn make_results(&mut self) -> Result<()> {
        let options = &mut self.options;
        let results = &options.results;
        std::fs::create_dir_all(results).map_err(|e| Error::io(results, e))?;
        options.results = results.canonicalize().map_err(|e| Error::io(results, e))?;
        let toxicity = &options.toxicity;
        options.toxicity = std::path::absolute(toxicity).map_err(|e| Error::io(toxicity, e))?;
        let runs = options.result("runs");
        if self.fresh && runs.exists() {
            std::fs::remove_dir_all(&runs).map_err(|e| Error::io(&runs, e))?;
        }
        Ok(())
    }

    /// Each given option by its variable, for what reads variables: `Device::Auto`, the folder of
    /// live runs, and cells that ask whether an option was given.
    fn variables(&self) -> Result<Vec<(String, String)>> {
        let values = serde_json::to_value(&self.options)?;
        let definition = RunOptions::augment_args(Command::new("run"));
        let given =
            definition.get_arguments().filter(|arg| self.given.0.contains(arg.get_id().as_str()));
        let variable = |arg: &clap::Arg| {
            let value = match &values[arg.get_id().as_str()] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            Some((arg.get_env()?.to_str()?.to_string(), value))
        };
        Ok(given.filter_map(variable).collect())
    }
}
