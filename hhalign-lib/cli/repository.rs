//! The repository that the program belongs to: notebooks, their runner, and results.

use std::path::{Path, PathBuf};

use hhalign::base::error::{Error, Result};
use hhalign::notebook::options::RunOptions;

/// The program that runs a notebook in its kernel.
const RUNNER: &str = "scripts/jupyter/run_notebook.py";

/// The folder of the toxicity classifier, below the root.
const TOXICITY: &str = ".cache/toxicity";

/// The root of a repository.
pub struct Repository(PathBuf);

impl Repository {
    /// The repository around the program, or else the one around the current folder.
    ///
    /// # Errors
    /// There is no repository around either.
    pub fn find() -> Result<Self> {
        let places =
            [std::env::current_exe(), std::env::current_dir()].map(Result::unwrap_or_default);
        let mut folders = places.iter().flat_map(|place| place.ancestors());
        let root = folders.find(|folder| folder.join(RUNNER).is_file());
        root.map(|root| Self(root.into())).ok_or_else(|| {
            Error::new(
                "the repository with the notebooks was not found",
                format!("no {RUNNER} in a folder around the program or around this one"),
                "call ./scripts/run of the repository, or go into its folder",
            )
        })
    }

    /// A path in the repository.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    /// The results folder.
    pub fn results(&self) -> PathBuf {
        self.path("results")
    }

    /// The folder of the toxicity classifier that set-up fetches.
    pub fn toxicity(&self) -> PathBuf {
        self.path(TOXICITY)
    }

    /// The runner of notebooks.
    pub fn runner(&self) -> PathBuf {
        self.path(RUNNER)
    }

    /// The Python that has Jupyter.
    ///
    /// # Errors
    /// Set-up has not installed it.
    pub fn python(&self) -> Result<PathBuf> {
        let python = self.path(".venv/bin/python");
        if python.is_file() {
            return Ok(python);
        }
        let got = format!("no {}", python.display());
        Err(Error::new("the Python environment is missing", got, "./scripts/setup installs it"))
    }
}

/// The results folder of the repository, which a command reads where no other is named.
pub fn usual_results() -> PathBuf {
    Repository::find().map_or_else(|_| "results".into(), |repository| repository.results())
}

/// The folder of the toxicity classifier that set-up fetches.
pub fn usual_toxicity() -> PathBuf {
    Repository::find().map_or_else(|_| TOXICITY.into(), |repository| repository.toxicity())
}

/// The options that a run has left in its results folder, if it did.
///
/// # Errors
/// They cannot be read, or name a file that has been moved since.
pub fn run_options(results: &Path) -> Result<Option<RunOptions>> {
    let file = results.join(RunOptions::FILE);
    if file.is_file() { RunOptions::read(&file).map(Some) } else { Ok(None) }
}
