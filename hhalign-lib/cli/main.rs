//! The program `hhalign`: one file for each command. A command is a type with [`clap::Args`] and a
//! method `run`; to add one, write its file, its `mod` and its line in [`commands`].

mod bench;
mod evaluate;
mod export;
mod options;
mod report;
mod repository;
mod reward;
mod run;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use hhalign::base::error::Error;
use hhalign::notebook::options::explain;

/// Preference alignment of a small GPT, step by step: runs, reports and measurements.
#[derive(Parser)]
#[command(version, disable_help_subcommand = true, arg_required_else_help = true)]
#[command(after_help = "hhalign run --help lists the options of a run, docs/OPTIONS.md also \
                        variables without an option.")]
struct Cli {
    #[command(subcommand)]
    command: Commands,
}

macro_rules! commands {
    ($($command:ident in $module:ident,)*) => {
        #[derive(Subcommand)]
        enum Commands {
            $($command($module::$command),)*
        }

        impl Commands {
            fn run(self) -> Result<(), Failure> {
                match self {
                    $(Self::$command(command) => command.run(),)*
                }
            }
        }
    };
}

commands! {
    Run in run,
    Report in report,
    Export in export,
    Evaluate in evaluate,
    Reward in reward,
    Bench in bench,
    Options in options,
}

/// Why a command ended early.
enum Failure {
    /// The arguments do not make sense: status 2.
    Usage(Error),
    /// The work failed: status 1.
    Work(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Work(error)
    }
}

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let command = Cli::command().mut_subcommand("run", run::definition);
    let program = Program::new(&command, &words);
    let matches = command.clone().try_get_matches_from(&words);
    match matches.and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches)) {
        Ok(cli) => match cli.command.run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(Failure::Work(error)) => program.end(&error, 1),
            Err(Failure::Usage(error)) => program.end(&error, 2),
        },
        Err(error) => program.refuse(&error),
    }
}

/// The command that was called, for messages.
struct Program<'a> {
    command: &'a Command,
    name: String,
    words: &'a [OsString],
}

impl<'a> Program<'a> {
    fn new(command: &'a Command, words: &'a [OsString]) -> Self {
        let mut program = Self { command, name: command.get_name().to_string(), words };
        for word in words.iter().skip(1) {
            let Some(next) = program.command.find_subcommand(word) else { break };
            program.name = format!("{} {}", program.name, next.get_name());
            program.command = next;
        }
        program
    }

    fn end(&self, error: &Error, status: u8) -> ExitCode {
        eprintln!("{}: {error}", self.name);
        ExitCode::from(status)
    }

    /// Prints the help that was asked for, or what is wrong with the arguments.
    fn refuse(&self, error: &clap::Error) -> ExitCode {
        if !error.use_stderr()
            || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        {
            // Nobody reads what a closed pipe does not take.
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
        self.end(&explain(error, |option| self.source(option)), 2)
    }

    /// An option where it was given as an argument, else the variable that its value came from.
    fn source(&self, option: &str) -> String {
        let given = self.words.iter().any(|word| {
            let word = word.to_string_lossy();
            word.split('=').next() == Some(option)
        });
        let arg =
            self.command.get_arguments().find(|arg| arg.get_long() == option.strip_prefix("--"));
        match arg.and_then(|arg| arg.get_env()) {
            Some(variable) if !given => variable.to_string_lossy().into_owned(),
            _ => option.to_string(),
        }
    }
}
