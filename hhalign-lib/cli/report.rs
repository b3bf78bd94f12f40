//! `hhalign report`: a results folder as one page.

use std::path::{Path, PathBuf};

use clap::Args;
use hhalign::base::error::{Error, Result};
use hhalign::base::files::write_atomic;
use hhalign::eval::summary::Summary;
use hhalign::notebook::options::parse;
use hhalign::report::{compare, report};

use crate::Failure;
use crate::repository::usual_results;

/// Write a results folder, or two side by side, as one self-contained HTML page.
#[derive(Args)]
pub struct Report {
    /// Results folder; without it, results/ in the repository.
    #[arg(value_parser = parse::folder)]
    results: Option<PathBuf>,
    /// A second results folder, to be compared with the first.
    #[arg(value_parser = parse::folder)]
    other: Option<PathBuf>,
    /// The page; without it, report.html in RESULTS, or comparison.html for two folders.
    #[arg(long, value_name = "FILE", value_parser = page)]
    out: Option<PathBuf>,
}

fn page(text: &str) -> Result<PathBuf> {
    if text.is_empty() || Path::new(text).is_dir() {
        return Err(Error::new(
            "a file is needed",
            format!("{text:?}"),
            "give a name such as report.html",
        ));
    }
    Ok(text.into())
}

impl Report {
    pub fn run(self) -> Result<(), Failure> {
        let results = self.results.unwrap_or_else(usual_results);
        check(&results)?;
        let (name, html) = match &self.other {
            None => ("report.html", report(&results)?),
            Some(other) => {
                check(other)?;
                ("comparison.html", compare(&results, other)?)
            }
        };
        let file = self.out.unwrap_or_else(|| results.join(name));
        write_atomic(&file, html.as_bytes())?;
        let place = file.canonicalize().map_err(|e| Error::io(&file, e))?;
        println!("read it in a browser: file://{}", place.display());
        Ok(())
    }
}

/// Names the folders in a results folder that have what it lacks.
fn check(results: &Path) -> Result<()> {
    if results.join(Summary::FILE).is_file() {
        return Ok(());
    }
    let entries = std::fs::read_dir(results).into_iter().flatten().flatten().map(|e| e.path());
    let inside = entries.filter(|path| path.join(Summary::FILE).is_file());
    let inside: String =
        inside.map(|path| format!("./scripts/report {}, or ", path.display())).collect();
    let got = format!("no {} in {}", Summary::FILE, results.display());
    let fix = format!("{inside}./scripts/run --out {} writes one", results.display());
    Err(Error::new("this folder has no results to report", got, fix))
}
