//! How well the refusal matcher agrees with XSTest's human labels, and how often it fires on HH.

use std::path::{Path, PathBuf};

use clap::Args;
use hhalign::base::error::{Error, Result};
use hhalign::data::Dataset;
use hhalign::eval::measure::Metrics;
use hhalign::eval::metrics::refusal::declines;
use hhalign::eval::metrics::refusal::xstest::{
    Completion, Half, detector_accuracy, read_completions,
};
use hhalign::notebook::options::parse;
use hhalign::show::table::{Column, Table};
use hhalign::stats::format::{Decimals, Format};
use hhalign::stats::wilson;

use crate::Failure;

/// How the files with XSTest's completions begin.
const COMPLETIONS: &str = "xstest_completions_";

/// Measure how well the refusal matcher agrees with the human labels of XSTest.
///
/// Its phrases were derived from one half of the prompts, so the other half is the measure.
#[derive(Args)]
pub struct RefusalDetector {
    /// Files xstest_completions_MODEL.csv, or folders of them.
    #[arg(value_name = "PLACE", required = true)]
    places: Vec<PathBuf>,
    /// Also count how often it fires on the replies of HH, which nobody has labelled: a file or a
    /// folder.
    #[arg(long, value_name = "PLACE", value_parser = parse::data)]
    hh: Option<PathBuf>,
}

impl RefusalDetector {
    pub fn run(self) -> Result<(), Failure> {
        for place in &self.places {
            for path in files(place)? {
                println!("{}", of_file(&path)?);
            }
        }
        if let Some(hh) = self.hh {
            println!("{}", on_hh(&hh)?);
        }
        Ok(())
    }
}

/// A file, or the files with completions in a folder, in order.
fn files(place: &Path) -> Result<Vec<PathBuf>> {
    if !place.is_dir() {
        return Ok(vec![place.to_path_buf()]);
    }
    let entries = std::fs::read_dir(place).map_err(|e| Error::io(place, e))?;
    let named = |path: &PathBuf| {
        path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(COMPLETIONS))
    };
    let mut found: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(named).collect();
    found.sort();
    if found.is_empty() {
        let got = format!("no {COMPLETIONS}*.csv in {}", place.display());
        return Err(Error::new("no replies were found", got, "name another folder, or files"));
    }
    Ok(found)
}

fn of_file(path: &Path) -> Result<Table> {
    let all = read_completions(path)?;
    let half =
        |half: Half| all.iter().filter(|c| c.half() == half).cloned().collect::<Vec<Completion>>();
    let (mut parts, mut metrics, mut values, mut n) = (vec![], vec![], vec![], vec![]);
    for (part, replies) in [
        ("development", half(Half::Development)),
        ("test", half(Half::Test)),
        ("both", all.clone()),
    ] {
        for measure in detector_accuracy(&replies).measures() {
            let (name, estimate) = (measure.name(), measure.estimate());
            parts.push(part.to_string());
            metrics.push(name.to_string());
            values.push(estimate.cell());
            n.push(estimate.n as i64);
        }
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let table = Table::new(
        name,
        vec![
            Column::text("prompts", parts),
            Column::text("metric", metrics),
            Column::text("value [95% interval]", values),
            Column::int("n", n),
        ],
    )?;
    Ok(table.with_note("Intervals: Wilson. Phrases come from the development half; the test half is the measure.\n"))
}

/// How often the matcher fires on replies that nobody has labelled.
fn on_hh(folder: &Path) -> Result<Table> {
    let pairs = Dataset::read(folder)?.pairs;
    let mut subsets: Vec<_> = pairs.iter().map(|p| p.origin.subset.clone()).collect();
    subsets.dedup();
    let (mut names, mut sides, mut fired, mut shares) = (vec![], vec![], vec![], vec![]);
    let mut n = vec![];
    for subset in subsets {
        for side in ["chosen", "rejected"] {
            let replies = pairs.iter().filter(|p| p.origin.subset == subset);
            let declined = replies
                .clone()
                .filter(|p| declines(if side == "chosen" { &p.chosen } else { &p.rejected }));
            let (declined, all) = (declined.count(), replies.count());
            let share = wilson(declined as f64, all);
            names.push(subset.to_string());
            sides.push(side.to_string());
            fired.push(declined as i64);
            shares.push(share.format(&Format::TABLE.decimals(Decimals::Fixed(4))));
            n.push(all as i64);
        }
    }
    Table::new(
        "Replies of HH that the matcher calls refusals",
        vec![
            Column::text("subset", names),
            Column::text("side", sides),
            Column::int("fired", fired),
            Column::text("share [95% interval]", shares),
            Column::int("n", n),
        ],
    )
}
